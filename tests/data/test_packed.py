"""Images made small beforehand: the same places as in their originals, whatever way up they lie."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rows import look, sample_of

from retinue.data import packed
from retinue.data.decode import Encoded
from retinue.data.options import AugmentOptions
from retinue.data.packed import SmallImages, made_small
from retinue.data.targets.boxes import Boxes
from retinue.data.views import TrainView
from retinue.sample import Preprocessing, Sample

picture, encoded = sys.modules["salted"].picture, sys.modules["salted"].encoded
HOW = Preprocessing(size=(64, 64))


def test_the_side_follows_the_largest_input() -> None:
    assert packed.side_of("off", [(224, 224)]) is None
    assert packed.side_of("auto", [(128, 128), (224, 160)]) == 336
    assert packed.side_of(400, [(224, 224)]) == 400


@pytest.mark.parametrize(
    ("original", "small"),
    [
        ((500, 375), (448, 336)),
        ((375, 500), (336, 448)),
        ((336, 336), (336, 336)),
        ((300, 4000), (300, 4000)),
        ((1, 1), (1, 1)),
        ((336_000, 672), (168_000, 336)),
    ],
)
def test_only_what_is_large_becomes_small(
    original: tuple[int, int], small: tuple[int, int]
) -> None:
    assert packed.size_of(original, 336) == small


def marked(width: int, height: int, orientation: int) -> bytes:
    """A JPEG, grey but for a white square about three quarters across and a quarter down of how it
    is stored."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    x, y = 3 * width // 4, height // 4
    pixels[y - 20 : y + 20, x - 20 : x + 20] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(640, 480), (637, 479), (483, 645)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_places_are_those_of_the_upright_original(size: tuple[int, int], orientation: int) -> None:
    """Also of sizes that a JPEG's blocks do not divide, decoded at half their scale."""
    width, height = size
    source = Encoded(marked(width, height, orientation), path="it")
    small = made_small(source, 150)
    assert min(small.image.shape[:2]) == 150
    assert small.size == source.size
    weights = small.image[..., 1].astype(np.float64).clip(60) - 60
    ys, xs = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    seen = np.array([(weights * xs).sum(), (weights * ys).sum()]) / weights.sum()
    there = small.decode().to_original @ [*seen, 1]
    x, y = 3 * width // 4, height // 4
    turned = {
        1: (x, y), 2: (width - x, y), 3: (width - x, height - y), 4: (x, height - y),
        5: (y, x), 6: (height - y, x), 7: (height - y, width - x), 8: (y, width - x),
    }  # fmt: skip
    assert there[:2] == pytest.approx(turned[orientation], abs=0.4)


def test_what_is_small_already_keeps_its_pixels() -> None:
    image = picture(3, (100, 140))
    small = made_small(Encoded(encoded(image, "PNG"), path="it"), 100)
    assert np.array_equal(small.image, np.asarray(image))


def test_what_is_written_is_read_and_nothing_else() -> None:
    small = made_small(Encoded(encoded(picture(3, (90, 140)), "PNG"), path="it"), 60)
    written = small.written()
    again = packed.read(written, "it")
    assert again is not None
    assert again.size == small.size == (140, 90)
    assert np.array_equal(again.image, small.image)
    for other in (b"", written[:15], written[:16], written[:-1], written + b"\0"):
        assert packed.read(other, "it") is None


def test_a_view_of_small_images_shows_the_same_with_the_same_boxes(tmp_path: Path) -> None:
    """Whole pixels of the small image are drawn from, so that the crops differ by less than one."""
    file = tmp_path / "it.jpg"
    file.write_bytes(encoded(picture(5, (400, 600)), "JPEG", quality=95))
    target = Boxes.made([[120, 80, 300, 240]], ["cat"]).remap({"cat": 0})
    options = AugmentOptions(crop_scale=(0.5, 1.0), rotation=10)
    plain, small = (
        TrainView(options, HOW, 0, opening=opening) for opening in (None, SmallImages(200))
    )
    for key in range(5):
        one, other = (
            look(view, Sample(str(file), target=target), size=(64, 64), key=key)
            for view in (plain, small)
        )
        assert one.original_size == other.original_size == (600, 400)
        assert np.allclose(one.to_original @ [32, 32, 1], other.to_original @ [32, 32, 1], atol=3)
        assert isinstance(one.target, Boxes)
        assert isinstance(other.target, Boxes)
        assert np.allclose(one.target.xyxy, other.target.xyxy, atol=0.6)
        assert np.abs(one.image.astype(int) - other.image).mean() < 4


def test_parts_and_arrays_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "it.png"
    file.write_bytes(encoded(picture(5, (400, 600)), "PNG"))
    part = Sample(str(file), part=(100, 100, 300, 260))
    array = sample_of(np.asarray(picture(5, (400, 600))))
    for sample in (part, array):
        plain, small = (
            look(TrainView(AugmentOptions(), HOW, 0, opening=o), sample, size=(64, 64))
            for o in (None, SmallImages(50))
        )
        assert np.array_equal(plain.image, small.image)
