"""YOLO's folders and rows: where labels are found, what paths mean, and what a row may say."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from box_sets import count, found, picture, read, write

from retinue.data.options import DataOptions
from retinue.data.sources.yolo import YOLO
from retinue.data.sources.yolo_rows import looks_like_rows
from retinue.data.sources.yolo_yaml import describe
from retinue.errors import UsageError

ROW = "0 0.5 0.5 0.25 0.5\n"
BOX = (24, 12, 40, 36)
"""The same in a picture of 64 × 48."""


def labelled(root: Path, *places: tuple[str, str], rows: str = ROW) -> Path:
    for image, label in places:
        picture(root / image)
        write(root / label, rows)
    return root


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.jpg", "labels/a.txt"),
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.JPG", "train/labels/a.txt"),
        ("a.jpg", "a.txt"),
        ("images/a.jpg", "images/a.txt"),
        ("set[1]/images/my images/b c.png", "set[1]/labels/my images/b c.txt"),
        ("JPEGImages/a.jpg", "labels/a.txt"),
        ("pictures/a.jpg", "marks/a.txt"),
        ("pictures/A.jpg", "marks/a.txt"),
    ],
)
def test_where_a_label_lies(tmp_path: Path, image: str, label: str) -> None:
    dataset = read(labelled(tmp_path, (image, label)))
    assert found(dataset) == {image: [("0", *BOX)]}
    assert "no names of classes: they are called by their numbers" in dataset.notes


def test_a_label_found_by_name_alone_is_said(tmp_path: Path) -> None:
    dataset = read(labelled(tmp_path, ("pictures/a.jpg", "marks/a.txt")))
    note = "1 label file was found by name alone: 'marks/a.txt' for 'pictures/a.jpg'"
    assert note in dataset.notes


def test_images_without_a_label_are_never_silent_background(tmp_path: Path) -> None:
    labelled(tmp_path, *[(f"images/{k}.jpg", f"labels/{k}.txt") for k in range(3)])
    picture(tmp_path / "images" / "9.jpg")
    write(tmp_path / "labels" / "2.txt", "")
    dataset = read(tmp_path)
    assert found(dataset)["images/9.jpg"] == []
    note = "1 image has no label file: taken to show no object, 'images/9.jpg' the first"
    assert note in dataset.notes
    for k in range(2):
        picture(tmp_path / "images" / f"x{k}.jpg")
    with pytest.raises(UsageError, match=r"50% of the images have no label file, 'images/9.jpg'"):
        read(tmp_path)
    assert len(found(read(tmp_path, unlabelled="background"))) == 6
    assert len(found(read(tmp_path, unlabelled="leave_out"))) == 3


def test_images_that_share_a_label(tmp_path: Path) -> None:
    labelled(tmp_path, ("a.jpg", "a.txt"), ("a.png", "a.txt"))
    dataset = read(tmp_path)
    assert found(dataset) == {"a.jpg": [("0", *BOX)], "a.png": [("0", *BOX)]}
    assert any("label files of several images: 1" in note for note in dataset.notes)


def test_a_label_without_an_image(tmp_path: Path) -> None:
    labelled(tmp_path, ("images/a.jpg", "labels/a.txt"))
    write(tmp_path / "labels" / "b.txt", ROW)
    write(tmp_path / "labels" / "notes.txt", "made in May")
    with pytest.raises(UsageError, match=r"labels/b.txt': no image is called so"):
        read(tmp_path)
    assert count(read(tmp_path, on_bad_image="skip")) == 1


# Rows


def rows(tmp_path: Path, text: str, **options: object) -> list[tuple[float, ...]]:
    labelled(tmp_path, ("a.jpg", "a.txt"), rows=text)
    return [box[1:] for box in found(read(tmp_path, **options))["a.jpg"]]


@pytest.mark.parametrize(
    "text",
    [
        "0 0.5 0.5 0.25 0.5 0.99\n",
        "0.0\t0.5  0.5 0.25 0.5\r\n\r\n",
        "\n0 5e-1 .5 0.25 0.5",
        "﻿0 0.5 0.5 0.25 0.5",
        "0 0.375 0.25 0.625 0.25 0.625 0.75 0.375 0.75\n",
    ],
)
def test_rows_that_are_meant_so(tmp_path: Path, text: str) -> None:
    assert rows(tmp_path, text) == [BOX]


def test_rounding_is_clipped(tmp_path: Path) -> None:
    assert rows(tmp_path, "0 0.5 0.5 1.0000004 1\n") == [(0, 0, 64, 48)]
    assert rows(tmp_path, "0 0.96875 0.5 0.125 1\n") == [(58, 0, 64, 48)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0 1.86 0.5 0.25 0.5", "line 2: 1.86 is no share of the image's side"),
        ("0 0.5 -0.2 0.25 0.5", "line 2: -0.2 is no share"),
        ("0 nan 0.5 0.25 0.5", "line 2: nan is no share"),
        ("0 0.5 0.5 0.25", "line 2: 4 columns"),
        ("0 0.5 0.5 0.25 0.5 1 2 3", "line 2: 8 columns"),
        ("0 0.5 0,5 0.25 0.5", "line 2: '0,5' is no number"),
        ("cat 0.5 0.5 0.25 0.5", "line 2: class 'cat' is no number"),
        ("0.5 0.5 0.5 0.25 0.5", "line 2: class 0.5 is no whole number"),
        ("1e999 0.5 0.5 0.25 0.5", "line 2: class 1e999 is no whole number"),
        ("-1 0.5 0.5 0.25 0.5", "line 2: class -1 is no whole number"),
        ("7 0.5 0.5 0.25 0.5", "line 2: class 7, but the last one is 1 in "),
    ],
)
def test_a_row_that_makes_no_sense_is_named_and_good_ones_stay(
    tmp_path: Path, row: str, words: str
) -> None:
    labelled(tmp_path, ("a.jpg", "a.txt"), rows=f"{ROW}{row}\n1 0.5 0.5 0.5 0.5\n")
    write(tmp_path / "classes.txt", "cat\ndog\n")
    with pytest.raises(UsageError, match="1 label cannot be used") as caught:
        read(tmp_path)
    assert words in str(caught.value)
    dataset = read(tmp_path, on_bad_image="skip")
    assert [box[0] for box in found(dataset)["a.jpg"]] == ["cat", "dog"]


def test_utf_16_rows(tmp_path: Path) -> None:
    labelled(tmp_path, ("a.jpg", "a.txt"))
    write(tmp_path / "a.txt", ROW, "utf-16")
    assert found(read(tmp_path)) == {"a.jpg": [("0", *BOX)]}


def test_a_photograph_that_is_stored_turned(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", (48, 64), orientation=6)
    write(tmp_path / "a.txt", ROW)
    assert found(read(tmp_path)) == {"a.jpg": [("0", *BOX)]}


# Names


def test_names_among_the_labels(tmp_path: Path) -> None:
    labelled(tmp_path, ("images/a.jpg", "labels/a.txt"))
    write(tmp_path / "labels" / "classes.txt", "猫\n dog \n\n")
    dataset = read(tmp_path)
    assert dataset.classes == ("猫", "dog")
    assert [note for note in dataset.notes if "'dog'" in note] == ["class 'dog' has no boxes"]
    write(tmp_path / "labels" / "classes.txt", "浣熊\n", "gbk")
    with pytest.raises(UsageError, match=r"classes.txt', save it as UTF-8"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("names: [cat, dog]", ("cat", "dog")),
        ("names:\n  1: dog\n  0: cat\n", ("cat", "dog")),
        ("nc: 2\nnames: [cat, '1.0']", ("cat", "1.0")),
        ("names: {0: 5}", ("5",)),
    ],
)
def test_names_in_a_description(tmp_path: Path, names: str, classes: tuple[str, ...]) -> None:
    labelled(tmp_path, ("images/a.jpg", "labels/a.txt"))
    path = write(tmp_path / "data.yaml", f"train: images\n{names}\n")
    assert read(path).classes == classes
    assert read(tmp_path).classes == classes


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("nc: 3\nnames: [a, b]", "nc is 3, but there are 2 names"),
        ("names: [a, a]", "two classes are called 'a'"),
        ("names: [a, null]", "1: None is no id and name of a class"),
        ("names: {a: b}", "'a': 'b' is no id and name"),
        ("names: 7", "names is no list of classes"),
        ("names: [a, b", "cannot read the description"),
    ],
)
def test_names_that_make_no_sense(tmp_path: Path, names: str, words: str) -> None:
    labelled(tmp_path, ("images/a.jpg", "labels/a.txt"))
    with pytest.raises(UsageError, match=words):
        read(write(tmp_path / "data.yaml", f"train: images\n{names}\n"))


# Descriptions


@pytest.mark.parametrize(
    "paths",
    [
        "train: images/train\nval: images/val",
        "path: .\ntrain: images/train\nval: images/val",
        "path: ../somewhere/else\ntrain: images/train\nval: images/val",
        "path: /nowhere/at/all\ntrain: [images/train]\nval: [images/val]",
        "train: ../images/train\nval: ../images/val",
        "train: C:\\data\\set\\images\\train\nval: C:\\data\\set\\images\\val",
        "train: train.txt\nval: val.txt",
    ],
)
def test_paths_from_anywhere(tmp_path: Path, paths: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "数据 集"
    for split, number in (("train", 1), ("train", 2), ("val", 3)):
        labelled(root, (f"images/{split}/{number}.jpg", f"labels/{split}/{number}.txt"))
    write(root / "train.txt", "./images/train/1.jpg\nD:\\x\\images\\train\\2.jpg\n\n")
    write(root / "val.txt", "/content/set/images/val/3.jpg\n")
    path = write(root / "my.yaml", f"{paths}\ntest:\nnames: [cat]\n")
    monkeypatch.chdir(tmp_path)
    for given in (path, root, Path(os.path.relpath(path))):
        dataset = read(given)
        assert {k: [s.name for s in v] for k, v in dataset.splits.items()} == {
            "train": ["images/train/1.jpg", "images/train/2.jpg"],
            "val": ["images/val/3.jpg"],
        }


def test_a_description_in_another_encoding(tmp_path: Path) -> None:
    labelled(tmp_path, ("images/a.jpg", "labels/a.txt"))
    text = "train: images\nnames: [浣熊]\n"
    path = write(tmp_path / "data.yaml", text, "utf-16")
    assert read(path).classes == ("浣熊",)
    with pytest.raises(UsageError, match=r"neither UTF-8 nor UTF-16, .*data.yaml', save it"):
        read(write(path, text, "gbk"))


def test_a_path_that_was_read_otherwise_is_said(tmp_path: Path) -> None:
    labelled(tmp_path, ("train/images/a.jpg", "train/labels/a.txt"))
    path = write(tmp_path / "data.yaml", "train: ../train/images\nnames: [cat]\n")
    [note] = [note for note in read(path).notes if "is read as" in note]
    assert note.startswith("'../train/images' in data.yaml is read as ")


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    labelled(tmp_path, ("images/a.jpg", "labels/a.txt"))
    path = write(tmp_path / "data.yaml", "train: imagez\nnames: [cat]\n")
    with pytest.raises(UsageError, match=r"'imagez' is not there.*key train.*did you mean"):
        read(path)


def test_the_same_images_to_train_and_to_judge(tmp_path: Path) -> None:
    labelled(tmp_path, *[(f"images/{k}.jpg", f"labels/{k}.txt") for k in range(10)])
    path = write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    dataset = read(path)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 10}
    assert "10 images of val are in another split already: left out there" in dataset.notes


def test_darknet_data(tmp_path: Path) -> None:
    labelled(tmp_path, ("obj_train_data/1.jpg", "obj_train_data/1.txt"))
    write(tmp_path / "train.txt", "data/obj_train_data/1.jpg\n")
    write(tmp_path / "obj.names", "cat\n")
    path = write(
        tmp_path / "obj.data",
        "classes = 1\ntrain  = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
    )
    dataset = read(path)
    assert found(dataset) == {"obj_train_data/1.jpg": [("cat", *BOX)]}
    assert found(read(tmp_path)) == found(dataset)


def test_a_key_without_a_value_does_not_take_the_next_line(tmp_path: Path) -> None:
    labelled(tmp_path, ("images/1.jpg", "labels/1.txt"))
    write(tmp_path / "train.txt", "images/1.jpg\n")
    write(tmp_path / "obj.names", "cat\n")
    text = "classes = 1\r\ntrain = train.txt\r\nvalid =\r\nnames = obj.names\r\n"
    assert found(read(write(tmp_path / "obj.data", text))) == {"images/1.jpg": [("cat", *BOX)]}


def test_empty_lines_of_a_yaml_file_take_no_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "\n" * 100_000)
    start = time.process_time()
    assert describe(path) is None
    assert time.process_time() - start < 2  # by looking across lines: a minute


def test_of_a_huge_text_only_the_start_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with open(path, "wb") as file:
        file.write("浣熊\n".encode("utf-16"))
        file.truncate(1 << 40)  # a terabyte, of which nothing is there
    assert not looks_like_rows(path)


def test_lists_over_one_folder(tmp_path: Path) -> None:
    labelled(tmp_path, *[(f"images/{k}.jpg", f"labels/{k}.txt") for k in range(4)])
    write(tmp_path / "a.txt", "images/0.jpg\nimages/1.jpg\n")
    write(tmp_path / "b.txt", "images/2.jpg\nimages/gone.jpg\n")
    path = write(tmp_path / "data.yaml", "train: a.txt\nval: b.txt\nnames: [cat]\n")
    with pytest.raises(UsageError, match=r"b.txt' line 2: no image 'images/gone.jpg'"):
        read(path)
    dataset = read(path, on_bad_image="skip")
    assert {k: [s.name for s in v] for k, v in dataset.splits.items()} == {
        "train": ["images/0.jpg", "images/1.jpg"],
        "val": ["images/2.jpg"],
    }


def test_other_texts_are_not_taken_for_labels(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "readme.txt", "1 2 3 4 5")
    write(tmp_path / "numbers.txt", "1 2 3\n")
    write(tmp_path / "config.yaml", "name: x\n")
    assert YOLO.find(DataOptions(path=str(tmp_path)), False) is None


def test_coco128_says_the_same_in_both_ways(shared: Callable[[str], Path]) -> None:
    folder = shared("data/coco128")
    by_rows = read(folder, format="yolo")
    by_json = read(folder)
    assert count(by_rows) == 929
    assert "2 images have no label file" in "\n".join(by_rows.notes)
    crowds = {sample.name: sample.target.crowd for s in by_json.splits.values() for sample in s}
    classes: dict[str, set[str]] = {}
    for name, boxes in found(by_json).items():
        alone = [b for b, crowd in zip(boxes, crowds[name], strict=True) if not crowd]
        other = found(by_rows)[f"images/train2017/{name}"]
        assert len(alone) == len(other)
        own, given = (np.array([b[1:] for b in group]).reshape(-1, 4) for group in (alone, other))
        apart = np.abs(own[:, None] - given[None]).max(axis=2)
        assert (apart.min(axis=1, initial=0) < 0.01).all()
        for row, nearest in zip(alone, apart.argmin(axis=1) if len(alone) else [], strict=True):
            classes.setdefault(row[0], set()).add(other[nearest][0])
    assert all(len(numbers) == 1 for numbers in classes.values())
