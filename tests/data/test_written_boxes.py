"""Boxes as other tools' files have them, by hand."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.data.written_boxes import (
    Written,
    by_pixels,
    coco_entry,
    plain,
    voc_xml,
    yolo_row,
)

SIDES = st.floats(0, 4000, width=32)


def test_vocs_corners_are_the_first_and_the_last_pixel() -> None:
    assert by_pixels((0, 10, 30.5, 20)) == (1, 11, 30.5, 20)
    whole = Written("a & <b>\x07", (0, 10, 30.5, 20), difficult=True, score=0.25)
    root = ElementTree.fromstring(voc_xml("folder/pic<1>.jpg", (64, 48), [whole]).encode())
    assert root.findtext("filename") == "pic<1>.jpg"
    assert root.findtext("folder") == "folder"
    assert [root.findtext(f"size/{side}") for side in ("width", "height")] == ["64", "48"]
    (thing,) = root.findall("object")
    assert thing.findtext("name") == "a & <b>\\x07"
    assert (thing.findtext("difficult"), thing.findtext("score")) == ("1", "0.250000")
    corners = [thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    assert corners == ["1", "11", "30.5", "20"]


def test_yolos_rows_are_middles_and_sides_in_shares() -> None:
    assert yolo_row(3, (16, 12, 48, 36), (64, 48)) == (
        "3 0.500000000 0.500000000 0.500000000 0.500000000"
    )
    assert yolo_row(0, (-1, 0, 65, 48), (64, 48)).startswith("0 0.5")  # cut off at the border


@given(SIDES, SIDES, SIDES, SIDES)
def test_yolos_digits_are_enough(x1: float, y1: float, x2: float, y2: float) -> None:
    box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    x, y, w, h = map(float, yolo_row(0, box, (4000, 4000)).split()[1:])
    again = [4000 * v for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
    assert again == pytest.approx(box, abs=1e-3)


def test_cocos_entries_are_corner_and_size() -> None:
    entry = coco_entry(7, "x1", 3, (1.00004, 2, 10.5, 4))
    assert entry == {
        "id": 7, "image_id": "x1", "category_id": 3, "bbox": [1.0, 2.0, 9.5, 2.0], "area": 19.0,
        "iscrowd": 0,
    }  # fmt: skip
    assert coco_entry(7, 1, 3, (0, 0, 1, 1), score=1 / 3)["score"] == 0.333333


@pytest.mark.parametrize(("value", "text"), [(6.0, "6"), (45.7, "45.7"), (0, "0"), (100, "100")])
def test_numbers_without_needless_fractions(value: float, text: str) -> None:
    assert plain(value) == text
