"""`data check` of boxes: every oddity is found and named, and what training makes of it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from box_sets import picture, voc, write, xml
from PIL import Image

from retinue.data.check import CheckReport, Finding, check
from retinue.data.options import DataOptions
from retinue.data.sources import open_dataset
from retinue.errors import UsageError
from retinue.tasks.task import task_type


def look(
    path: Path, task: str = "detection", *, side: int | None = None, **more: object
) -> CheckReport:
    return check(DataOptions(path=str(path)), task_type(task).readers(), side=side)


def named(report: CheckReport) -> dict[str, Finding]:
    return {finding.what: finding for finding in report.findings}


def test_everything_that_is_odd(tmp_path: Path) -> None:
    voc(
        tmp_path,
        good=xml(("cat", 2, 2, 40, 40), ("dog", 5, 5, 30, 30)),
        clipped=xml(("cat", 2, 2, 70, 40)),
        inverted=xml(("cat", 40, 2, 20, 40)),
        outside=xml(("cat", 80, 2, 90, 40)),
        zero=xml(("cat", 7, 7, 7, 9)),
        thin=xml(("cat", 8, 3, 8.5, 40)),
        twice=xml(("cat", 2, 2, 9, 9), ("cat", 2, 2, 9, 9)),
        other=xml(("Cat", 2, 2, 20, 20), size=(48, 64)),
        unsized=xml(("cat", 2, 2, 20, 20), size=None),
        border=xml(("cat", 0, 2, 20, 20), ("cat", 1, 2, 30, 20), ("cat", 3, 1, 20, 20)),
        nothing=xml(),
        broken="<annotation><object>",
    )
    picture(tmp_path / "turned.jpg", (64, 48), orientation=6)
    write(tmp_path / "turned.xml", xml(("cat", 2, 2, 20, 30)))
    picture(tmp_path / "bare.jpg")
    write(tmp_path / "lost.xml", xml(("cat", 2, 2, 20, 20)))
    report = look(tmp_path)
    found = named(report)
    assert len(found["labels that cannot be used"].items) == 5
    for word in ("inverted.xml", "outside.xml", "other.xml", "broken.xml", "lost.xml"):
        assert any(word in item for item in found["labels that cannot be used"].items)
    for what, word in {
        "labels without images": "lost.xml",
        "images without labels": "bare.jpg",
        "boxes that reach beyond their image": "clipped.xml' object 1 (by 6 px)",
        "boxes without area": "zero.xml' object 1",
        "boxes of one pixel or less": "thin.xml' object 1",
        "boxes that stand there twice": "twice.xml' object 2",
        "images without a size beside their boxes": "unsized.xml",
        "photographs that are stored turned, with boxes as they are stored": "turned.xml",
        "pixels counted from 0 or from 1": "1 box begins at 0 and 2 at 1: taken to be",
        "EXIF-rotated": "turned.jpg",
    }.items():
        assert any(word in item for item in found[what].items), what
    assert "errors" in found
    assert report.refused
    # What the check counts is what a training is given.
    options = DataOptions(path=str(tmp_path), on_bad_image="skip")
    trained = open_dataset(options, task_type("detection").readers())
    boxes = sum(len(s.target.of) for split in trained.splits.values() for s in split)
    assert report.objects is not None
    assert report.objects.total == boxes == 10
    assert report.objects.without == 1  # nothing; zero, inverted and outside are left out


def test_objects_are_counted_and_measured_at_the_input(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", (832, 416))
    write(
        tmp_path / "a.xml",
        xml(
            ("cat", 101, 101, 200, 200),  # 100 × 100, 50 at the input
            ("cat", 11, 11, 26, 30),  # 16 × 20, 8 × 10
            ("dog", 11, 11, 24, 200),  # 14 wide, 7
            size=(832, 416),
            difficult=[2],
        ),
    )
    voc(tmp_path, b=xml())
    report = look(tmp_path)
    assert report.objects is not None
    told = report.objects.as_dict()
    assert told["classes"] == {"cat": 2, "dog": 1}
    assert told["areas"] == {"small": 1, "medium": 1, "large": 1}
    assert {k: v for k, v in told["sides"].items() if v} == {"8–16": 1, "16–32": 1, "32–64": 1}
    assert (told["total"], told["images_without"], told["difficult"]) == (3, 1, 1)
    assert named(report)["images with objects too small"].items == [f"{tmp_path / 'a.jpg'} (1)"]
    assert "images with objects too small" not in named(look(tmp_path, side=640))
    assert len(named(look(tmp_path, side=160))) == 1
    assert json.loads(json.dumps(report.as_dict()))["objects"] == told
    assert ("objects", 3, "cat 2, dog 1") in report.rows()


def test_more_objects_than_are_judged(tmp_path: Path) -> None:
    many = [("cat", 1 + k % 50, 1 + k // 50, 20 + k % 50, 20 + k // 50) for k in range(101)]
    report = look(voc(tmp_path, a=xml(*many)))
    assert named(report)["images with many objects"].items == [f"{tmp_path / 'a.jpg'} (101)"]


def test_what_images_without_labels_become_is_said(tmp_path: Path) -> None:
    for k in range(3):
        picture(tmp_path / f"{k}.jpg")
        write(tmp_path / f"{k}.txt", "0 0.5 0.5 0.5 0.5\n")
    picture(tmp_path / "bare.jpg")
    finding = named(look(tmp_path))["images without labels"]
    assert finding.items == [str(tmp_path / "bare.jpg")]
    assert finding.detail == "no label file: taken to show no object"


def test_one_class_is_enough(tmp_path: Path) -> None:
    report = look(voc(tmp_path, a=xml(("cat", 1, 1, 40, 40))))
    assert not report.refused
    assert "only one class" not in named(report)


def test_classes_are_told_what_they_look_at(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    hint = "`retinue train detect` reads it, or a recipe with `task: detection`"
    for name, what in (("bccd", "PASCAL VOC's XML"), ("coco128", "COCO's JSON")):
        report = look(shared(f"data/{name}"), "classification")
        assert f"this looks like boxes in {what}: {hint}" in report.notes
    with pytest.raises(UsageError, match="this looks like boxes in a table"):
        look(shared("data/raccoon/csv"), "classification")
    for split in ("train", "val"):
        voc(tmp_path / split, a=xml(("cat", 1, 1, 40, 40)))
    with pytest.raises(UsageError, match=r"this looks like boxes in PASCAL VOC's XML"):
        look(tmp_path, "classification")


def test_real_ones(shared: Callable[[str], Path]) -> None:
    report = look(shared("data/bccd"))
    assert report.objects is not None
    assert report.objects.classes == {"RBC": 4153, "WBC": 372, "Platelets": 361}
    assert len(named(report)["boxes without area"].items) == 2


def test_copies_of_an_image_are_told_by_what_their_boxes_say(tmp_path: Path) -> None:
    def images(folder: str, tint: int, *texts: str) -> None:
        for k, text in enumerate(texts):
            place = tmp_path / folder / f"{folder}{k}"
            place.parent.mkdir(exist_ok=True)
            Image.new("RGB", (64, 48), (tint, 0, 90)).save(f"{place}.png")
            write(place.with_suffix(".xml"), text)

    # The same object, drawn by two; another class; one object more; elsewhere.
    images("alike", 10, xml(("cat", 2, 2, 40, 40)), xml(("cat", 5, 1, 42, 38)))
    images("named", 60, xml(("cat", 2, 2, 40, 40)), xml(("dog", 2, 2, 40, 40)))
    images("more", 110, xml(("cat", 2, 2, 40, 40)), xml(("cat", 2, 2, 40, 40), ("cat", 3, 3, 9, 9)))
    images("moved", 160, xml(("cat", 2, 2, 20, 20)), xml(("cat", 30, 20, 48, 38)))
    images("crossed", 210, *(xml(*pair) for pair in (
        (("cat", 2, 2, 20, 20), ("cat", 30, 20, 48, 38)),
        (("cat", 30, 20, 48, 38), ("cat", 2, 2, 20, 20)),
    )))  # fmt: skip
    found = named(look(tmp_path))
    told = found["same image with other boxes"]
    assert sorted(Path(item).stem for item in told.items) == ["more1", "moved1", "named1"]
    assert told.detail.startswith("objects or classes differ")
    assert "same image under two labels" not in found


def test_the_format_is_told_and_how_an_image_without_a_row_gets_one(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    table = write(tmp_path / "labels.csv", head + "a.jpg,64,48,cat,2,3,20,30\n")
    report = look(tmp_path)
    assert report.rows()[0][2].endswith("; read as boxes_csv")
    assert named(report)["images without labels"].detail == (
        "no row: left out; a row without class and corners says that there is no object"
    )
    write(table, table.read_text() + "b.jpg,64,48,,,,,\n")
    assert look(tmp_path).images == 2
    assert "images without labels" not in named(look(tmp_path))
