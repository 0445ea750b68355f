"""What all formats of boxes share once their files are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from box_sets import found, notes, picture, read, sizes, voc, write, xml
from coco_sets import box, coco, image

from retinue.data.sources.annotated import from_one_root, no_boxes, unreadable
from retinue.data.sources.listing import Listing
from retinue.data.sources.records import Records
from retinue.errors import UsageError

HEAD = "filename,width,height,class,xmin,ymin,xmax,ymax,split\n"


def test_several_roots_lie_in_one() -> None:
    one, parts = from_one_root([Path("a/x"), Path("a/y/z"), Path("a")])
    assert (one, parts) == (Path(os.path.abspath("a")), ["x/", "y/z/", ""])
    assert from_one_root([Path("a"), Path("a")]) == (Path("a"), ["", ""])


def test_what_is_said_of_files_without_boxes_or_rights() -> None:
    said = unreadable(Path("a.xml"), PermissionError(13, "Permission denied"))
    assert said == "'a.xml': Permission denied"
    assert unreadable(Path("a.xml"), OSError("odd")) == "'a.xml': odd"
    listing = Listing("voc", Path("here"), Records.of([]))
    assert str(no_boxes(listing, "3 files")).startswith("no object in any of 3 files, 'here'")
    listing.problems.append(said)
    assert said in str(no_boxes(listing, "3 files"))


def test_boxes_stay_with_their_images_and_classes_are_told_of(tmp_path: Path) -> None:
    """Rows in any order; `Cat` and `cat` are nearly alike; `dog` is in the test split alone."""
    rows = "b.png,64,48,cat,1,1,9,9,train\na.png,64,48,Cat,2,2,8,8,train\n" \
           "b.png,64,48,cat,3,3,7,7,train\nc.png,64,48,dog,1,1,5,5,test\n"  # fmt: skip
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    path = write(tmp_path / "t.csv", HEAD + rows)
    dataset = read(path, first_pixel=0)
    assert found(dataset) == {
        "a.png": [("Cat", 2, 2, 8, 8)],
        "b.png": [("cat", 1, 1, 9, 9), ("cat", 3, 3, 7, 7)],
        "c.png": [("dog", 1, 1, 5, 5)],
    }
    assert sizes(path) == {"train": 2, "test": 1}
    said = notes(path)
    assert "4 boxes in 3 images" in said
    assert "'Cat'" in said
    assert "dog" in said


@pytest.mark.parametrize("format", ["voc", "csv", "coco"])
def test_an_image_of_bad_boxes_alone_does_not_teach_that_it_is_empty(
    tmp_path: Path, format: str
) -> None:
    if format == "voc":
        voc(tmp_path, a=xml(("cat", 1, 1, 9, 9)), b=xml(("cat", 9, 9, 1, 1)), c=xml())
    elif format == "csv":
        rows = "a.jpg,64,48,cat,1,1,9,9\nb.jpg,64,48,cat,9,9,1,1\nc.jpg,64,48,,,,,\n"
        head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        write(tmp_path / "labels.csv", head + rows)
        for name in "abc":
            picture(tmp_path / f"{name}.jpg")
    else:
        images = [image(k, f"{name}.jpg") for k, name in enumerate("abc")]
        coco(tmp_path, images, [box(1, 0, 7, 0, 0, 9, 9), box(2, 1, 7, 99, 99, 9, 9)])
    with pytest.raises(UsageError, match="1 label cannot be used"):
        read(tmp_path)
    dataset = read(tmp_path, on_bad_image="skip")
    assert {name: len(boxes) for name, boxes in found(dataset).items()} == {"a.jpg": 1, "c.jpg": 0}
    assert "1 image is left out, of whose labels none can be used: 'b.jpg' the first" in (
        dataset.notes
    )
