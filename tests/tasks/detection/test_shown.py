"""Boxes as large as a network gets to see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from box_sets import picture, write

from retinue.data.targets.boxes import Boxes
from retinue.sample import Preprocessing, Sample
from retinue.tasks.detection.shown import shown_sizes


def test_boxes_are_as_large_as_the_letterbox_shows_them(tmp_path: Path) -> None:
    """Half as large of 128 × 64, 64 × 128 turned by its EXIF among them; crowds, images without
    objects and those that cannot be read are left out."""
    upright = str(picture(tmp_path / "a.jpg", (128, 64)))
    turned = str(picture(tmp_path / "b.jpg", (64, 128), orientation=6))
    broken = str(write(tmp_path / "c.jpg", "no image"))
    boxes = Boxes.made([[10, 10, 30, 50], [0, 0, 128, 64]], [0, 1], crowd=[False, True])
    square = Boxes.made([[100, 4, 124, 20]], [1])
    known = [(upright, boxes), (turned, square), (broken, square), (upright, Boxes.made([], []))]
    samples = [Sample(key, target=target) for key, target in known]
    found = shown_sizes([*samples, Sample(upright)], Preprocessing((64, 64), fit="letterbox"))
    np.testing.assert_allclose(found, [[10, 20], [12, 8]], atol=1e-5)
    assert shown_sizes([], Preprocessing((64, 64), fit="letterbox")).shape == (0, 2)
