"""What describes YOLO's data, a YAML file or Darknet's `.data`: class names, paths."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from box_sets import YOLO_BOX, found, labelled, read, write

from retinue.data.sources.yolo_yaml import describe
from retinue.errors import UsageError


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
        ("names: [a]\nval:\timages", "cannot start any token.*data.yaml' line 3"),
        ("names: [a, ' ']", "1: ' ' is no id and name of a class"),
        ("names: {0: ''}", "0: '' is no id and name of a class"),
        ("names:\n0: cat\n1: dog", "names is empty, and 0: cat stands beside it.*indent"),
    ],
)
def test_names_that_make_no_sense(tmp_path: Path, names: str, words: str) -> None:
    labelled(tmp_path, ("images/a.jpg", "labels/a.txt"))
    with pytest.raises(UsageError, match=words):
        read(write(tmp_path / "data.yaml", f"train: images\n{names}\n"))


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


def test_darknet_data(tmp_path: Path) -> None:
    labelled(tmp_path, ("obj_train_data/1.jpg", "obj_train_data/1.txt"))
    write(tmp_path / "train.txt", "data/obj_train_data/1.jpg\n")
    write(tmp_path / "obj.names", "cat\n")
    path = write(
        tmp_path / "obj.data",
        "classes = 1\ntrain  = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
    )
    dataset = read(path)
    assert found(dataset) == {"obj_train_data/1.jpg": [("cat", *YOLO_BOX)]}
    assert found(read(tmp_path)) == found(dataset)


def test_a_key_without_a_value_does_not_take_the_next_line(tmp_path: Path) -> None:
    labelled(tmp_path, ("images/1.jpg", "labels/1.txt"))
    write(tmp_path / "train.txt", "images/1.jpg\n")
    write(tmp_path / "obj.names", "cat\n")
    text = "classes = 1\r\ntrain = train.txt\r\nvalid =\r\nnames = obj.names\r\n"
    assert found(read(write(tmp_path / "obj.data", text))) == {"images/1.jpg": [("cat", *YOLO_BOX)]}


def test_empty_lines_of_a_yaml_file_take_no_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "\n" * 100_000)
    start = time.process_time()
    assert describe(path) is None
    assert time.process_time() - start < 2  # by looking across lines: a minute
