"""What COCO's JSON may say, and what is refused by its id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from box_sets import count, found, read, write
from coco_sets import CAT, box, coco, image

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
        (box(9, 1, 7, 1, 1, 9), "annotation 9: its bbox is [1, 1, 9], not four numbers"),
        (box(9, 1, 7, 1, 1, -9, 9), "annotation 9: an inverted box, 1, 1, -8, 10"),
        (box(9, 1, 7, 1, 1, float("nan"), 9), "annotation 9: a box at 1, 1, nan"),
        (box(9, 1, 7) | {"bbox": 5}, "annotation 9: its bbox is 5, not four numbers"),
        (box(9, 1, 7, 5), "annotation 9: its bbox is [5], not four numbers"),
        (box(9, 1, 7) | {"bbox": [[1, 2], [3, 4]]}, "bbox is [[1, 2], [3, 4]], not four numbers"),
        (box(9, 1, 7) | {"bbox": "[1, 1, 9, 9]"}, "bbox is '[1, 1, 9, 9]', not four numbers"),
        (box(9, 1, 7) | {"bbox": [None, 1, 9, 9]}, "bbox is [None, 1, 9, 9], not four numbers"),
        (box(9, 1, 7, 1, 1, 10**400, 9), "annotation 9: its bbox is [1, 1, 10000"),
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
        ('{"info": ' + "[" * 9_000 + "]" * 9_000 + "}", "nested more than 64 deep.*take it out"),
        ('{"info": ' + "9" * 9_000 + "}", "thousands of digits.*take it out"),
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


@pytest.mark.parametrize(
    ("once", "twice", "words"),
    [
        (
            '"bbox": [',
            '"bbox": [4, 4, 5, 5], "bbox": [',
            "'bbox' stands twice in the object of id 1",
        ),
        ('"file_name"', '"file_name": "b.jpg", "file_name"', "'file_name' stands twice"),
        (
            '"categories": [',
            '"categories": [], "categories": [',
            "'categories' stands twice in the",
        ),
        (
            '"image_id"',
            '"image_id": 5, "image_id"',
            "'image_id' stands twice in the object of id 1",
        ),
    ],
)
def test_a_key_that_stands_twice_in_an_object(
    tmp_path: Path, once: str, twice: str, words: str
) -> None:
    """Readers of JSON take the last one, and the first is gone without a word."""
    path = coco(tmp_path, [image(1)], [box(1, 1, 7, 1, 1, 9, 9)])
    assert count(read(path)) == 1
    path.write_text(path.read_text().replace(once, twice, 1))
    with pytest.raises(UsageError, match=words):
        read(path)
    assert count(read(path, on_bad_image="skip")) == 1


def test_keys_of_our_names_elsewhere_are_nobodys_affair(tmp_path: Path) -> None:
    more = {
        "attributes": {"bbox": [1, 2], "images": 3, "file_name": "x"},
        "info": '"bbox": "images"',
    }
    path = coco(tmp_path, [image(1, **more)], [box(1, 1, 7, 1, 1, 9, 9, **more)])
    assert count(read(path)) == 1


@pytest.mark.parametrize("blank", [" ", "\n\t", None, "", "\u3000"])
def test_a_category_needs_a_name_that_can_be_seen(tmp_path: Path, blank: Any) -> None:
    boxes = [box(1, 1, 7, 1, 1, 9, 9), box(2, 1, 3, 2, 2, 9, 9)]
    categories = [{"id": 7, "name": 0}, {"id": 3, "name": blank}]
    path = coco(tmp_path, [image(1)], boxes, categories)
    with pytest.raises(UsageError, match="category 2 has no id or no name"):
        read(path)
    assert found(read(path, on_bad_image="skip")) == {"a.jpg": [("0", 1, 1, 10, 10)]}


def test_sizes_may_be_text_or_fractions(tmp_path: Path) -> None:
    sized = [image(1, width="64", height=48.0), image(2, "b.jpg", width="48", height="64")]
    boxes = [box(k, k, 7, 1, 1, 9, 9) for k in (1, 2)]
    with pytest.raises(UsageError, match=r"image id 2: boxes for an image of 48 × 64 pixels"):
        read(coco(tmp_path, sized, boxes))


def test_annotations_of_outlines_alone(tmp_path: Path) -> None:
    outline = {"id": 5, "image_id": 1, "category_id": 7, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    path = coco(tmp_path, [image(1)], [outline])
    with pytest.raises(UsageError, match=r"1 annotation has no box.*annotation 5.*add their bbox"):
        read(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), [1], {"a": 1}, None])
def test_what_is_no_id_is_none(tmp_path: Path, number: Any) -> None:
    """NaN is not even like itself, and no JSON: nothing of it could be written again."""
    boxes = [box(1, number, 7, 1, 1, 9, 9), box(2, 1, 7, 2, 2, 9, 9)]
    path = coco(tmp_path, [image(number), image(1, "b.jpg")], boxes)
    with pytest.raises(UsageError, match="image 1 has no id or no file_name"):
        read(path)
    assert count(read(path, on_bad_image="skip")) == 1
    path = coco(tmp_path, [image(1, "b.jpg")], boxes[1:], [{"id": number, "name": "x"}, CAT])
    with pytest.raises(UsageError, match="category 1 has no id or no name"):
        read(path)


def test_half_a_character_names_no_file(tmp_path: Path) -> None:
    path = coco(tmp_path, [image(1)], [box(1, 1, 7, 1, 1, 9, 9)])
    path.write_text(path.read_text().replace("a.jpg", "\\ud83d.jpg"))
    with pytest.raises(UsageError, match=r"image id 1: no image '\\ud83d.jpg' in"):
        read(path)
