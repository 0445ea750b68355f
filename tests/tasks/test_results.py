"""Results as they stand in files."""

from __future__ import annotations

import json

from retinue.tasks.results import Box, BoxResult, ClassResult, FrameResult

CLASSES = ClassResult("a.jpg", [("rose, wild", 0.75), ("lily", 0.2), ("tulip", 0.04), ("x", 0.01)])
BOXES = BoxResult("b.jpg", [Box("cat", 0.9, (1.25, 2, 30, 40)), Box("dog", 0.5, (0, 0, 5, 5.5))])


def test_classes() -> None:
    assert CLASSES.as_dict() == {
        "path": "a.jpg",
        "classes": [
            {"name": "rose, wild", "score": 0.75},
            {"name": "lily", "score": 0.2},
            {"name": "tulip", "score": 0.04},
            {"name": "x", "score": 0.01},
        ],
    }
    columns, (row,) = CLASSES.columns(), CLASSES.rows()
    assert columns[:5] == ["path", "name_1", "score_1", "name_2", "score_2"]
    assert dict(zip(columns, row, strict=True))["score_3"] == 0.04
    assert CLASSES.fields() == ["rose, wild", "0.750000"]
    assert CLASSES.answers() == [("rose, wild", 0.75), ("lily", 0.2), ("tulip", 0.04)]
    assert ClassResult("a", []).fields() == []


def test_boxes() -> None:
    first = {"name": "cat", "score": 0.9, "xyxy": [1.25, 2, 30, 40]}
    assert BOXES.as_dict()["boxes"][0] == first
    assert json.loads(json.dumps(BOXES.as_dict())) == BOXES.as_dict()
    assert BOXES.columns() == ["path", "name", "score", "x1", "y1", "x2", "y2"]
    assert BOXES.rows() == [
        ["b.jpg", "cat", 0.9, 1.25, 2, 30, 40],
        ["b.jpg", "dog", 0.5, 0, 0, 5, 5.5],
    ]
    assert BOXES.fields() == ["cat 0.900000 1.2 2.0 30.0 40.0", "dog 0.500000 0.0 0.0 5.0 5.5"]
    assert BOXES.answers() == [("cat", 0.9), ("dog", 0.5)]
    assert BoxResult("c", []).rows() == []


def test_what_is_told_of_it_is_short() -> None:
    assert CLASSES.told() == ["rose, wild 75.0%", "lily 20.0%", "tulip 4.0%"]
    assert BOXES.told() == ["cat 90.0% 1 2 30 40", "dog 50.0% 0 0 5 6"]
    assert BoxResult("c", []).told() == ["nothing found"]
    many = [Box("cat", 0.9 - k / 1000, (0, 0, 5, 5), track=k) for k in range(1205)]
    told = FrameResult("v", BoxResult("v", many, tracked=True), 3, 0.1).told()
    assert told[0] == "cat 90.0% 0 0 5 5 #0"
    assert told[3:] == ["and 1,202 more"]
