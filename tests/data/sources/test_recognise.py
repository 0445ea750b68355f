"""What is said of data that no format knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from box_sets import picture, read, write

from retinue.api import check_data
from retinue.errors import UsageError

KNOWN = "known: voc, coco, yolo, boxes_csv, tfrecord_boxes"


def _pictures(root: Path) -> Path:
    for k in range(3):
        picture(root / "deep" / f"{k}.jpg")
    return root


def _texts(root: Path) -> Path:
    write(root / "b.md", "nothing")
    return write(root / "a.md", "nothing").parent


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_pictures, f"3 images, but no labels in a known format, HERE, {KNOWN}"),
        (_texts, f"data in no known format: 2 .md, HERE, {KNOWN}"),
        (lambda root: root, "an empty folder, HERE, name the one that holds images and labels"),
    ],
)
def test_what_there_is_instead_is_said(
    tmp_path: Path, made: Callable[[Path], Path], said: str
) -> None:
    place = made(tmp_path)
    with pytest.raises(UsageError, match=re.escape(said.replace("HERE", repr(str(place))))):
        read(place)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^data in no known format, .*{KNOWN}$"):
        read(picture(tmp_path / "a.jpg"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"shapes": [{"label": "cat", "points": [[1, 1], [9, 9]]}]}'),
        ("a.txt", "猫 0.5 0.5 0.2 0.2"),
        ("a.xml", "<CVAT/>"),
    ],
)
def test_data_of_no_task_is_not_taken_for_class_folders_alone(
    tmp_path: Path, name: str, text: str
) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / name, text, "gbk")
    said = rf"if 1 {name[1:]} are labels: known are .*boxes in COCO's JSON.*boxes in YOLO's text"
    with pytest.raises(UsageError, match=said):
        check_data(tmp_path)


def test_where_no_labels_lie_none_are_spoken_of(tmp_path: Path) -> None:
    _pictures(tmp_path)
    write(tmp_path / "read.md", "nothing")
    with pytest.raises(UsageError) as raised:
        check_data(tmp_path / "deep")
    assert "labels: known" not in str(raised.value)
