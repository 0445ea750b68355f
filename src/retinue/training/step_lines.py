"""Lines in the log within an epoch, every so many steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from retinue.run.log import LOGGER
from retinue.run.progress import Progress
from retinue.training.losses import Sums


class StepLines:
    """A line every `every` steps: the mean loss since the last one or the epoch's beginning, the
    learning rate, and how long the steps since the last line took; for the first line of a training
    that goes on, both since then. Only then is anything read from the device.
    `over_all` adds up a tensor over all processes, in place, and gives it; all of them come to a
    line together. None: there are no lines."""

    def __init__(self, every: int | None, over_all: Callable[[Tensor], Tensor]) -> None:
        self._every = every
        self._over_all = over_all
        self._epoch = -1
        self._before: Tensor | None = None
        self._seconds = 0.0

    def note(self, progress: Progress, sums: Sums, stage: str, total: int, rate: float) -> None:
        """A step of `stage`, which has `total` of them, is done; `sums` are those of the running
        epoch, `rate` is what it learnt at."""
        if self._every is None:
            return
        if self._before is None:  # of the sitting: the sums are still those that it began with
            self._epoch, self._seconds = progress.epochs, progress.seconds_before
            began = [progress.sums.get(name, 0.0) for name in ("loss", "")]
            self._before = torch.tensor(began, dtype=torch.float64)
        if progress.steps % self._every:
            return
        both = torch.stack([sums["loss"], sums[""]])
        now = self._over_all(both).cpu().double()
        if progress.epochs != self._epoch:
            self._epoch, self._before = progress.epochs, torch.zeros_like(now)
        loss, weight = (now - self._before).tolist()
        LOGGER.info(
            "%s step %s/%s  loss %.4f  lr %.2e  %.1f s",
            stage,
            f"{progress.stage_steps:,}",
            f"{total:,}",
            loss / (weight or 1.0),
            rate,
            progress.seconds - self._seconds,
        )
        self._before, self._seconds = now, progress.seconds
