"""What a detector's page shows: from runs that are made up, with photographs that are noise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from detection_runs import NAMES, run_of
from pages import section_of

from retinue.page.record import RunRecord, read_run
from retinue.report.html import render
from retinue.tasks.detection.sections import SECTIONS
from retinue.text import counted


def test_every_section_is_there_and_none_is_left_out(page: str) -> None:
    assert "is left out" not in page
    names = re.findall(r'<section id="(\w+)">', page)
    wanted = ["classes", "confidence", "mistakes", "confusion", "sizes", "examples", "suspects"]
    assert [name for name in names if name in wanted] == wanted
    assert "diagnosis" not in names
    assert "3 classes" in page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(read_run(run_of(tmp_path_factory.mktemp("page") / "run")))


def test_names_are_escaped(page: str) -> None:
    assert "<b>人" not in page
    assert "&lt;b&gt;人" in page


def test_classes_without_objects_have_a_dash(page: str) -> None:
    rows = re.findall(r"<tr><td>(.*?)</tr>", page, re.DOTALL)
    last = next(row for row in rows if "人" in row)
    assert last.count("–") >= 7
    assert "nan" not in section_of(page, "classes")


def test_the_confidence_of_the_best_f1(page: str) -> None:
    """Of 16 objects 15 are found; from 0.5 on one box is false and one of the wrong class."""
    said = section_of(page, "confidence")
    assert "F1 is highest" in said
    assert "from a confidence of 0.50 on" in said
    assert "88.2 % of those boxes are right, and 93.8 % of the objects are found" in said


def test_advice_that_was_taken_is_not_given_again(page: str, tmp_path: Path) -> None:
    assert "task_options.thresholds=f1 picks one" in section_of(page, "confidence")
    run = run_of(tmp_path / "run")
    (run / "recipe.yaml").write_text("task: detection\ntask_options: {thresholds: f1}\n")
    said = section_of(render(read_run(run)), "confidence")
    assert "the model keeps to what was best on the validation split" in said
    assert "thresholds=f1" not in said


def test_mistakes_by_kind(page: str) -> None:
    said = section_of(page, "mistakes")
    assert "Of the 17 boxes with a confidence of 50 % or more, 15 found one of the 16" in said
    assert "wrong class on an object of another class 1" in said
    assert "false a box where no object is 1" in said


def test_the_background_is_a_class_of_the_confusion(page: str) -> None:
    said = section_of(page, "confusion")
    assert "background 1 0 0 0" in said  # the false box is a cat
    assert "cat 7 1 0 0" in said


def test_why_nothing_is_found(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", lambda boxes: boxes[:, [1, 0, 3, 2]], names=NAMES[:2])
    (run / "environment.json").write_text(
        json.dumps({"preprocessing": {"size": [32, 32]}, "task_state": {"anchors": [[[1, 90]]]}})
    )
    (run / "metrics.csv").write_text("epoch,stage,train_loss\n1,all,2.0\n2,all,5.0\n")
    said = section_of(render(read_run(run)), "diagnosis")
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
    said = section_of(render(read_run(run)), "diagnosis")
    assert said
    assert words in said
    assert ("training loss" in said) == bool(words)
    assert f"The training had {37 * len(losses)} steps" in said


def test_without_objects_or_predictions_sections_are_left_out(tmp_path: Path) -> None:
    run = run_of(tmp_path / "nothing", objects=0, images=2)
    page = render(read_run(run))
    assert "is left out" not in page
    assert section_of(page, "sizes") == section_of(page, "confidence") == ""
    (run / "predictions.parquet").unlink()
    page = render(read_run(run))
    assert "is left out" not in page
    assert section_of(page, "examples") == ""


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
