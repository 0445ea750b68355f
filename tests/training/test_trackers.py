"""Who else is told of a training: Accelerate's trackers, in whose place stand-ins take down."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from accelerate import tracking

import retinue
from retinue.errors import UsageError
from retinue.training import trackers
from retinue.training.session import Run

pytestmark = pytest.mark.usefixtures("torch_alone")


class Diary:
    """A tracker that keeps what it is told."""

    def __init__(self, project: str, **how: Any) -> None:
        self.project, self.how = project, how
        self.run = SimpleNamespace(id=how.get("id") or "n1")
        self.rows: list[tuple[dict[str, float], int | None]] = []
        self.config: dict[str, Any] = {}
        self.finished = False
        DIARIES.append(self)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        self.rows.append((values, step))

    def finish(self) -> None:
        self.finished = True


DIARIES: list[Diary] = []


@pytest.fixture
def _wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    DIARIES.clear()
    found = SimpleNamespace(name="wandb")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: found if name == "wandb" else real(name)
    )
    monkeypatch.setattr(tracking, "WandBTracker", Diary)


def _train(pictures: Path, out: Path, **more: Any) -> Run:
    stages = [{"epochs": 2, "batch_size": 8}]
    recipe = tiny.recipe(pictures, stages=stages, ema=None, trackers=["wandb"], **more)
    return retinue.train(recipe, out=out, report=False, quiet=True)


@pytest.mark.usefixtures("_wandb")
def test_rows_and_final_figures_are_told_and_a_resumed_training_goes_on_there(
    tmp_path: Path, pictures: Path
) -> None:
    run = _train(pictures, tmp_path / "run")
    (diary,) = DIARIES
    assert diary.project == "retinue"
    assert diary.how == {"name": "run", "dir": str(tmp_path / "run")}
    assert diary.config["stages.0.epochs"] == 2
    assert [step for _, step in diary.rows] == [1, 2, None]
    rows = tiny.rows(run.folder)
    assert diary.rows[1][0]["val_top1"] == pytest.approx(float(rows[1]["val_top1"]))
    assert diary.rows[2][0]["test_top1"] == run.figures["top1"]
    assert diary.finished
    assert json.loads((run.folder / trackers.IDS).read_text()) == {"wandb": "n1"}
    more = {"stages.0.epochs": 3}
    retinue.train(run.folder, resume=True, report=False, quiet=True, overrides=more)
    again = DIARIES[1]
    assert again.how["id"] == "n1"
    assert again.how["resume"] == "allow"
    assert [step for _, step in again.rows] == [3, None]
    assert again.config == {}  # MLflow takes no other value for a parameter that it has


@pytest.mark.usefixtures("_wandb")
@pytest.mark.parametrize("what", ["__init__", "store_init_configuration", "log", "finish"])
def test_what_goes_wrong_there_ends_no_training(
    tmp_path: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("nobody answers\nat all")

    monkeypatch.setattr(Diary, what, fail)
    assert _train(pictures, tmp_path / "run").figures
    said = [r.getMessage() for r in caplog.records if "is told no more" in r.getMessage()]
    assert said == ["wandb is told no more of this training (ConnectionError: nobody answers)"]
    assert all(diary.finished for diary in DIARIES) == (what != "finish")


def test_one_that_is_not_installed_is_refused_before_anything(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name)
    )
    with pytest.raises(UsageError, match=r"pip install 'retinue\[wandb\]'"):
        _train(pictures, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "wandb" not in sys.modules
