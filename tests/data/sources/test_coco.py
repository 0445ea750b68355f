"""COCO's JSON: ids of all kinds, crowds, empty boxes, LVIS's marks; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from box_sets import count, found, picture, read, targets, write

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources.coco import COCO
from retinue.errors import UsageError

CAT, DOG = {"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}


def image(number: Any, name: str = "a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 64, "height": 48, **more}


def box(number: Any, of_image: Any, of: Any, *bbox: float, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": of_image, "category_id": of, "bbox": list(bbox), **more}


def coco(
    root: Path,
    images: list[Any],
    annotations: list[Any],
    categories: list[Any] | None = None,
    *,
    name: str = "labels.json",
    below: str = "",
) -> Path:
    for entry in images:
        if isinstance(entry, dict) and "file_name" in entry:
            picture(root / below / entry["file_name"])
    text = {"images": images, "annotations": annotations, "categories": categories or [CAT, DOG]}
    return write(root / name, json.dumps(text))


def test_a_file_that_cannot_be_opened_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    coco(tmp_path, [image(1)], [box(1, 1, 7, 1, 2, 10, 20)], name="train.json")
    (tmp_path / "val.json").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"val\.json'?: No such file"):
        read(tmp_path)
    dataset = read(tmp_path, on_bad_image="skip")
    assert count(dataset) == 1
    assert any("val.json" in note and "No such file" in note for note in dataset.notes)
    (tmp_path / "train.json").unlink()
    with pytest.raises(UsageError, match=r"val\.json'?: No such file"):
        read(tmp_path, format="coco")


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


def test_crowds_areas_and_empty_boxes(tmp_path: Path) -> None:
    path = coco(
        tmp_path,
        [image(1)],
        [
            box(1, 1, 7, 1, 1, 9, 9, iscrowd=True, area=70),
            box(2, 1, 7, 2, 2, 9, 9, iscrowd=0, area=12.5),
            box(3, 1, 7, 3, 3, 9, 9, iscrowd="1"),
            box(4, 1, 7),
            box(5, 1, 7, 0, 0, 0, 0),
            box(6, 1, 2, 5, 5, 0, 9),
            {"id": 8, "image_id": 1, "category_id": 7, "segmentation": [[1, 2, 3, 4]]},
        ],
    )
    dataset = read(path)
    [(_, target)] = targets(dataset)
    assert target.crowd.tolist() == [True, False, True]
    assert target.area is not None
    assert target.area.tolist() == [70, 12.5, 81]
    assert any("annotations without a box: 3, left out: " in note for note in dataset.notes)
    assert any("boxes without area: 1, left out" in note for note in dataset.notes)
    assert [note for note in dataset.notes if "'dog'" in note] == ["class 'dog' has no boxes"]


def test_without_any_area_that_of_the_boxes_is_meant(tmp_path: Path) -> None:
    [(_, target)] = targets(read(coco(tmp_path, [image(1)], [box(1, 1, 7, 1, 1, 9, 9)])))
    assert target.area is None


def test_an_id_that_stands_twice(tmp_path: Path) -> None:
    twice = box(1, 1, 7, 1, 1, 9, 9)
    dataset = read(coco(tmp_path, [image(1)], [twice, twice, box(1, 1, 7, 2, 2, 9, 9)]))
    assert count(dataset) == 2
    assert "1 annotation id stands in labels.json more than once: 1" in dataset.notes
    assert any("boxes that stand there twice: 1" in note for note in dataset.notes)


def test_images_without_objects_are_kept_and_those_without_entry_are_named(tmp_path: Path) -> None:
    path = coco(tmp_path, [image(1), image(2, "b.jpg")], [box(1, 1, 7, 1, 1, 9, 9)])
    picture(tmp_path / "c.jpg")
    dataset = read(path)
    assert found(dataset) == {"a.jpg": [("cat", 1, 1, 10, 10)], "b.jpg": []}
    assert "1 image has no entry in labels.json: left out, 'c.jpg' the first" in dataset.notes


def test_classes_that_lvis_does_not_vouch_for(tmp_path: Path) -> None:
    categories = [{"id": k, "name": f"c{k}"} for k in range(1, 6)]
    entry = image(1, neg_category_ids=[2, [5]], not_exhaustive_category_ids=[3, {}])
    boxes = [box(1, 1, 1, 1, 1, 9, 9), box(2, 1, 3, 1, 1, 9, 9)]
    dataset = read(coco(tmp_path, [entry, image(2, "b.jpg")], boxes, categories))
    known = {sample.name: target.not_exhaustive for sample, target in targets(dataset)}
    assert known == {"a.jpg": (2, 3, 4), "b.jpg": ()}


@pytest.mark.parametrize(
    ("json_name", "images"),
    [
        ("annotations/instances_{0}2017.json", "{0}2017"),
        ("annotations/instances_{0}2017.json", "images/{0}2017"),
        ("{0}/_annotations.coco.json", "{0}"),
        ("{0}.json", "{0}/images"),
    ],
)
def test_layouts(tmp_path: Path, json_name: str, images: str) -> None:
    for split in ("train", "val"):
        coco(
            tmp_path,
            [image(1), image(2, f"{split}.jpg")],
            [box(1, 1, 7, 1, 1, 9, 9)],
            name=json_name.format(split),
            below=images.format(split),
        )
    write(tmp_path / "annotations" / "captions_train2017.json", '{"images": [], "annotations": []}')
    dataset = read(tmp_path)
    for split in ("train", "val"):
        folder = tmp_path / images.format(split)
        keys = [str(folder / "a.jpg"), str(folder / f"{split}.jpg")]
        assert [sample.key for sample in dataset.splits[split]] == keys


def test_a_class_that_all_others_are_kinds_of_is_none(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
    ]
    path = coco(tmp_path, [image(1)], [box(1, 1, 1, 1, 1, 9, 9)], categories)
    assert read(path).classes == ("cat",)


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


@pytest.mark.parametrize("option", [{"first_pixel": 1}, {"unlabelled": "background"}])
def test_an_option_without_effect_is_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    path = coco(tmp_path, [image(1)], [box(1, 1, 7, 1, 1, 9, 9)])
    with pytest.raises(UsageError, match="data of format 'coco' has no use for it"):
        read(path, **option)


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


def test_other_json_is_not_taken_for_it(tmp_path: Path) -> None:
    write(tmp_path / "results.json", '[{"image_id": 1, "images": 2, "annotations": 3}]')
    write(tmp_path / "package.json", '{"name": "images"}')
    assert COCO.find(DataOptions(path=str(tmp_path)), False) is None


def test_coco128(shared: Callable[[str], Path]) -> None:
    dataset = read(shared("data/coco128"), split=SplitOptions(train=1, val=0, test=0))
    assert {split: len(s) for split, s in dataset.splits.items()} == {"train": 128}
    assert len(dataset.classes) == 80
    assert dataset.classes[0] == "person"
    crowds = sum(target.crowd.sum() for _, target in targets(dataset))
    assert (crowds, count(dataset) - crowds) == (10, 929)
