"""Data sets of boxes as every format has them: nothing moves."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from box_sets import Box, picture, read, targets, write, xml
from converted_sets import converted, near, parts
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.data.written_sets import FORMATS


def source(root: Path) -> Path:
    """Three splits, an image without objects, a name of blanks and Chinese, half pixels."""
    for split, name, text in (
        ("train", "a", xml(("cat", 6, 11, 60, 45), ("狗", 45.7, 2, 64, 48))),
        ("train", "图 b", xml(("狗", 1, 1, 64, 48))),
        ("val", "empty", xml()),
        ("test", "c", xml(("cat", 10, 20, 11, 22))),
    ):
        picture(root / split / f"{name}.jpg")
        write(root / split / f"{name}.xml", text)
    return root


@pytest.mark.parametrize(("first", "second"), list(itertools.product(FORMATS, FORMATS)))
def test_from_every_format_to_every_other(tmp_path: Path, first: str, second: str) -> None:
    origin = source(tmp_path / "origin")
    one = converted(origin, tmp_path / "one", first)
    two = converted(tmp_path / "one", tmp_path / "two", second)
    before, after = read(origin), read(tmp_path / "two")
    assert near(after) == near(before)
    assert parts(after) == parts(before)
    assert sorted(after.classes) == sorted(before.classes)
    assert (one.images, one.objects, one.lost) == (two.images, two.objects, two.lost) == (4, 4, {})
    assert one.splits == {"train": 2, "val": 1, "test": 1}


@given(
    size=st.tuples(st.integers(20, 2500), st.integers(20, 2500)),
    shares=st.lists(st.tuples(*[st.integers(0, 10**6)] * 4), min_size=1, max_size=5),
)
@settings(max_examples=15, deadline=None)
def test_integers_survive_every_way(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int],
    shares: list[tuple[int, int, int, int]],
) -> None:
    root = tmp_path_factory.mktemp("set")
    boxes: set[Box] = set()
    for a, b, c, d in shares:
        (x1, x2), (y1, y2) = (
            sorted((1 + a % size[0], 1 + c % size[0])),
            sorted((1 + b % size[1], 1 + d % size[1])),
        )
        if x2 > x1 and y2 > y1:
            boxes.add(("cat", x1, y1, x2, y2))
    if not boxes:
        return
    # Of an image only its header matters.
    picture(root / "voc" / "a.png", size)
    write(root / "voc" / "a.xml", xml(*sorted(boxes), size=size))
    for k, (one, other) in enumerate(itertools.pairwise(("voc", "yolo", "coco", "csv", "voc2"))):
        converted(root / one, root / other, "voc" if k == 3 else other)
    assert sorted(_integers(root / "voc2" / "Annotations" / "a.xml")) == sorted(
        box[1:] for box in boxes
    )


def test_crowds_areas_and_ids(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    contents = {
        "images": [
            {
                "id": "x7", "file_name": "a.jpg", "width": 64, "height": 48,
                "not_exhaustive_category_ids": [44],
            }
        ],
        "annotations": [
            {"id": 1, "image_id": "x7", "category_id": 90, "bbox": [1, 2, 9.5, 9], "area": 50.5},
            {
                "id": 2, "image_id": "x7", "category_id": 90, "bbox": [0, 0, 60, 40],
                "iscrowd": 1, "area": 900,
            },
        ],
        "categories": [{"id": 90, "name": "cat"}, {"id": 44, "name": "dog"}],
    }  # fmt: skip
    origin = write(tmp_path / "labels.json", json.dumps(contents))
    assert converted(origin, tmp_path / "coco", "coco").lost == {}
    written = json.loads((tmp_path / "coco" / "annotations" / "instances.json").read_text())
    assert written["images"][0]["id"] == "x7"
    assert {c["name"]: c["id"] for c in written["categories"]} == {"cat": 90, "dog": 44}
    assert [e["bbox"] for e in written["annotations"]] == [[1, 2, 9.5, 9], [0, 0, 60, 40]]
    assert [(e["area"], e["iscrowd"]) for e in written["annotations"]] == [(50.5, 0), (900, 1)]
    before, after = (targets(read(path))[0][1] for path in (origin, tmp_path / "coco"))
    assert before == after
    lost = converted(origin, tmp_path / "yolo", "yolo").lost
    assert lost == {
        "crowds, which are left out": 1,
        "areas of the objects themselves": 2,
        "images that are not exhaustively labelled": 1,
    }
    assert (tmp_path / "yolo" / "labels" / "train" / "a.txt").read_text().count("\n") == 1
    table = converted(origin, tmp_path / "csv", "csv")
    assert "crowds, which are left out" not in table.lost
    assert targets(read(tmp_path / "csv"))[0][1].crowd.tolist() == [False, True]


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    picture(tmp_path / "voc" / "a.jpg", (416, 295))
    write(tmp_path / "voc" / "a.xml", xml(("cat", 6, 11, 96, 98), size=(416, 295)))
    converted(tmp_path / "voc", tmp_path / "yolo", "yolo")
    row = (tmp_path / "yolo" / "labels" / "train" / "a.txt").read_text()
    assert [float(v) for v in row.split()] == pytest.approx(
        [0, 50.5 / 416, 54 / 295, 91 / 416, 88 / 295], abs=1e-8
    )
    converted(tmp_path / "yolo", tmp_path / "back", "voc")
    text = (tmp_path / "back" / "Annotations" / "a.xml").read_text()
    assert "<bndbox><xmin>6</xmin><ymin>11</ymin><xmax>96</xmax><ymax>98</ymax></bndbox>" in text


def _integers(path: Path) -> list[tuple[int, ...]]:
    from retinue.data.sources.voc import parse_annotation

    parsed = parse_annotation(path)
    assert all(float(v).is_integer() for box in parsed.boxes for v in box)
    return [tuple(map(int, box)) for box in parsed.boxes]
