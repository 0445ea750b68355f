"""Which label belongs to which image, by where both lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from box_sets import (
    YOLO_BOX,
    found,
    labelled,
    picture,
    read,
    write,
    xml,
)

from retinue.errors import UsageError


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
    assert found(dataset) == {image: [("0", *YOLO_BOX)]}
    assert "no names of classes: they are called by their numbers" in dataset.notes


def test_a_label_found_by_name_alone_is_said(tmp_path: Path) -> None:
    dataset = read(labelled(tmp_path, ("pictures/a.jpg", "marks/a.txt")))
    note = "1 label file was found by name alone: 'marks/a.txt' for 'pictures/a.jpg'"
    assert note in dataset.notes


def test_images_that_share_a_label(tmp_path: Path) -> None:
    labelled(tmp_path, ("a.jpg", "a.txt"), ("a.png", "a.txt"))
    dataset = read(tmp_path)
    assert found(dataset) == {"a.jpg": [("0", *YOLO_BOX)], "a.png": [("0", *YOLO_BOX)]}
    assert any("label files of several images: 1" in note for note in dataset.notes)


def test_images_that_share_a_label_are_told_apart_by_what_it_says(tmp_path: Path) -> None:
    for suffix in ("jpg", "png"):
        picture(tmp_path / f"a.{suffix}")
    write(tmp_path / "a.xml", xml(("cat", 1, 1, 9, 9)))
    with pytest.raises(UsageError, match=r"a.xml': it can be of any of 'a.jpg', 'a.png'"):
        read(tmp_path)
    write(tmp_path / "a.xml", xml(("cat", 1, 1, 9, 9), filename="a.png"))
    assert list(found(read(tmp_path))) == ["a.png"]


def test_an_image_is_found_by_the_name_in_the_file_and_in_other_capitals(tmp_path: Path) -> None:
    picture(tmp_path / "IMG_1.JPG")
    picture(tmp_path / "two.jpg")
    write(tmp_path / "img_1.xml", xml(("cat", 1, 1, 9, 9)))
    write(tmp_path / "other.xml", xml(("dog", 1, 1, 9, 9), filename="C:\\photos\\two.jpg"))
    picture(tmp_path / "three.png")
    write(tmp_path / "three.png.xml", xml(("bird", 1, 1, 9, 9)))
    dataset = read(tmp_path)
    assert {name: b[0][0] for name, b in found(dataset).items()} == {
        "IMG_1.JPG": "cat",
        "three.png": "bird",
        "two.jpg": "dog",
    }
    assert any("3 XML files are not called like their images" in note for note in dataset.notes)
