"""PASCAL VOC as people have it: layouts, dialects, and what is refused by file and object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from box_sets import count, found, picture, read, sizes, targets, voc, write, xml

from retinue.data.options import SplitOptions
from retinue.errors import UsageError

CAT = ("cat", 6, 11, 96, 98)


# Layouts


def test_images_without_boxes_can_be_background(tmp_path: Path) -> None:
    voc(tmp_path, a=xml(("cat", 1, 1, 9, 9)))
    picture(tmp_path / "bare.jpg")
    dataset = read(tmp_path, unlabelled="background")
    assert found(dataset) == {"a.jpg": [("cat", 0, 0, 9, 9)], "bare.jpg": []}
    assert any("taken to show no object, 'bare.jpg' the first" in n for n in dataset.notes)


def test_classes_that_only_other_splits_show_are_said(tmp_path: Path) -> None:
    voc(tmp_path / "train", a=xml(("cat", 1, 1, 9, 9)))
    voc(tmp_path / "val", b=xml(("dog", 1, 1, 9, 9), ("cat", 1, 1, 9, 9)))
    assert "val has boxes of classes that train has none of: 'dog'" in read(tmp_path).notes


def test_labels_in_another_format_beside_are_said(tmp_path: Path) -> None:
    voc(tmp_path, a=xml(("cat", 1, 1, 9, 9)))
    write(tmp_path / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    dataset = read(tmp_path)
    assert found(dataset) == {"a.jpg": [("cat", 0, 0, 9, 9)]}
    assert "there are boxes in YOLO's text, too: data.format=yolo reads them" in dataset.notes
    assert count(read(tmp_path, format="yolo")) == 1


@pytest.mark.parametrize(
    "layout",
    [
        ("{0}/images/{1}.jpg", "{0}/annotations/{1}.xml"),
        ("{0}/{1}.JPG", "{0}/{1}.xml"),
        ("images/{0}/{1}.png", "annotations/{0}/{1}.xml"),
        ("{0}2017/{1}.jpg", "Annotations/{0}2017/{1}.XML"),
    ],
)
def test_folders_of_splits(tmp_path: Path, layout: tuple[str, str]) -> None:
    for split, number in (("train", 1), ("train", 2), ("valid", 1), ("test", 1)):
        picture(tmp_path / layout[0].format(split, number))
        # Each split's first image is called the same: its labels are those of its own split.
        write(tmp_path / layout[1].format(split, number), xml((split, 1, 1, 9, 9)))
    dataset = read(tmp_path)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 2, "val": 1, "test": 1}
    for name, boxes in found(dataset).items():
        assert boxes[0][0] in name


def test_one_loose_folder_is_divided(tmp_path: Path) -> None:
    for k in range(100):
        voc(tmp_path, **{f"i{k}": xml(("cat", 1, 1, 9, 9))})
    assert sizes(tmp_path, split=SplitOptions(train=0.81, val=0.09, test=0.1)) == {
        "train": 81,
        "val": 9,
        "test": 10,
    }


def test_images_elsewhere(tmp_path: Path) -> None:
    picture(tmp_path / "照片 1" / "a b.jpg")
    write(tmp_path / "labels" / "a b.xml", xml(("猫", 1, 1, 9, 9)))
    dataset = read(tmp_path / "labels", images=str(tmp_path / "照片 1"))
    assert found(dataset) == {"照片 1/a b.jpg": [("猫", 0, 0, 9, 9)]}


def test_labels_and_images_without_each_other(tmp_path: Path) -> None:
    voc(tmp_path, a=xml(("cat", 1, 1, 9, 9)))
    picture(tmp_path / "bare.jpg")
    write(tmp_path / "lost.xml", xml(("cat", 1, 1, 9, 9), filename="gone.jpg"))
    with pytest.raises(UsageError, match=r"lost.xml': no image is called so \(it says 'gone.jpg'"):
        read(tmp_path)
    dataset = read(tmp_path, on_bad_image="skip")
    assert list(found(dataset)) == ["a.jpg"]
    assert "1 image has no XML file: left out, 'bare.jpg' the first" in dataset.notes


# What a file says


def test_corners_name_the_first_and_the_last_pixel(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", (416, 295))
    write(tmp_path / "a.xml", xml(CAT, size=(416, 295)))
    assert found(read(tmp_path)) == {"a.jpg": [("cat", 5, 10, 96, 98)]}


def test_counting_from_0_is_seen_at_the_border_and_can_be_said(tmp_path: Path) -> None:
    voc(tmp_path, a=xml(("cat", 0, 5, 64, 9), ("cat", 3, 0, 9, 9), ("cat", 1, 2, 9, 9)))
    dataset = read(tmp_path)
    assert found(dataset)["a.jpg"][0] == ("cat", 0, 5, 64, 9)
    assert (
        "pixels counted from 0 or from 1: 1, data.first_pixel says which:"
        " 2 boxes begin at 0 and 1 at 1: taken to be counted from 0" in dataset.notes
    )
    told = read(tmp_path, first_pixel=1)
    assert found(told)["a.jpg"] == [
        ("cat", 0, 4, 64, 9),
        ("cat", 2, 0, 9, 9),
        ("cat", 0, 1, 9, 9),
    ]
    assert any("reach beyond their image: 2, clipped" in note for note in told.notes)


def test_a_file_as_odd_as_it_may_be(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    text = (
        "<annotation>\r\n<object><bndbox><ymax> 20 </ymax><xmin>5.70000076</xmin>"
        "<ymin>4</ymin><xmax>30</xmax></bndbox><truncated>0.0597</truncated>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>8</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
        "<ymax>2</ymax></bndbox></part><name> Car\r\n</name></object>"
        "<object><name>car</name><difficult>1</difficult><bndbox><xmin>2</xmin><ymin>2</ymin>"
        "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    write(tmp_path / "a.xml", text)
    dataset = read(tmp_path)
    [(_, target)] = targets(dataset)
    assert target.xyxy.tolist() == [
        [pytest.approx(4.7, abs=1e-5), 3, 30, 20],
        [0, 0, 8, 8],
        [1, 1, 9, 9],
    ]
    assert dataset.classes == ("Car", "car")
    assert target.of == (0, 0, 1)
    assert target.difficult.tolist() == [False, False, True]
    assert "classes apart by capitals or blanks alone: 'Car', 'car'" in dataset.notes


def test_a_size_that_is_missing_or_0_is_that_of_the_image(tmp_path: Path) -> None:
    voc(
        tmp_path,
        a=xml(("cat", 1, 1, 80, 9), size=None),
        b=xml(("cat", 1, 1, 9, 9), size=(0, 0)),
    )
    dataset = read(tmp_path)
    assert found(dataset)["a.jpg"] == [("cat", 0, 0, 64, 9)]
    assert any("without a size beside their boxes: 2, the file's own" in n for n in dataset.notes)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("<object><name>cat</name></object>", "object 1, 'cat', has no <bndbox>"),
        ("<object><bndbox/></object>", "object 1 has no <name>"),
        ("<object><name>a</name><bndbox><xmin>1</xmin></bndbox></object>", "<ymin> is missing"),
        (
            "<object><name>a</name><bndbox><xmin>1</xmin><ymin>1,5</ymin><xmax>3</xmax>"
            "<ymax>4</ymax></bndbox></object>",
            "object 1, 'a': <ymin> is '1,5', no number",
        ),
        ("<object>", "mismatched tag: line 1"),
    ],
)
def test_what_makes_no_sense_is_named_and_good_ones_stay(
    tmp_path: Path, inside: str, words: str
) -> None:
    voc(tmp_path, a=f"<annotation>{inside}</annotation>", b=xml(("cat", 1, 1, 9, 9)))
    with pytest.raises(UsageError, match=r"cannot be used.*a\.xml'") as caught:
        read(tmp_path)
    assert words in str(caught.value)
    assert found(read(tmp_path, on_bad_image="skip"))["b.jpg"] == [("cat", 0, 0, 9, 9)]


def test_no_object_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no object in any of 1 XML file"):
        read(voc(tmp_path, a=xml()))


def test_an_image_without_objects_is_kept(tmp_path: Path) -> None:
    dataset = read(voc(tmp_path, a=xml(), b=xml(("cat", 1, 1, 9, 9))))
    assert found(dataset) == {"a.jpg": [], "b.jpg": [("cat", 0, 0, 9, 9)]}


def test_a_thousand_boxes_in_an_image(tmp_path: Path) -> None:
    boxes = [("cat", 1 + k % 50, 1 + k // 50, 10 + k % 50, 10 + k // 50) for k in range(1000)]
    assert count(read(voc(tmp_path, a=xml(*boxes)))) == 1000


# Classes


def test_a_fixed_list_of_classes(tmp_path: Path) -> None:
    root = voc(
        tmp_path, a=xml(("cat", 1, 1, 9, 9), ("dog", 1, 1, 9, 9)), b=xml(("dog", 2, 2, 9, 9))
    )
    dataset = read(root, classes=["bird", "dog"])
    assert dataset.classes == ("bird", "dog")
    assert found(dataset) == {"a.jpg": [("dog", 0, 0, 9, 9)], "b.jpg": [("dog", 1, 1, 9, 9)]}
    assert "left out 1 box of classes not in data.classes: 'cat' (1)" in dataset.notes
    assert "no boxes of class 'bird'" in dataset.notes
    with pytest.raises(
        UsageError, match=r"0 of 3 boxes match your class list.*the data has: 'cat', 'dog'"
    ):
        read(root, classes=["Cat", "bird"])


# Real ones


def test_blood_cells_by_their_own_lists(shared: Callable[[str], Path]) -> None:
    dataset = read(shared("data/bccd"))
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 205, "val": 87, "test": 72}
    assert dataset.classes == ("Platelets", "RBC", "WBC")
    assert count(dataset) == 4888 - 2
    assert any(
        "boxes without area: 2, left out: " in note
        and "BloodImage_00338.xml' object 13" in note
        and "BloodImage_00343.xml' object 4" in note
        for note in dataset.notes
    )


def test_raccoons(shared: Callable[[str], Path]) -> None:
    dataset = read(shared("data/raccoon"))
    assert dataset.classes == ("raccoon",)
    assert count(dataset) == 217
    assert not any("nothing to tell apart" in note for note in dataset.notes)


def test_an_image_whose_objects_cannot_be_used_does_not_teach_that_it_is_empty(
    tmp_path: Path,
) -> None:
    end = "</annotation>"
    outlined = xml().replace(end, f"<object><name>cat</name><polygon/></object>{end}")
    voc(tmp_path, a=xml(("cat", 1, 1, 9, 9)), b=xml(), c=outlined)
    with pytest.raises(UsageError, match=r"c\.xml.*has no <bndbox>"):
        read(tmp_path)
    for unlabelled in ("auto", "background"):
        dataset = read(tmp_path, on_bad_image="skip", unlabelled=unlabelled)
        assert {name: len(boxes) for name, boxes in found(dataset).items()} == {
            "a.jpg": 1,
            "b.jpg": 0,
        }
        note = "1 image is left out, of whose labels none can be used: 'c.jpg' the first"
        assert note in dataset.notes
