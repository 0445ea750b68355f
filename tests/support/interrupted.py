"""A training that is told to stop on its way, as by a Ctrl-C; and all that a run came to."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import retinue
from retinue import modelfile
from retinue.errors import Interrupted
from retinue.run.checkpoint import CheckpointStore
from retinue.training import trainer


def interrupted(
    recipe: Any, out: Path, monkeypatch: pytest.MonkeyPatch, step: int | None = 2
) -> Path:
    """The run folder of a training by `recipe` that gets SIGTERM in `step`; None: the
    last one of an epoch."""
    real = trainer.Trainer._step

    def step_and_signal(self: trainer.Trainer, *arguments: Any) -> None:
        real(self, *arguments)
        if self.progress.steps == (self.plans.steps if step is None else step):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", step_and_signal)
        with pytest.raises(Interrupted):
            retinue.train(recipe, out=out, report=False, quiet=True)
    return out


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of its last checkpoint, its average and its best weights."""
    state = CheckpointStore(run / "last").load()
    tensors = {f"learner {k}": v for k, v in state["learner"].items()}
    tensors |= {f"ema {k}": v for k, v in state["ema"].items() if isinstance(v, torch.Tensor)}
    return tensors | {
        f"best {k}": v for k, v in modelfile.read(run / "best.safetensors")[1].items()
    }


def rows_of(run: Path) -> list[dict[str, str]]:
    """Those of `metrics.csv` without what a clock tells."""
    clock = {"seconds", "images_per_second", "waited_for_data"}
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in clock} for row in csv.DictReader(file)]


def assert_same(run: Path, whole: Path) -> None:
    """Bit for bit."""
    ours, theirs = state_of(run), state_of(whole)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
    assert rows_of(run) == rows_of(whole)
