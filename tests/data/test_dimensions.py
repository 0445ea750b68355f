"""Sizes from headers are those of decoding, for every kind of file."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinue.data.decode import Encoded
from retinue.data.dimensions import dimensions, dimensions_of, upright

KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")


@pytest.mark.parametrize(("kind", "orientation"), list(itertools.product(KINDS, (1, 3, 6))))
def test_what_decoding_says(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    Image.new("RGB", (31, 17)).save(path, kind, **how)
    encoded = Encoded(path.read_bytes(), path=str(path))
    assert dimensions_of(str(path)) == (*encoded.stored_size, encoded.orientation)
    assert encoded.orientation == (orientation if how and kind != "TIFF" else 1)
    assert upright(np.array([dimensions_of(str(path))])).tolist() == [list(encoded.size)]


def test_a_frame_behind_a_long_profile(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (31, 17)).save(path, icc_profile=bytes(300_000))
    assert dimensions_of(str(path)) == (31, 17, 1)


def test_no_image_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.png").mkdir()
    names = [str(tmp_path / name) for name in ("a.jpg", "b.png", "c.png", "d.png")]
    assert dimensions(names).tolist() == [[0, 0, 1]] * 4
    assert dimensions(["x"], [lambda: np.zeros((4, 6, 3), np.uint8)]).tolist() == [[6, 4, 1]]
