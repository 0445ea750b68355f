"""Rows of YOLO's texts: what they may say, and what is refused by line."""

from __future__ import annotations

from pathlib import Path

import pytest
from box_sets import YOLO_BOX, YOLO_ROW, found, labelled, picture, read, write

from retinue.data.options import DataOptions
from retinue.data.sources.yolo import YOLO
from retinue.data.sources.yolo_rows import looks_like_rows
from retinue.errors import UsageError


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
    assert rows(tmp_path, text) == [YOLO_BOX]


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
    labelled(tmp_path, ("a.jpg", "a.txt"), rows=f"{YOLO_ROW}{row}\n1 0.5 0.5 0.5 0.5\n")
    write(tmp_path / "classes.txt", "cat\ndog\n")
    with pytest.raises(UsageError, match="1 label cannot be used") as caught:
        read(tmp_path)
    assert words in str(caught.value)
    dataset = read(tmp_path, on_bad_image="skip")
    assert [box[0] for box in found(dataset)["a.jpg"]] == ["cat", "dog"]


def test_utf_16_rows(tmp_path: Path) -> None:
    labelled(tmp_path, ("a.jpg", "a.txt"))
    write(tmp_path / "a.txt", YOLO_ROW, "utf-16")
    assert found(read(tmp_path)) == {"a.jpg": [("0", *YOLO_BOX)]}


def test_names_among_the_labels(tmp_path: Path) -> None:
    labelled(tmp_path, ("images/a.jpg", "labels/a.txt"))
    write(tmp_path / "labels" / "classes.txt", "猫\n dog \n\n")
    dataset = read(tmp_path)
    assert dataset.classes == ("猫", "dog")
    assert [note for note in dataset.notes if "'dog'" in note] == ["class 'dog' has no boxes"]
    write(tmp_path / "labels" / "classes.txt", "浣熊\n", "gbk")
    with pytest.raises(UsageError, match=r"classes.txt', save it as UTF-8"):
        read(tmp_path)


def test_of_a_huge_text_only_the_start_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with open(path, "wb") as file:
        file.write("浣熊\n".encode("utf-16"))
        file.truncate(1 << 40)  # a terabyte, of which nothing is there
    assert not looks_like_rows(path)


def test_other_texts_are_not_taken_for_labels(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "readme.txt", "1 2 3 4 5")
    write(tmp_path / "numbers.txt", "1 2 3\n")
    write(tmp_path / "config.yaml", "name: x\n")
    assert YOLO.find(DataOptions(path=str(tmp_path)), False) is None
