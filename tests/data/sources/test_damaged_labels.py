"""Labels that were damaged anywhere: whatever is left of them is read or refused in words, in
training as in `data check`, and what is read makes sense."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from box_sets import READERS, picture, read, targets, write, xml
from examples import example, record

from retinue.data.check import check
from retinue.data.options import DataOptions
from retinue.errors import RetinueError

TIMES = 20
_BITS = (
    *(b"", b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'"x"', b"\x00", b"\xff\xfe"),
    *(b"9" * 30, b"0", b",", b"\n", b"<a>", b"&x;", b'"', b"'", b"1.5", b":", b"- ", b"\xc4\xe3"),
    *(b"../..", b"/", b"*", b"&a *a", b"[1,2]", b"<!DOCTYPE a>", b"\r", b"\xe2\x80\xa8"),
)


def voc(root: Path) -> Path:
    write(root / "b.xml", xml(("cat", 1, 1, 20, 20)))
    return write(root / "a.xml", xml(("cat", 1, 1, 9, 9), ("dog", 2, 2, 30, 30)))


def lists(root: Path) -> Path:
    voc(root)
    write(root / "ImageSets" / "Main" / "val.txt", "b\n")
    return write(root / "ImageSets" / "Main" / "train.txt", "a\n")


def coco(root: Path) -> Path:
    contents = {
        "images": [
            {"id": k, "file_name": name, "width": 64, "height": 48, "neg_category_ids": [7]}
            for k, name in enumerate(("a.jpg", "b.jpg"))
        ],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 7, "bbox": [1, 2, 9, 9], "area": 50.5,
             "iscrowd": 0, "segmentation": [[1, 2, 3, 4]]}
            for k in range(2)
        ],
        "categories": [{"id": 7, "name": "cat", "supercategory": "x"}],
    }  # fmt: skip
    return write(root / "labels.json", json.dumps(contents))


def yolo(root: Path) -> Path:
    write(root / "b.txt", "0 0.5 0.5 0.2 0.2\n")
    return write(root / "a.txt", "0 0.5 0.5 0.25 0.5\n1 0.25 0.25 0.1 0.1\n")


def description(root: Path) -> Path:
    yolo(root)
    write(root / "a.lst", "a.jpg\n")
    return write(
        root / "data.yaml", "path: .\ntrain: a.lst\nval: [b.jpg]\nnc: 2\nnames: {0: cat, 1: dog}\n"
    )


def table(root: Path) -> Path:
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    return write(root / "t.csv", head + "a.jpg,64,48,cat,1,1,9,9\nb.jpg,64,48,cat,1,1,9,9\n")


def tfrecord(root: Path) -> Path:
    values = {
        "image/encoded": [(root / "a.jpg").read_bytes()],
        "image/filename": [b"a.jpg"],
        **{f"image/object/bbox/{side}": [0.1] for side in ("xmin", "ymin")},
        **{f"image/object/bbox/{side}": [0.5] for side in ("xmax", "ymax")},
        "image/object/class/text": [b"cat"],
        "image/object/class/label": [1],
    }
    path = root / "a.record"
    path.write_bytes(example(values))
    return path


@pytest.mark.parametrize("made", [voc, lists, coco, yolo, description, table, tfrecord])
def test_damaged_anywhere(tmp_path: Path, made: Callable[[Path], Path]) -> None:
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name)
    path = made(tmp_path)
    whole = path.read_bytes()
    said: list[str] = []
    drawn = random.Random(made.__name__)
    for _ in range(TIMES):
        content = bytearray(whole)
        for _ in range(drawn.randint(1, 3)):
            at = drawn.randrange(len(content) + 1)
            content[at : at + drawn.choice((0, 1, 1, 2, 5, 20))] = drawn.choice(_BITS)
        # A record whose checksum is right is read, whatever is in it.
        path.write_bytes(record(bytes(content)) if made is tfrecord else bytes(content))
        for on_bad_image in ("stop", "skip"):
            try:
                dataset = read(tmp_path, to_train=False, on_bad_image=on_bad_image)
            except RetinueError as error:
                said.append(error.what)
                continue
            for _, target in targets(dataset):
                assert (target.xyxy >= 0).all()
                assert (target.xyxy <= np.array([64, 48, 64, 48]) + 1e-3).all()
                assert (target.xyxy[:, 2:] > target.xyxy[:, :2]).all()
        try:
            check(DataOptions(path=str(tmp_path)), READERS)
        except RetinueError as error:
            said.append(error.what)
    assert said
    assert not [what for what in said if not what or "\n" in what]
