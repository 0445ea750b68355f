"""What COCO's JSON may say, and what is refused by its id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from box_sets import count, found, read, write
from coco_sets import box, coco, image

from retinue.errors import UsageError


def test_ids_are_sparse_unsorted_text_or_0(tmp_path: Path) -> None:
    categories = [{"id": 90, "name": "z"}, {"id": 0, "name": "y"}, {"id": "13", "name": "x"}]
    path = coco(
        tmp_path,
        [image("fire1-80"), image(5_000_000_000, "b.jpg")],
        [
            box(1, "fire1-80", 90, 1, 2, 10, 20),
            box("1b", "5000000000", "0", 0, 0, 64, 48),
            box(3, 5_000_000_000, 13, 4.25, 4.5, 8.5, 8),
        ],
        categories,
    )
    dataset = read(path)
    assert dataset.classes == ("y", "x", "z")
    assert found(dataset) == {
        "a.jpg": [("z", 1, 2, 11, 22)],
        "b.jpg": [("y", 0, 0, 64, 48), ("x", 4.25, 4.5, 12.75, 12.5)],
    }


def test_an_id_that_stands_twice(tmp_path: Path) -> None:
    twice = box(1, 1, 7, 1, 1, 9, 9)
    dataset = read(coco(tmp_path, [image(1)], [twice, twice, box(1, 1, 7, 2, 2, 9, 9)]))
    assert count(dataset) == 2
    assert "1 annotation id stands in labels.json more than once: 1" in dataset.notes
    assert any("boxes that stand there twice: 1" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (box(9, 3, 7, 1, 1, 9, 9), "no such image_id 3, annotation 9"),
        (box(9, 1, 99, 1, 1, 9, 9), "no such category_id 99, annotation 9"),
        (box(9, [1], 7, 1, 1, 9, 9), "no such image_id [1], annotation 9"),
        (box(9, 1, 7, 1, 1, 9), "annotation 9: a box at nan"),
        (box(9, 1, 7, 1, 1, -9, 9), "annotation 9: an inverted box, 1, 1, -8, 10"),
        (box(9, 1, 7, 1, 1, float("nan"), 9), "annotation 9: a box at 1, 1, nan"),
        (box(9, 1, 7) | {"bbox": 5}, "annotation 9: a box at nan"),
        (box(9, 1, 7, 5), "annotation 9: a box at nan"),
        (box(9, 1, 7) | {"bbox": [[1, 2], [3, 4]]}, "annotation 9: a box at nan"),
        ("nothing", "annotation 2 is no object"),
    ],
)
def test_what_makes_no_sense_is_named_by_its_id(
    tmp_path: Path, annotation: Any, words: str
) -> None:
    path = coco(tmp_path, [image(1)], [box(1, 1, 7, 1, 1, 9, 9), annotation])
    with pytest.raises(UsageError, match="1 label cannot be used") as caught:
        read(path)
    assert words in str(caught.value)
    assert count(read(path, on_bad_image="skip")) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [], "annotations": [', "not JSON.*line 1 column.*was it cut off"),
        ('{"images": [], "categories": []}', "no list of annotations"),
        ('{"images": [], "annotations": [], "categories": []}', "no object in any"),
        ("[1, 2]", "no list of images"),
    ],
)
def test_what_is_no_data_set(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(write(tmp_path / "a.json", text), format="coco")


def test_utf_16_and_gbk(tmp_path: Path) -> None:
    path = coco(
        tmp_path, [image(1, "浣 1.jpg")], [box(1, 1, 1, 1, 1, 9, 9)], [{"id": 1, "name": "猫"}]
    )
    text = json.dumps(json.loads(path.read_text()), ensure_ascii=False)
    for encoding in ("utf-16", "utf-8-sig"):
        assert found(read(write(path, text, encoding))) == {"浣 1.jpg": [("猫", 1, 1, 10, 10)]}
    with pytest.raises(UsageError, match=r"not JSON.*save it as UTF-8"):
        read(write(path, text, "gbk"))


def test_outlines_are_passed_over_and_nothing_else(tmp_path: Path) -> None:
    odd = {"id": 7, "name": 'a "segmentation": [1] b'}
    entries = [
        box(1, 1, 7, 1, 1, 9, 9, segmentation=[[1.5, 2e0, -3], [4, 5]], area=3),
        box(2, 1, 7, 2, 2, 9, 9, segmentation={"counts": "a]}b", "size": [1, 2]}, area=4),
        box(3, 1, 7, 3, 3, 9, 9, segmentation={"counts": [1, 2], "size": [1, 2]}, area=5),
    ]
    dataset = read(coco(tmp_path, [image(1)], entries, [odd]))
    assert dataset.classes == ('a "segmentation": [1] b',)
    assert count(dataset) == 3
