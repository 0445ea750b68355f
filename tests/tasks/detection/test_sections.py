"""What a detector's page shows: from runs that are made up, with photographs that are noise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retinue.data.targets.boxes import Boxes
from retinue.page.pictures import pictures_table
from retinue.page.record import RunRecord, read_run
from retinue.report.html import render
from retinue.sample import Sample
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.judged import judged, told_confidence
from retinue.tasks.detection.meter import DetectionMeter
from retinue.tasks.detection.sections import SECTIONS
from retinue.text import counted

NAMES = ["cat", "dog", "<b>人</b>"]
SIZE = (120, 90)
Change = Callable[[np.ndarray], np.ndarray]


def run_of(
    folder: Path,
    change: Change = lambda boxes: boxes,
    *,
    images: int = 8,
    names: list[str] = NAMES,
    photographs: bool = True,
    objects: int = 2,
    **more: Any,
) -> Path:
    """A run whose detector finds each object, but for the first of the last image, which it takes
    for a dog; and one box an image that lies anywhere, the first one with confidence."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    meter = DetectionMeter(names, tables=True)
    for k in range(images):
        path = folder / f"{k}.png"
        if photographs:
            Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(path)
        corner = np.array([[5, 50], [60, 5]])[:objects] + rng.integers(0, 5, (objects, 2))
        boxes = np.concatenate([corner, corner + np.array([30, 25])], axis=1).astype(np.float32)
        of = np.arange(objects) % 2
        said = of.copy()
        if k == images - 1:
            said[:1] = 1
        far = np.array([[100, 60, 118, 85]], np.float32)
        score = np.append(np.full(objects, 0.9), 0.95 if k == 0 else 0.1).astype(np.float32)
        found = Candidates(
            np.concatenate([change(boxes), far]), score, np.append(said, 0).astype(np.int64), SIZE
        )
        meter.update([found], [Sample(str(path), None, Boxes.made(boxes, of.tolist()))])
    figures = {**meter.compute(), "task": "detection", "split": "test", **more}
    (folder / "metrics.json").write_text(json.dumps(figures))
    (folder / "classes.json").write_text(json.dumps(names))
    for name, table in meter.tables().items():
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(read_run(run_of(tmp_path_factory.mktemp("page") / "run")))


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split()) if found else ""


def test_every_section_is_there_and_none_is_left_out(page: str) -> None:
    assert "is left out" not in page
    names = re.findall(r'<section id="(\w+)">', page)
    wanted = ["classes", "confidence", "mistakes", "confusion", "sizes", "examples", "suspects"]
    assert [name for name in names if name in wanted] == wanted
    assert "diagnosis" not in names
    assert "3 classes" in page


def test_names_are_escaped(page: str) -> None:
    assert "<b>人" not in page
    assert "&lt;b&gt;人" in page


def test_classes_without_objects_have_a_dash(page: str) -> None:
    rows = re.findall(r"<tr><td>(.*?)</tr>", page, re.DOTALL)
    last = next(row for row in rows if "人" in row)
    assert last.count("–") >= 7
    assert "nan" not in section(page, "classes")


def test_the_confidence_of_the_best_f1(page: str) -> None:
    """Of 16 objects 15 are found; from 0.5 on one box is false and one of the wrong class."""
    said = section(page, "confidence")
    assert "F1 is highest" in said
    assert "from a confidence of 0.50 on" in said
    assert "88.2 % of those boxes are right, and 93.8 % of the objects are found" in said


def test_mistakes_by_kind(page: str) -> None:
    said = section(page, "mistakes")
    assert "Of the 17 boxes with a confidence of 50 % or more, 15 found one of the 16" in said
    assert "wrong class on an object of another class 1" in said
    assert "false a box where no object is 1" in said


def test_the_background_is_a_class_of_the_confusion(page: str) -> None:
    said = section(page, "confusion")
    assert "background 1 0 0 0" in said  # the false box is a cat
    assert "cat 7 1 0 0" in said


def test_examples_are_drawn_twice_the_worst_first(page: str) -> None:
    part = page.split('<section id="examples">')[1].split("</section>")[0]
    assert part.count("<img") == 2 * (2 + 5)
    assert "First the 2 images with the most mistakes of 8" in section(page, "examples")
    assert part.index("0.png") < part.index("7.png") < part.index("3.png")
    assert "2 right, 1 wrong" in section(page, "examples")


def test_suspects_with_thumbnails(page: str) -> None:
    part = page.split('<section id="suspects">')[1].split("</section>")[0]
    assert "cat, or dog?" in part
    assert "a cat without a label?" in part
    assert part.count("<img") == 2
    assert "2 labels that the detector speaks against" in section(page, "suspects")


def test_why_nothing_is_found(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", lambda boxes: boxes[:, [1, 0, 3, 2]], names=NAMES[:2])
    (run / "environment.json").write_text(
        json.dumps({"preprocessing": {"size": [32, 32]}, "task_state": {"anchors": [[[1, 90]]]}})
    )
    (run / "metrics.csv").write_text("epoch,stage,train_loss\n1,all,2.0\n2,all,5.0\n")
    said = section(render(read_run(run)), "diagnosis")
    assert "x and y are exchanged" in said
    assert "No anchor is shaped like these objects" in said
    assert "The training loss rose, from 2 to 5" in said
    assert "vanish in the finest level" in said


@pytest.mark.parametrize(
    ("losses", "words"),
    [([2.0, 1.95], "hardly fell"), ([4.0, 2.0], "was still falling"), ([2.0], "")],
)
def test_what_the_loss_says(tmp_path: Path, losses: list[float], words: str) -> None:
    run = run_of(tmp_path / "run", lambda boxes: boxes + 500, images=3)
    rows = "".join(f"{k},all,{37 * k},{loss}\n" for k, loss in enumerate(losses, 1))
    (run / "metrics.csv").write_text("epoch,stage,step,train_loss\n" + rows)
    said = section(render(read_run(run)), "diagnosis")
    assert said
    assert words in said
    assert ("training loss" in said) == bool(words)
    assert f"The training had {37 * len(losses)} steps" in said


def test_photographs_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    page = render(read_run(run_of(tmp_path / "run", photographs=False, images=3)))
    assert "is left out" not in page
    assert "file not found" in section(page, "examples")


def test_without_objects_or_predictions_sections_are_left_out(tmp_path: Path) -> None:
    run = run_of(tmp_path / "nothing", objects=0, images=2)
    page = render(read_run(run))
    assert "is left out" not in page
    assert section(page, "sizes") == section(page, "confidence") == ""
    (run / "predictions.parquet").unlink()
    page = render(read_run(run))
    assert "is left out" not in page
    assert section(page, "examples") == ""


def test_the_confidence_of_mistakes_is_that_of_the_figures(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", images=3)
    metrics = json.loads((run / "metrics.json").read_text())
    found = judged(read_run(run))
    assert found is not None
    assert found.confidence == pytest.approx(metrics["errors"]["confidence"])
    metrics["errors"]["confidence"] = [0.05, 0.95, 0.5]
    (run / "metrics.json").write_text(json.dumps(metrics))
    found = judged(read_run(run))
    assert found is not None
    assert found.answers.of.of[found.chosen].tolist() == [0] * 5
    assert "that their class needs" in section(render(read_run(run)), "mistakes")


@pytest.mark.parametrize("value", ["much", [0.5], [0.5, None], None, {}])
def test_a_confidence_that_is_none_is_passed_over(value: Any) -> None:
    assert told_confidence({"errors": {"confidence": value}}, 2) is None
    assert told_confidence({"errors": value}, 2) is None


def test_the_summary_counts_classes(tmp_path: Path) -> None:
    assert SECTIONS.summary(read_run(run_of(tmp_path / "run", images=1))) == counted(
        3, "class", "classes"
    )


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (1, "They show 1 object: of so few"),
        (44, "a share may be off by 14 percentage points"),
        (2_000, "They show 2,000 objects."),
        (0, ""),
        ("many", ""),
    ],
)
def test_how_many_objects_the_figures_are_of(tmp_path: Path, objects: Any, said: str) -> None:
    told = SECTIONS.baseline(RunRecord(tmp_path, metrics={"objects": objects}))
    assert said in told
    assert bool(told) == bool(said)


def test_predictions_of_another_task_give_no_sections(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", images=1)
    table = pq.read_table(run / "predictions.parquet").select(["path"])
    pq.write_table(table, run / "predictions.parquet")
    assert judged(read_run(run)) is None


def test_images_that_lie_in_no_file_are_kept_for_the_page(tmp_path: Path) -> None:
    """As of a shard: those that the page shows, and no others."""
    meter = DetectionMeter(NAMES[:1], tables=True)
    light = np.full((SIZE[1], SIZE[0], 3), 200, dtype=np.uint8)
    for k in range(20):
        boxes = Boxes.made([[5, 5, 40, 40]], [0])
        found = Candidates(boxes.xyxy, np.array([0.9], np.float32), np.zeros(1, np.int64), SIZE)
        meter.update([found], [Sample(f"test/{k:02}.png", lambda: light, boxes)])
    tables = meter.tables()
    assert 0 < tables["pictures"].num_rows < 20
    (tmp_path / "metrics.json").write_text(json.dumps({**meter.compute(), "task": "detection"}))
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    page = render(read_run(tmp_path))
    part = page.split('<section id="examples">')[1].split("</section>")[0]
    assert "file not found" not in part
    assert part.count("<img") == 2 * tables["pictures"].num_rows


def test_a_picture_that_cannot_be_read_has_no_row() -> None:
    def gone() -> bytes:
        raise OSError("gone")

    assert pictures_table({"a": gone, "b": lambda: b"no image"}).num_rows == 0
