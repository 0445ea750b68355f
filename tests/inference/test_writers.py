"""What prediction leaves behind."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answers import Reading, picture, results
from PIL import Image

from retinue.errors import RetinueError, UsageError
from retinue.inference.counting import Count
from retinue.inference.extras import Shown
from retinue.inference.predictor import Skipped
from retinue.inference.writers import PredictionFolder, common_base
from retinue.sample import Result, Sample
from retinue.tasks.detection.task import Detection
from retinue.tasks.results import Box, BoxResult

DETECTOR = Detection(["Cat"])


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
    with pytest.raises(UsageError, match="is not overwritten"):
        PredictionFolder(tmp_path, format="txt")
    (tmp_path / "predictions.csv").write_text("date,horse\n")
    with pytest.raises(UsageError, match="is not overwritten"):
        PredictionFolder(tmp_path, format="csv")
    (tmp_path / "predictions.jsonl").mkdir()
    with pytest.raises(UsageError, match="is not overwritten"):
        PredictionFolder(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        PredictionFolder(tmp_path / "predictions.txt")
    with pytest.raises(UsageError, match="did you mean 'jsonl'"):
        PredictionFolder(tmp_path, format="jsonlines")


def test_a_parquet_file_is_known_by_its_columns(tmp_path: Path) -> None:
    """All of them begin alike."""
    place = tmp_path / "predictions.parquet"
    for mine in (pa.table({"horse": [1], "path": ["a"]}), None):
        place.write_bytes(b"PAR1 and nothing else")
        if mine is not None:
            pq.write_table(mine, place)
        with pytest.raises(UsageError, match="is not overwritten"):
            PredictionFolder(tmp_path, format="parquet")
    place.write_bytes(b"")
    for _ in range(2):
        with PredictionFolder(tmp_path, format="parquet") as folder:
            folder.add(results(["a.jpg"])[0])
    assert pq.read_table(place).num_rows > 0


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RetinueError, match=r"cannot be written: .*file/out, choose another folder"),
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
        pytest.raises(RetinueError, match=r"No space left.*, free some space, or choose"),
        PredictionFolder(tmp_path) as folder,
    ):
        folder.add(results(["second.jpg"])[0])
    assert "first.jpg" in (tmp_path / "predictions.jsonl").read_text()
    assert os.listdir(tmp_path) == ["predictions.jsonl"]


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


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
@pytest.mark.parametrize("format", ["jsonl", "csv", "txt", "parquet"])
@pytest.mark.parametrize("interrupted", [False, True])
def test_what_a_full_disk_does_not_take_leaves_nothing(
    tmp_path: Path, format: str, interrupted: bool
) -> None:
    """Lines wait in memory: only when their file is closed the disk turns out to be full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def written() -> None:
        with PredictionFolder(tmp_path, format=format) as folder:
            folder.also(Count(["lily"], listed=folder.listed))
            for number in range(40):
                folder.add(results([f"{number}.jpg"])[0], Shown(Sample("")))
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            if interrupted:
                raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt if interrupted else RetinueError):
            written()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


def test_files_of_an_earlier_prediction_are_told_from_those_of_this_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A detector of other classes writes another data.yaml beside labels that stay."""
    paths = [picture(tmp_path / "in" / name) for name in ("a.png", "b.png", "C.jpg")]

    def predict(*paths: str) -> str:
        caplog.clear()
        with PredictionFolder(
            tmp_path / "out", format="yolo", task=DETECTOR, crops=True, base=tmp_path / "in"
        ) as folder:
            for path in paths:
                boxes = [Box("Cat", 0.9, (1, 1, 9, 9)), Box("Cat", 0.8, (11, 1, 19, 9))]
                folder.add(BoxResult(path, boxes[: len(paths)], (60, 40)))
        return caplog.text

    assert predict(*paths) == ""
    assert predict(*paths) == ""
    said = predict(paths[0])
    assert "out/labels': 2 files there are of an earlier prediction, 'C.txt' the first" in said
    assert "out/crops': 5 files there are of an earlier prediction" in said
    assert len(list((tmp_path / "out" / "labels").glob("*.txt"))) == 3
