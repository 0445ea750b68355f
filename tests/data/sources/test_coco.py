"""COCO's JSON: ids of all kinds, crowds, empty boxes, LVIS's marks; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from box_sets import count, found, picture, read, targets, write
from coco_sets import box, coco, image

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources.coco import COCO
from retinue.errors import UsageError


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


def test_a_file_that_is_called_like_no_split_is_named(tmp_path: Path) -> None:
    for name in ("train", "val", "more"):
        boxes = [box(1, 1, 7, 2, 3, 20, 30)]
        coco(tmp_path, [image(1, f"{name}.jpg")], boxes, name=f"{name}.json")
    dataset = read(tmp_path)
    assert "not read beside the files of splits: 'more.json'" in dataset.notes
    assert count(dataset) == 2


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


@pytest.mark.parametrize(
    "entry",
    [
        box(2, 2, 7),
        box(2, 2, 7, 0, 0, 0, 0),
        box(2, 2, 7, 5, 5, 0, 9),
        box(2, 2, 7, 40, 5, -9, 9),
        box(2, 2, 99, 5, 5, 9, 9),
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": "all of it"},
        {"id": 2, "image_id": 2, "category_id": 7, "segmentation": [[1, 2, 3, 4]]},
    ],
)
def test_an_image_whose_objects_cannot_be_used_does_not_teach_that_there_are_none(
    tmp_path: Path, entry: dict[str, Any]
) -> None:
    images = [image(1), image(2, "b.jpg"), image(3, "c.jpg")]
    path = coco(tmp_path, images, [box(1, 1, 7, 1, 1, 9, 9), entry])
    dataset = read(path, on_bad_image="skip")
    assert found(dataset) == {"a.jpg": [("cat", 1, 1, 10, 10)], "c.jpg": []}
    assert "1 image is left out, of whose labels none can be used: 'b.jpg' the first" in (
        dataset.notes
    )


def test_without_any_area_that_of_the_boxes_is_meant(tmp_path: Path) -> None:
    [(_, target)] = targets(read(coco(tmp_path, [image(1)], [box(1, 1, 7, 1, 1, 9, 9)])))
    assert target.area is None


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


@pytest.mark.parametrize("option", [{"first_pixel": 1}, {"unlabelled": "background"}])
def test_an_option_without_effect_is_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    path = coco(tmp_path, [image(1)], [box(1, 1, 7, 1, 1, 9, 9)])
    with pytest.raises(UsageError, match="data of format 'coco' has no use for it"):
        read(path, **option)


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


def test_one_image_in_two_files_without_splits_has_the_objects_of_both(tmp_path: Path) -> None:
    """Two people labelled a class each."""
    coco(
        tmp_path,
        [image(1), image(2, "./a.jpg")],
        [box(1, 1, 7, 1, 1, 9, 9), box(2, 2, 2, 3, 3, 9, 9)],
    )
    dataset = read(tmp_path)
    assert found(dataset) == {"a.jpg": [("cat", 1, 1, 10, 10), ("dog", 3, 3, 12, 12)]}
    assert any(
        "1 image is listed twice, with the objects of both" in note for note in dataset.notes
    )


@pytest.mark.parametrize(
    "name", ["images%2Fc.jpg", "c.jpg?d=1", "up/?d=images/c.jpg", "my%20c.jpg"]
)
def test_names_that_are_addresses_are_told_what_lies_there(tmp_path: Path, name: str) -> None:
    """As annotation servers export them."""
    kept = "my c.jpg" if "%20" in name else "images/c.jpg"
    picture(tmp_path / kept)
    coco(tmp_path, [image(1)], [box(1, 1, 7, 1, 1, 9, 9)])
    text = (tmp_path / "labels.json").read_text().replace("a.jpg", name)
    with pytest.raises(UsageError, match=rf"no image .* \(there is '{kept}'\)"):
        read(write(tmp_path / "labels.json", text))
