"""What prediction leaves behind."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retinue.errors import RetinueError, UsageError
from retinue.inference import forms
from retinue.inference.predictor import Skipped
from retinue.inference.writers import PredictionFolder, common_base
from retinue.sample import Result
from retinue.tasks.classification.task import Classification
from retinue.tasks.results import Box, BoxResult, ClassResult, FrameResult

ODD = ["a,b.jpg", 'say "so".jpg', "new\nline.jpg", "tab\tand\\slash.jpg", "花.jpg", "caf\udce9.jpg"]


def results(names: list[str]) -> list[Result]:
    return [ClassResult(name, [("lily, white", 0.75), ("Löwe\nzahn", 0.25)]) for name in names]


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


@dataclass(frozen=True)
class Reading(Result):
    """A kind of result that the package has never heard of: what a gauge shows, none or several
    times."""

    path: str
    shown: list[tuple[str, float]]
    steady: bool = True

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.path, "readings": dict(self.shown), "steady": self.steady}

    def columns(self) -> list[str]:
        return ["path", "what", "value", "steady"]

    def rows(self) -> list[list[Any]]:
        return [[self.path, what, value, self.steady] for what, value in self.shown]

    def fields(self) -> list[str]:
        return [f"{what}={value:g}" for what, value in self.shown]

    def answers(self) -> list[tuple[str, float]]:
        return self.shown


READINGS = [
    Reading("花, 1.jpg", [("bar\t", 1.5), ('"°C"', 20.25)]),
    Reading("none.jpg", [], steady=False),
]


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


def test_a_result_of_any_kind_is_drawn_by_its_task(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "in" / name) for name in ("a.png", "b.png")]

    def draw(image: np.ndarray[Any, Any], result: Result) -> np.ndarray[Any, Any]:
        drawn = image.copy()
        drawn[: len(result.answers()) * 10] = 255
        return drawn

    with PredictionFolder(tmp_path / "out", draw=draw, base=tmp_path / "in") as folder:
        folder.add(Reading(paths[0], [("bar", 1.0), ("bar", 2.0)]))
        folder.add(Reading(paths[1], []))
    heights = [
        int((np.asarray(Image.open(tmp_path / "out" / "drawn" / name))[:, 0, 0] == 255).sum())
        for name in ("a.png", "b.png")
    ]
    assert heights == [20, 0]


def test_what_is_not_json_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    """JSON has no NaN: a reader would stumble over the line."""
    with pytest.raises(ValueError, match="JSON"), PredictionFolder(tmp_path) as folder:
        folder.add(Reading("a.jpg", [("bar", float("nan"))]))
    assert os.listdir(tmp_path) == []


def test_skipped_files_are_listed_and_an_old_list_goes(tmp_path: Path) -> None:
    with PredictionFolder(tmp_path) as folder:
        folder.add(Skipped("bad\n花.jpg", "zero bytes"))
        folder.add(results(["a.jpg"])[0])
    listed = tmp_path / "skipped.jsonl"
    assert folder.files == [tmp_path / "predictions.jsonl", listed]
    assert folder.skipped == {"bad\n花.jpg": "zero bytes"}
    assert json.loads(listed.read_text("utf-8")) == {"path": "bad\n花.jpg", "reason": "zero bytes"}
    with PredictionFolder(tmp_path) as again:
        again.add(results(["b.jpg"])[0])
    assert not listed.exists()
    assert "b.jpg" in (tmp_path / "predictions.jsonl").read_text()


def test_an_error_leaves_the_earlier_file_alone(tmp_path: Path) -> None:
    with PredictionFolder(tmp_path) as folder:
        folder.add(results(["first.jpg"])[0])

    def interrupted() -> None:
        with PredictionFolder(tmp_path) as folder:
            folder.add(results(["second.jpg"])[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "first.jpg" in (tmp_path / "predictions.jsonl").read_text()
    assert sorted(os.listdir(tmp_path)) == ["predictions.jsonl"]


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "predictions.txt").write_text("a.jpg\nb.jpg\n")  # somebody's list of files
    with pytest.raises(UsageError, match="will not be overwritten"):
        PredictionFolder(tmp_path, format="txt")
    (tmp_path / "predictions.csv").write_text("date,horse\n")
    with pytest.raises(UsageError, match="will not be overwritten"):
        PredictionFolder(tmp_path, format="csv")
    (tmp_path / "predictions.jsonl").mkdir()
    with pytest.raises(UsageError, match="will not be overwritten"):
        PredictionFolder(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        PredictionFolder(tmp_path / "predictions.txt")
    with pytest.raises(UsageError, match="did you mean 'jsonl'"):
        PredictionFolder(tmp_path, format="jsonlines")


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RetinueError, match="cannot be written"),
        PredictionFolder(tmp_path / "file" / "out"),
    ):
        pass


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with PredictionFolder(tmp_path) as folder:
        folder.add(results(["first.jpg"])[0])
    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(RetinueError, match="No space left"),
        PredictionFolder(tmp_path) as folder,
    ):
        folder.add(results(["second.jpg"])[0])
    assert "first.jpg" in (tmp_path / "predictions.jsonl").read_text()
    assert os.listdir(tmp_path) == ["predictions.jsonl"]


def picture(path: Path, size: tuple[int, int] = (60, 40), **more: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (30, 90, 30)).save(path, **more)
    return str(path)


def test_drawn_images_keep_their_folders_and_do_not_collide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "in"
    inside = [
        picture(base / "x" / "a.jpg"),
        picture(base / "y" / "a.jpg"),
        picture(base / "y" / "a.bmp"),
        picture(base / "y" / "a.bmp.png"),
        picture(base / "y" / "A.jpg"),
    ]
    outside = picture(tmp_path / "elsewhere" / "a.jpg")
    sneaky = str(base / ".." / "elsewhere" / ".." / "elsewhere" / "a.jpg")
    out = tmp_path / "out"
    task = Classification(["lily", "rose"])
    with PredictionFolder(out, draw=task.draw, base=base) as folder:
        for path in [*inside, outside, sneaky]:
            folder.add(ClassResult(path, [("rose", 0.9)]))
    assert (out / "drawn" / ".drawn-by-retinue").is_file()
    pictures = [p for p in out.rglob("drawn/**/*.*") if p.name[0] != "."]
    drawn = sorted(str(p.relative_to(out / "drawn")) for p in pictures)
    where = "outside" + str(tmp_path / "elsewhere")
    assert drawn == sorted(
        [
            "x/a.jpg",
            "y/a.jpg",
            "y/a.bmp.png",
            "y/a.bmp-2.png",
            "y/A-2.jpg",
            f"{where}/a.jpg",
            f"{where}/a-2.jpg",
        ]
    )
    for path in drawn:
        pixels = np.asarray(Image.open(out / "drawn" / path))
        assert pixels.shape == (40, 60, 3)
        assert pixels.max() > 180  # the caption
    before = np.asarray(Image.open(inside[0]))
    assert before.max() < 100  # the original is as it was


def test_drawn_images_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = picture(tmp_path / "turned.jpg", (60, 40), exif=exif)
    task = Classification(["lily", "rose"])
    with PredictionFolder(tmp_path / "out", draw=task.draw, base=tmp_path) as folder:
        folder.add(ClassResult(path, [("rose", 0.9)]))
    assert Image.open(tmp_path / "out" / "drawn" / "turned.jpg").size == (40, 60)


def test_the_base_is_what_all_sources_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = picture(tmp_path / "a" / "b" / "1.jpg")
    picture(tmp_path / "a" / "c" / "2.jpg")
    assert common_base([first]) == tmp_path / "a" / "b"
    assert common_base([first, "a/c"]) == tmp_path / "a"
    assert common_base(["-"]) == tmp_path
    assert common_base(["rtsp://host/s", first]) == tmp_path / "a" / "b"
    assert common_base(["a/*/1.jpg"]) == tmp_path / "a"
    assert common_base([str(tmp_path / "a" / "c" / "**" / "*.jpg")]) == tmp_path / "a" / "c"
    assert common_base([]) == tmp_path


BOXES = [
    BoxResult("a\tb.jpg", [Box("cat", 0.5, (1.0, 2.0, 3.0, 4.5)), Box("dog", 0.25, (0, 0, 1, 1))]),
    BoxResult("none.jpg", []),
]


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
