"""A training that is told to stop on its way, as by a Ctrl-C."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import retinue
from retinue.errors import Interrupted
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
