"""Results as they stand in files."""

from __future__ import annotations

import json

from retinue.tasks.results import Box, BoxResult, ClassResult

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
