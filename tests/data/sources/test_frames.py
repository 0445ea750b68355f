"""Boxes and the sizes of the images they lie in."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.data.dimensions import upright
from retinue.data.sources.frames import brought_upright, frames


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_on_the_stored_picture_are_brought_upright(orientation: int) -> None:
    import cv2
    from PIL import Image, ImageOps

    stored = np.zeros((48, 64), np.uint8)
    stored[10:20, 5:30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored)
    image.info["exif"] = exif.tobytes()
    image._exif = exif  # type: ignore[attr-defined]
    turned = np.asarray(ImageOps.exif_transpose(image))
    found = np.array([[64, 48, orientation]], np.int32)
    claimed = np.array([[64, 48]])
    settled = frames(claimed, found, lambda k: "here")
    assert settled.problems == []
    assert settled.size().tolist() == upright(found).tolist() or orientation < 5
    box = np.array([[5.0, 10, 30, 20]])
    if orientation >= 5:
        assert settled.oddities[0].items == ["here"]
        x, y, w, h = cv2.boundingRect(turned)
        moved = brought_upright(box, np.array([0]), settled)
        assert moved.tolist() == [[x, y, x + w, y + h]]
    else:  # the size cannot tell which was meant: what everybody sees
        assert brought_upright(box, np.array([0]), settled).tolist() == box.tolist()


def test_a_size_that_contradicts_the_image() -> None:
    found = np.array([[64, 48, 1], [64, 48, 6], [0, 0, 1], [64, 48, 1]], np.int32)
    claimed = np.array([[48, 64], [48, 64], [10, 10], [0, 0]])
    settled = frames(claimed, found, lambda k: f"file {k}")
    assert settled.usable.tolist() == [False, True, True, True]
    assert settled.problems == ["file 0: boxes for an image of 48 × 64 pixels, but it has 64 × 48"]
    assert settled.drawn.tolist() == [[0, 0], [48, 64], [10, 10], [64, 48]]
    assert [odd.items for odd in settled.oddities] == [["file 3"]]
