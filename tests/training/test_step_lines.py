"""Lines within an epoch, and the weights of every epoch."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import tiny
import torch

import retinue
from retinue import modelfile
from retinue.run.progress import Progress
from retinue.training.step_lines import StepLines


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if " step " in r.getMessage()]


def sums(loss: float, weight: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(loss), "": torch.tensor(weight)}


def test_the_loss_is_that_of_the_steps_since_the_last_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    lines = StepLines(2, lambda value: value)
    progress = Progress()
    # Steps of weight 4 with the losses 8, 4 | 2, 2 and, in the next epoch, 1, 3: by their weights.
    for step, (loss, weight) in enumerate([(8, 4), (12, 8), (14, 12), (16, 16)], 1):
        progress.steps = progress.stage_steps = step
        progress.seconds = step / 2
        lines.note(progress, sums(loss, weight), "all", 6, 0.1)
    progress.epochs = 1
    for step, (loss, weight) in enumerate([(1, 4), (4, 8)], 5):
        progress.steps = progress.stage_steps = step
        progress.seconds = step / 2
        lines.note(progress, sums(loss, weight), "all", 6, 0.05)
    assert told(caplog) == [
        "all step 2/6  loss 1.5000  lr 1.00e-01  1.0 s",
        "all step 4/6  loss 0.5000  lr 1.00e-01  1.0 s",
        "all step 6/6  loss 0.5000  lr 5.00e-02  1.0 s",
    ]


def test_the_first_line_after_a_resume_is_of_what_came_since(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    lines = StepLines(4, lambda value: value)
    # Two steps of the epoch were done, with a loss of 10 over a weight of 8, and in all 90 s.
    there = {"epochs": 1, "steps": 6, "stage_steps": 6, "seconds": 90.0,
             "sums": {"loss": 10.0, "": 8.0}}  # fmt: skip
    progress = Progress.from_dict(Progress(**there).as_dict())
    for step, (loss, weight) in enumerate([(12, 12), (18, 16)], 7):
        progress.steps = progress.stage_steps = step
        progress.seconds += 0.5
        lines.note(progress, sums(loss, weight), "all", 9, 0.1)
        progress.sums = {"loss": float(loss), "": float(weight)}  # a checkpoint between
    assert told(caplog) == ["all step 8/9  loss 1.0000  lr 1.00e-01  1.0 s"]


def test_without_a_number_nothing_is_read() -> None:
    StepLines(None, lambda value: pytest.fail("read")).note(Progress(), {}, "all", 1, 0.1)


def test_a_training_with_lines_and_every_epochs_weights(
    tmp_path: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stage = {"name": "all", "epochs": 3, "batch_size": 8}
    changes = {"log_steps": 2, "checkpoint": {"keep_epochs": 1}, "evaluation": {"keep": "last"}}
    recipe = tiny.recipe(pictures, stages=[stage], **changes)
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    steps = [int(re.findall(r"step (\d+)/12", line)[0]) for line in told(caplog)]
    assert steps == list(range(2, 13, 2))
    kept = sorted((run.folder / "epochs").iterdir())
    assert [path.name for path in kept] == [f"000{k}.safetensors" for k in (1, 2, 3)]
    last, best = (modelfile.read(path)[1] for path in (kept[-1], run.best))
    assert all(torch.equal(last[name], best[name]) for name in best)
    first = modelfile.read(kept[0])[1]
    assert not torch.equal(first["head.fc.weight"], last["head.fc.weight"])
    figures = modelfile.read_description(kept[0]).figures
    assert f"{figures['top1']:.6f}" == f"{float(tiny.rows(run.folder)[0]['val_top1']):.6f}"
    assert retinue.load(kept[0], engine="torch")(next(pictures.rglob("*.png"))).answers()
    judged = [retinue.evaluate(path, engine="torch") for path in (kept[-1], run.best)]
    assert judged[0]["top1"] == judged[1]["top1"]
    again = tiny.recipe(pictures, stages=[stage], **(changes | {"log_steps": None}))
    plain = retinue.train(again, out=tmp_path / "plain", report=False, quiet=True)
    other = modelfile.read(plain.best)[1]
    assert all(torch.equal(best[name], other[name]) for name in best)


def test_epochs_that_nobody_judges_are_kept_too(tmp_path: Path, pictures: Path) -> None:
    stage = {"name": "all", "epochs": 3, "batch_size": 16, "validate_every": 3}
    recipe = tiny.recipe(pictures, stages=[stage], checkpoint={"keep_epochs": 1})
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    kept = sorted((run.folder / "epochs").iterdir())
    assert [path.name for path in kept] == [f"000{k}.safetensors" for k in (1, 2, 3)]
    assert [bool(modelfile.read_description(path).figures) for path in kept] == [False, False, True]
