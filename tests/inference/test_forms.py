"""What predictions are written as: lines, tables, texts."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from answers import ODD, READINGS, results

from retinue.inference import forms
from retinue.inference.writers import PredictionFolder
from retinue.tasks.results import Box, BoxResult, FrameResult

BOXES = [
    BoxResult("a\tb.jpg", [Box("cat", 0.5, (1.0, 2.0, 3.0, 4.5)), Box("dog", 0.25, (0, 0, 1, 1))]),
    BoxResult("none.jpg", []),
]


def test_json_lines_keep_every_name(tmp_path: Path) -> None:
    with PredictionFolder(tmp_path / "out") as folder:
        for result in results(ODD):
            folder.add(result)
    assert folder.files == [tmp_path / "out" / "predictions.jsonl"]
    assert folder.images == len(ODD)
    text = folder.files[0].read_text("utf-8")
    assert "花" in text
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["path"] for row in rows] == ODD
    assert rows[0]["classes"][0] == {"name": "lily, white", "score": 0.75}


def test_csv_keeps_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    with PredictionFolder(tmp_path, format="csv") as folder:
        for result in results(ODD):
            folder.add(result)
    with open(folder.files[0], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "name_1", "score_1", "name_2", "score_2"]
    assert [row["path"] for row in rows] == [*ODD[:-1], "caf\\udce9.jpg"]
    assert rows[0]["name_2"] == "Löwe\nzahn"
    assert float(rows[0]["score_1"]) == 0.75


def test_text_is_a_line_an_image(tmp_path: Path) -> None:
    with PredictionFolder(tmp_path, format="txt") as folder:
        for result in results(ODD):
            folder.add(result)
    lines = folder.files[0].read_text("utf-8").split("\n")
    assert len(lines) == len(ODD) + 1
    assert lines[2] == "new\\nline.jpg\tlily, white\t0.750000"
    assert lines[3] == "tab\\tand\\\\slash.jpg\tlily, white\t0.750000"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("csv", "path,name,score,x1,y1,x2,y2\na.jpg,cat,0.5,1.0,2.0,3.0,4.5\nb.jpg\n"),
        ("txt", "a.jpg\tcat 0.500000 1.0 2.0 3.0 4.5\nb.jpg\t\n"),
    ],
)
def test_boxes(tmp_path: Path, kind: str, expected: str) -> None:
    with PredictionFolder(tmp_path, format=kind) as folder:
        folder.add(BoxResult("a.jpg", [Box("cat", 0.5, (1.0, 2.0, 3.0, 4.5))]))
        folder.add(BoxResult("b.jpg", []))
    assert folder.files[0].read_text() == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "jsonl",
            '{"path": "花, 1.jpg", "readings": {"bar\\t": 1.5, "\\"°C\\"": 20.25}, '
            '"steady": true}\n'
            '{"path": "none.jpg", "readings": {}, "steady": false}\n',
        ),
        (
            "csv",
            'path,what,value,steady\n"花, 1.jpg",bar\t,1.5,True\n'
            '"花, 1.jpg","""°C""",20.25,True\nnone.jpg\n',
        ),
        ("txt", '花, 1.jpg\tbar\\t=1.5\t"°C"=20.25\nnone.jpg\t\n'),
    ],
)
def test_a_kind_of_result_that_nobody_knows(tmp_path: Path, kind: str, expected: str) -> None:
    """It says itself what its columns, rows and fields are; and may come again."""
    for _ in range(2):
        with PredictionFolder(tmp_path, format=kind) as folder:
            for result in READINGS:
                folder.add(result)
        assert folder.images == 2
        assert folder.files[0].read_text("utf-8") == expected


def test_a_table_with_tabs(tmp_path: Path) -> None:
    for _ in range(2):
        with PredictionFolder(tmp_path, format="tsv") as folder:
            for result in BOXES:
                folder.add(result)
    assert folder.files[0].read_text() == (
        "path\tname\tscore\tx1\ty1\tx2\ty2\n"
        "a\\tb.jpg\tcat\t0.5\t1.0\t2.0\t3.0\t4.5\n"
        "a\\tb.jpg\tdog\t0.25\t0\t0\t1\t1\n"
        "none.jpg\t\n"
    )


def test_parquet_has_types_and_rows_for_what_is_empty(tmp_path: Path) -> None:
    for _ in range(2):
        with PredictionFolder(tmp_path, format="parquet") as folder:
            for result in [BoxResult("first.jpg", []), *BOXES]:
                folder.add(result)
    table = pq.read_table(folder.files[0])
    assert folder.files == [tmp_path / "predictions.parquet"]
    assert table.column_names == ["path", "name", "score", "x1", "y1", "x2", "y2"]
    assert [str(field.type) for field in table.schema] == ["string", "string", *["double"] * 5]
    assert table["path"].to_pylist() == ["first.jpg", "a\tb.jpg", "a\tb.jpg", "none.jpg"]
    assert table["name"].to_pylist() == [None, "cat", "dog", None]
    assert table["x2"].to_pylist() == [None, 3.0, 1.0, None]


def test_parquet_is_written_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_GROUP", 3)
    with PredictionFolder(tmp_path, format="parquet") as folder:
        for number in range(10):
            folder.add(BoxResult(f"{number}", BOXES[0].boxes if number == 4 else []))
        (temporary,) = tmp_path.glob(".*.partial")
        assert temporary.stat().st_size > 4, "rows do not wait in memory once types are known"
    assert pq.read_table(folder.files[0]).num_rows == 11
    with PredictionFolder(tmp_path / "none", format="parquet") as folder:
        folder.add(BoxResult("a", []))
    table = pq.read_table(folder.files[0])
    assert table["path"].to_pylist() == ["a"]
    assert table["score"].to_pylist() == [None]


def test_frames_have_a_list_of_their_own(tmp_path: Path) -> None:
    with PredictionFolder(tmp_path, format="csv") as folder:
        folder.add(BOXES[1])
        for number in range(2):
            folder.add(FrameResult("clip.mp4", BoxResult("clip.mp4", BOXES[0].boxes[: number]),
                                   number, number * 0.04))  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["frames.csv", "predictions.csv"]
    assert (tmp_path / "frames.csv").read_text() == (
        "path,frame,time,name,score,x1,y1,x2,y2\n"
        "clip.mp4,0,0.0\n"
        "clip.mp4,1,0.04,cat,0.5,1.0,2.0,3.0,4.5\n"
    )
    with PredictionFolder(tmp_path) as folder:
        folder.add(FrameResult("clip.mp4", BoxResult("clip.mp4", []), 7, 0.28))
    assert sorted(os.listdir(tmp_path)) == ["frames.csv", "frames.jsonl", "predictions.csv"]
    assert json.loads((tmp_path / "frames.jsonl").read_text()) == {
        "path": "clip.mp4", "frame": 7, "time": 0.28, "boxes": [],
    }  # fmt: skip
    with PredictionFolder(tmp_path) as folder:
        folder.add(BOXES[1])
    assert not (tmp_path / "frames.jsonl").exists(), "of another prediction than the list beside it"


def test_nothing_at_all_is_an_empty_list(tmp_path: Path) -> None:
    with PredictionFolder(tmp_path) as folder:
        pass
    assert folder.files[0].read_bytes() == b""


def test_tracks_are_a_column(tmp_path: Path) -> None:
    boxes = [Box("cat", 0.5, (1, 2, 3, 4), 12), Box("cat", 0.25, (1, 2, 3, 4))]
    result = BoxResult("a.jpg", boxes, tracked=True)
    assert [row[3:] for row in result.rows()] == [[1, 2, 3, 4, 12], [1, 2, 3, 4, None]]
    assert result.columns()[-1] == "track"
    assert [box["track"] for box in result.as_dict()["boxes"]] == [12, None]
    assert result.fields()[0].endswith(" #12")
    with PredictionFolder(tmp_path, format="csv") as folder:
        folder.add(result)
    lines = folder.files[0].read_text().splitlines()
    assert lines[1:] == ["a.jpg,cat,0.5,1,2,3,4,12", "a.jpg,cat,0.25,1,2,3,4,"]
