"""Data sets of boxes from every format to every other: nothing moves, and what is lost is named."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from box_sets import READERS, WHOLE, count, found, picture, read, targets, voc, write, xml
from coco_sets import box, coco, image
from converted_sets import converted, near, parts
from examples import example
from examples import write as write_records

from retinue.data.conversion import convert
from retinue.data.options import DataOptions, SplitOptions
from retinue.data.written_sets import FORMATS
from retinue.errors import BadImageError, RetinueError, UsageError


@pytest.mark.parametrize("own", [{}, {"train": 16, "test": 4}])
@pytest.mark.parametrize("to", FORMATS)
def test_the_copy_is_divided_alike_or_it_is_said(
    tmp_path: Path, own: dict[str, int], to: str
) -> None:
    """Where a training draws what the data does not say, it goes by names that the copy has not."""
    folders = [split for split, count in own.items() for _ in range(count)] or ["inner"] * 20
    for k, folder in enumerate(folders):
        voc(tmp_path / "set" / folder, **{f"a{k}": xml(("cat", 2, 3, 20, 30))})
    origin = read(tmp_path / "set", split=SplitOptions())
    assert {split: len(of) for split, of in parts(origin).items()} == (
        {"train": 14, "val": 2, "test": 4} if own else {"train": 16, "val": 2, "test": 2}
    )
    written = converted(tmp_path / "set", tmp_path / "written", to, split=SplitOptions())
    assert written.splits == {split: len(of) for split, of in parts(origin).items()}
    assert parts(read(tmp_path / "written", split=SplitOptions(seed=3))) == parts(origin)
    done = converted(tmp_path / "set", tmp_path / "done", to)
    doubted = any("a training draws them by images' names" in note for note in done.notes)
    assert doubted == (to != "yolo")
    said = {True: "no validation images given: 0.111 of train taken",
            False: "the data has no splits: split 0.8/0.1/0.1 (seed 0)"}[bool(own)]  # fmt: skip
    assert any(note.startswith(said) for note in written.notes)
    if to == "yolo":
        assert parts(read(tmp_path / "done", split=SplitOptions())) == parts(origin)
        named = (tmp_path / "done" / "data.yaml").read_text()
        assert all(f"{split}: images/{split}" in named for split in ("train", "val", "test"))


# What formats cannot hold


def test_what_is_lost_is_named(tmp_path: Path) -> None:
    voc(tmp_path / "voc", a=xml(("cat", 1, 1, 9, 9), ("cat", 5, 5, 30, 30), difficult=[1]))
    hard = "difficult objects, which become plain ones"
    assert converted(tmp_path / "voc", tmp_path / "v", "voc").lost == {}
    assert converted(tmp_path / "voc", tmp_path / "c", "csv").lost == {}
    assert converted(tmp_path / "voc", tmp_path / "j", "coco").lost == {hard: 1}
    assert converted(tmp_path / "voc", tmp_path / "y", "yolo").lost == {hard: 1}
    for name in ("v", "c"):
        [(_, target)] = targets(read(tmp_path / name))
        assert target.difficult.tolist() == [False, True]


# Images


def test_images_are_linked_or_copied_and_told_apart(tmp_path: Path) -> None:
    for place in ("x/a.jpg", "y/a.jpg", "y/A.png"):
        picture(tmp_path / "set" / place)
        write(tmp_path / "set" / f"{place[:-4]}.xml", xml(("c", 1, 1, 9, 9)))
    done = converted(tmp_path / "set", tmp_path / "linked", "yolo")
    names = sorted(p.name for p in (tmp_path / "linked" / "images" / "train").iterdir())
    assert len({name.rsplit(".", 1)[0].casefold() for name in names}) == 3
    labels = {p.stem for p in (tmp_path / "linked" / "labels" / "train").iterdir()}
    assert labels == {name.rsplit(".", 1)[0] for name in names}
    assert any("2 images are called anew" in note for note in done.notes)
    origin = tmp_path / "set" / "x" / "a.jpg"
    assert os.path.samefile(origin, tmp_path / "linked" / "images" / "train" / "a.jpg")
    converted(tmp_path / "set", tmp_path / "copied", "yolo", copy=True)
    assert not os.path.samefile(origin, tmp_path / "copied" / "images" / "train" / "a.jpg")
    assert (tmp_path / "copied" / "images" / "train" / "a.jpg").read_bytes() == origin.read_bytes()


def test_images_out_of_records_and_painted_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = example(
        {
            "image/encoded": [picture(tmp_path / "p.jpg").read_bytes()],
            "image/filename": [b"../x/.."],
            **{f"image/object/bbox/{side}": [0.25] for side in ("xmin", "ymin")},
            **{f"image/object/bbox/{side}": [0.5] for side in ("xmax", "ymax")},
            "image/object/class/text": [b"cat"],
        }
    )
    records = write_records(tmp_path / "set" / "a.record", one)
    converted(records, tmp_path / "yolo", "yolo")
    assert [p.name for p in (tmp_path / "yolo" / "images" / "train").iterdir()] == ["image.jpg"]
    assert near(read(tmp_path / "yolo")) == {"image.jpg": [("cat", 16, 12, 32, 24)]}
    few = {"train": 4, "val": 2, "test": 3}
    monkeypatch.setattr("retinue.data.sources.digits.CANVASES", few)
    done = convert(DataOptions(path="digits"), READERS, tmp_path / "digits", "coco")
    assert done.splits == few
    assert len(list((tmp_path / "digits" / "images" / "val").glob("*.png"))) == 2


def test_nothing_is_written_half_or_over_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = voc(tmp_path / "voc", a=xml(("cat", 1, 1, 9, 9)))
    picture(tmp_path / "there" / "x.jpg")
    with pytest.raises(UsageError, match="something is there already"):
        converted(origin, tmp_path / "there", "yolo")

    def broken(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("retinue.data.written_sets.yolo_row", broken)
    with pytest.raises(RetinueError, match=r"cannot be written: No space left on device, .*out'"):
        converted(origin, tmp_path / "out", "yolo")
    (tmp_path / "there" / "file").touch()
    with pytest.raises(RetinueError, match=r"cannot be written: .*, .*file/out', name another"):
        converted(origin, tmp_path / "there" / "file" / "out", "yolo")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there", "voc"]


def test_turned_photographs_keep_their_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a.jpg", (64, 48), orientation=6)
    write(tmp_path / "set" / "a.xml", xml(("cat", 2, 2, 20, 30)))
    before = near(read(tmp_path / "set"))
    for to in FORMATS:
        converted(tmp_path / "set", tmp_path / to, to)
        assert near(read(tmp_path / to)) == before


def test_refusals(tmp_path: Path) -> None:
    origin = voc(tmp_path / "voc", a=xml(("cat", 9, 1, 2, 9)), b=xml(("cat", 1, 1, 9, 9)))
    with pytest.raises(UsageError, match="inverted box"):
        converted(origin, tmp_path / "out", "yolo")
    done = converted(origin, tmp_path / "out", "yolo", on_bad_image="skip")
    assert done.objects == 1
    assert any("inverted box" in note for note in done.notes)
    assert converted(origin, tmp_path / "out1", "boxes_csv", on_bad_image="skip").format == "csv"
    with pytest.raises(UsageError, match=r"unknown format 'pascal'.*there are voc, coco"):
        converted(origin, tmp_path / "out2", "pascal")


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    origin = voc(tmp_path / "voc", a=xml(("cat", 1, 1, 9, 9)), b=xml(("cat", 1, 1, 9, 9)))
    write(origin / "b.jpg", "no image")
    with pytest.raises(BadImageError, match=r"b\.jpg"):
        converted(origin, tmp_path / "out", "yolo")
    assert converted(origin, tmp_path / "out", "yolo", on_bad_image="skip").images == 1


def test_a_chosen_list_of_classes(tmp_path: Path) -> None:
    origin = voc(tmp_path / "voc", a=xml(("cat", 1, 1, 9, 9), ("dog", 2, 2, 9, 9)))
    done = converted(origin, tmp_path / "out", "yolo", classes=["dog", "bird"])
    assert done.classes == ["dog", "bird"]
    assert near(read(tmp_path / "out")) == {"a.jpg": [("dog", 1, 1, 9, 9)]}


# Real ones


@pytest.mark.parametrize("to", ["voc", "csv", "coco"])
def test_coco128(shared: Callable[[str], Path], tmp_path: Path, to: str) -> None:
    origin = shared("data/coco128")
    done = converted(origin, tmp_path / "out", to)
    crowds = {"voc": 10, "csv": 0, "coco": 0}[to]
    assert (done.images, done.objects) == (128, 939 - crowds)
    before = found(read(origin, split=WHOLE))
    after = found(read(tmp_path / "out", split=WHOLE))
    if crowds:
        return
    for name, boxes in before.items():
        other = next(v for k, v in after.items() if k.endswith(name))
        assert [b[0] for b in other] == [b[0] for b in boxes]
        if boxes:
            apart = np.array([b[1:] for b in boxes]) - np.array([b[1:] for b in other])
            assert np.abs(apart).max() < 2.1e-3


def test_a_copy_that_finds_no_room_does_not_blame_the_image_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = voc(tmp_path / "voc", a=xml(("cat", 1, 1, 9, 9)))

    def full(source: Path, place: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(place))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(RetinueError, match=r"cannot be written: No space left on device, .*out'"):
        convert(DataOptions(path=str(origin)), READERS, tmp_path / "out", "yolo", copy=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("to", "held"), [("voc", 1), ("csv", 1), ("coco", 4), ("yolo", 4)])
def test_boxes_of_a_pixel_are_held_or_counted(tmp_path: Path, to: str, held: int) -> None:
    """In VOC's numbers the first pixel of a box of one is the last, and of a smaller one lies
    behind it: written so, the copy would be refused, or lack the box in silence."""
    boxes = [box(1, 1, 7, 5, 5, 1, 9), box(2, 1, 7, 9, 9, 0.25, 3), box(3, 1, 7, 20, 5, 9, 1),
             box(4, 1, 7, 30, 5, 1.5, 2)]  # fmt: skip
    coco(tmp_path / "set", [image(1)], boxes)
    done = convert(DataOptions(path=str(tmp_path / "set")), READERS, tmp_path / "out", to)
    assert done.objects == held
    lost = {} if held == 4 else {"boxes of a pixel or less, which are left out": 3}
    assert done.lost == lost
    again = read(tmp_path / "out")
    assert count(again) == held
    assert near(again)["a.jpg"][-1] == ("cat", 30, 5, 31.5, 7)


def test_names_that_files_cannot_have_everywhere_are_changed_aloud(tmp_path: Path) -> None:
    names = ["CON", "a:b", "é" * 60, "fine", "sub/fine"]
    entries = [image(k, f"{name}.jpg") for k, name in enumerate(names)]
    coco(tmp_path / "set", entries, [box(1, 0, 7, 1, 1, 9, 9)])
    done = convert(DataOptions(path=str(tmp_path / "set")), READERS, tmp_path / "out", "yolo")
    there = {file.name for file in (tmp_path / "out" / "images").rglob("*.jpg")}
    assert there == {"image-CON.jpg", "a-b.jpg", "é" * 50 + ".jpg", "fine.jpg", "fine-2.jpg"}
    said = "\n".join(done.notes)
    assert "3 images are called anew, since not every system has files of such names: 'CON" in said
    assert "1 image is called anew, since others are called so: 'sub/fine.jpg' is" in said


def test_classes_that_xml_has_no_characters_for_stay_apart(tmp_path: Path) -> None:
    names = {1: "a\x01", 2: "a", 3: "a\uffff"}
    boxes = [box(k, 1, k, 9 * k, 1, 5, 5) for k in names]
    categories = [{"id": k, "name": name} for k, name in names.items()]
    coco(tmp_path / "set", [image(1)], boxes, categories)
    convert(DataOptions(path=str(tmp_path / "set")), READERS, tmp_path / "out", "voc")
    (got,) = found(read(tmp_path / "out")).values()
    assert [name for name, *_ in got] == ["a\\x01", "a", "a\\uffff"]
