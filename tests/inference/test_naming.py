"""Names of what is written for one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from answers import picture
from PIL import Image

from retinue.inference.writers import PredictionFolder
from retinue.tasks.classification.task import Classification
from retinue.tasks.results import ClassResult


def test_drawn_images_keep_their_folders_and_do_not_collide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "in"
    inside = [
        picture(base / "x" / "a.jpg"),
        picture(base / "y" / "a.jpg"),
        picture(base / "y" / "a.bmp"),
        picture(base / "y" / "a.bmp.png"),
        picture(base / "y" / "A.jpg"),
    ]
    outside = picture(tmp_path / "elsewhere" / "a.jpg")
    sneaky = str(base / ".." / "elsewhere" / ".." / "elsewhere" / "a.jpg")
    out = tmp_path / "out"
    task = Classification(["lily", "rose"])
    with PredictionFolder(out, draw=task.draw, base=base) as folder:
        for path in [*inside, outside, sneaky]:
            folder.add(ClassResult(path, [("rose", 0.9)]))
    assert (out / "drawn" / ".drawn-by-retinue").is_file()
    pictures = [p for p in out.rglob("drawn/**/*.*") if p.name[0] != "."]
    drawn = sorted(str(p.relative_to(out / "drawn")) for p in pictures)
    where = "outside" + str(tmp_path / "elsewhere")
    assert drawn == sorted(
        [
            "x/a.jpg",
            "y/a.jpg",
            "y/a.bmp.png",
            "y/a.bmp-2.png",
            "y/A-2.jpg",
            f"{where}/a.jpg",
            f"{where}/a-2.jpg",
        ]
    )
    for path in drawn:
        pixels = np.asarray(Image.open(out / "drawn" / path))
        assert pixels.shape == (40, 60, 3)
        assert pixels.max() > 180  # the caption
    before = np.asarray(Image.open(inside[0]))
    assert before.max() < 100  # the original is as it was
