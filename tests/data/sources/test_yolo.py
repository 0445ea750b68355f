"""YOLO's folders and rows: where labels are found, what paths mean, and what a row may say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from box_sets import YOLO_BOX, YOLO_ROW, count, found, labelled, picture, read, write

from retinue.errors import UsageError


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


def test_a_label_without_an_image(tmp_path: Path) -> None:
    labelled(tmp_path, ("images/a.jpg", "labels/a.txt"))
    write(tmp_path / "labels" / "b.txt", YOLO_ROW)
    write(tmp_path / "labels" / "notes.txt", "made in May")
    with pytest.raises(UsageError, match=r"labels/b.txt': no image is called so"):
        read(tmp_path)
    assert count(read(tmp_path, on_bad_image="skip")) == 1


# Rows


def test_a_photograph_that_is_stored_turned(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", (48, 64), orientation=6)
    write(tmp_path / "a.txt", YOLO_ROW)
    assert found(read(tmp_path)) == {"a.jpg": [("0", *YOLO_BOX)]}


# Names


# Descriptions


def test_the_same_images_to_train_and_to_judge(tmp_path: Path) -> None:
    labelled(tmp_path, *[(f"images/{k}.jpg", f"labels/{k}.txt") for k in range(10)])
    path = write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    dataset = read(path)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 10}
    assert "10 images of val are in another split already: left out there" in dataset.notes


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


@pytest.mark.parametrize("broken", [b"0 0,5 0,5 0,2 0,2\n", "猫 .5 .5 .2 .2".encode("gbk"), None])
def test_an_image_whose_labels_cannot_be_used_does_not_teach_that_it_is_empty(
    tmp_path: Path, broken: bytes | None
) -> None:
    labelled(tmp_path, ("a.jpg", "a.txt"), ("b.jpg", "b.txt"), ("c.jpg", "c.txt"))
    (tmp_path / "b.txt").write_text("")  # it shows no object, and says so
    (tmp_path / "c.txt").unlink()
    if broken is None:
        (tmp_path / "c.txt").mkdir()
    else:
        (tmp_path / "c.txt").write_bytes(broken)
    with pytest.raises(UsageError, match=r"c\.txt"):
        read(tmp_path)
    dataset = read(tmp_path, on_bad_image="skip")
    assert {name: len(boxes) for name, boxes in found(dataset).items()} == {"a.jpg": 1, "b.jpg": 0}
    assert any("1 image is left out, of whose labels none" in note for note in dataset.notes)
