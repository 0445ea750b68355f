"""Cross-validation: a training a fold, told as one, gone on with where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import finder
import pyarrow.parquet as pq
import pytest
import tiny

import retinue
from retinue.errors import Interrupted, UsageError
from retinue.figures import Figure
from retinue.report.html import write_report
from retinue.training import session, trainer
from retinue.training.studies.folds import summary

pytestmark = pytest.mark.usefixtures("torch_alone")


def _recipe(data: Path, **split: Any) -> dict[str, Any]:
    recipe = tiny.recipe(data, stages=[{"epochs": 1, "batch_size": 8}], ema=None)
    recipe["data"]["split"] = {"folds": 3, **split}
    return recipe


def test_means_and_spread_by_hand() -> None:
    figures = [Figure("top1", "Top-1"), Figure("auc", "AUC")]
    rows = [{"top1": 0.5, "auc": 0.1}, {"top1": 0.7, "auc": None}, {"top1": 0.9, "auc": 0.3}]
    means, spread = summary(figures, rows)
    assert means == {"top1": pytest.approx(0.7), "auc": None}
    assert spread == {"top1": pytest.approx(0.2)}  # √((0.2² + 0 + 0.2²) / 2)


def test_each_fold_is_trained_and_all_are_told_as_one(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = retinue.train(_recipe(pictures), out=tmp_path / "run", quiet=True)
    assert run.best is None
    assert [part.folder.name for part in run.parts] == ["fold-1", "fold-2", "fold-3"]
    each = [part.figures["top1"] for part in run.parts]
    figures = json.loads((run.folder / "metrics.json").read_text())
    assert figures == run.figures
    assert figures["top1"] == pytest.approx(sum(each) / 3)
    assert [fold["top1"] for fold in figures["folds"]] == each
    assert figures["images"] == sum(part.figures["images"] for part in run.parts)
    # All images, each judged once; none of them of the test split.
    table = pq.read_table(run.folder / "predictions.parquet")
    assert table.num_rows == figures["images"] == len(set(table["path"].to_pylist()))
    confusion = pq.read_table(run.folder / "confusion.parquet")
    assert sum(confusion["count"].to_pylist()) == figures["images"]
    assert "fold 2, 2 of 3" in (run.folder / "train.log").read_text()
    assert "Each of 3 folds was judged" in write_report(run.folder).read_text()
    # A second run of what is done trains nothing and tells the same.
    monkeypatch.setattr(session, "start", None)
    again = retinue.train(run.folder, resume=True, report=False, quiet=True)
    assert again.figures == run.figures
    with pytest.raises(UsageError, match="go on as they began"):
        retinue.train(run.folder, resume=True, quiet=True, seed=3)


def test_stopped_in_the_second_fold_it_goes_on_there_to_the_same(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(pictures, seed=2)
    whole = retinue.train(recipe, out=tmp_path / "whole", report=False, quiet=True)
    real, calls = trainer.validate, []

    def validate(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validate", validate)
        with pytest.raises(Interrupted) as stopped:
            retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    assert stopped.value.mend == f"go on with: retinue train {tmp_path / 'run'} --resume"
    first = (tmp_path / "run" / "fold-1" / "metrics.json").stat().st_mtime_ns
    assert not (tmp_path / "run" / "metrics.json").exists()
    run = retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    assert (tmp_path / "run" / "fold-1" / "metrics.json").stat().st_mtime_ns == first
    assert run.figures["folds"] == whole.figures["folds"]


def test_what_a_fold_has_learnt_from_says_so_for_all(tmp_path: Path, pictures: Path) -> None:
    run = retinue.train(_recipe(pictures), out=tmp_path / "run", report=False, quiet=True)
    assert not {"trained_on_this_split", "transductive"} & set(run.figures)
    marked = {**run.parts[1].figures, "trained_on_this_split": True}
    (run.folder / "fold-2" / "metrics.json").write_text(json.dumps(marked))
    (run.folder / "metrics.json").unlink()
    again = retinue.train(run.folder, resume=True, report=False, quiet=True)
    assert again.figures["trained_on_this_split"] is True
    assert "transductive" not in again.figures


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_stage_that_learns_from_the_fold_that_judges_it_is_refused(
    tmp_path: Path, pictures: Path, *, dry_run: bool
) -> None:
    recipe = _recipe(pictures)
    recipe["stages"].append({"name": "all", "epochs": 1, "data": "with_validation"})
    out = None if dry_run else tmp_path / "run"
    with pytest.raises(UsageError, match=r"stage all learns from the validation.*stages\.1\.data"):
        retinue.train(recipe, out=out, dry_run=dry_run, quiet=True)
    assert not (tmp_path / "run").exists()


def test_one_fold_alone_is_a_training(tmp_path: Path, pictures: Path) -> None:
    run = retinue.train(_recipe(pictures, fold=2), out=tmp_path / "run", report=False, quiet=True)
    assert run.figures["split"] == "val"
    assert run.best is not None
    assert (
        retinue.train(_recipe(pictures), dry_run=True, quiet=True).notes[0].startswith("one of 3")
    )


def test_a_task_whose_tables_do_not_hold_all_is_told_by_its_figures_alone(tmp_path: Path) -> None:
    patches = finder.write_pictures(tmp_path / "patches", count=12)
    stage = {"epochs": None, "steps": 1, "batch_size": 4}
    recipe = finder.recipe(patches, stages=[stage], ema=None)
    recipe["data"]["split"] = {"folds": 2}
    run = retinue.train(recipe, out=tmp_path / "run", quiet=True)
    assert run.figures["task"] == "find"
    assert run.figures["split"] == "folds"
    assert set(run.figures["spread"]) <= set(run.figures)
    assert run.figures["spread"]
    with pytest.raises(UsageError, match=r"2 models lie below it: name one, .*fold-1"):
        retinue.load(run.folder)
