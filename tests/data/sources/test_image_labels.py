"""Boxes and class folders, read as labels of whole images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_sets import WHOLE, put

from retinue.data.options import DataOptions
from retinue.data.sources import open_dataset
from retinue.data.sources.image_labels import labels_of
from retinue.data.targets.boxes import Boxes
from retinue.data.targets.one_class import OneClass
from retinue.data.targets.several_labels import SeveralLabels
from retinue.tasks.task import task_of, task_type


def test_an_image_shows_the_classes_of_its_objects() -> None:
    boxes = Boxes.made(
        [[0, 0, 1, 1]] * 5,
        ["dog", "cat", "dog", "cow", "pig"],
        difficult=[True, False, False, True, False],
        crowd=[False, False, False, False, True],
        not_exhaustive=["cat", "hen"],
    )
    assert labels_of(boxes) == SeveralLabels(("cat", "dog", "pig"), unknown=("cow", "hen"))
    assert labels_of(Boxes.made([], [])) == SeveralLabels(())
    assert labels_of(OneClass("dog")) == SeveralLabels(("dog",))
    with pytest.raises(TypeError):
        labels_of(SeveralLabels(("dog",)))


def test_coco_is_read_as_labels_only_where_that_is_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png")
    images = [
        {"id": k, "file_name": f"{n}.png", "width": 4, "height": 4} for k, n in enumerate("ab")
    ]
    categories = [{"id": k, "name": n} for k, n in enumerate(("cat", "dog", "owl"))]
    annotations = [
        {"id": k, "image_id": 0, "category_id": of, "bbox": [0, 0, 2, 2], "area": 4, "iscrowd": 0}
        for k, of in enumerate((1, 1, 0))
    ]
    whole = {"images": images, "categories": categories, "annotations": annotations}
    (tmp_path / "annotations.json").write_text(json.dumps(whole))
    options = DataOptions(path=str(tmp_path), split=WHOLE)
    assert task_of(options) == "detection"
    dataset = open_dataset(options, task_type("multilabel").readers())
    assert dataset.classes == ("cat", "dog", "owl")
    found = {s.name.split("/")[-1]: s.target for s in dataset.splits["train"]}
    assert found == {"a.png": SeveralLabels((0, 1), 3), "b.png": SeveralLabels((), 3)}


def test_class_folders_are_one_label_each(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/b.png")
    options = DataOptions(path=str(tmp_path), split=WHOLE)
    dataset = open_dataset(options, task_type("multilabel").readers())
    assert [s.target for s in dataset.splits["train"]] == [
        SeveralLabels((0,), 2),
        SeveralLabels((1,), 2),
    ]
    assert task_of(options) == "classification"
