"""The learning-rate range test: a short training whose rate rises, and what its loss says of rates
(Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from retinue.errors import RetinueError, UsageError
from retinue.training import session
from retinue.training.options import ScheduleOptions, StageOptions
from retinue.training.request import asked
from retinue.training.session import RecipeLike
from retinue.training.trainer import Trainer
from retinue.training.trial import TrialOver, chosen_stage, trial

STEPS = 100
LOW, HIGH = 1e-6, 1.0
MEMORY = 0.9
"""Of the running mean of the loss, a step."""
LOST = 4.0
"""A loss of so many times the least so far (above the least possible, 0) ends the test."""
SETTLED = 5
"""Steps at the beginning that say nothing of a slope."""


@dataclass(frozen=True)
class RateRange:
    """What the test found."""

    stage: str
    rates: list[float]
    losses: list[float]
    """Of each step, before it."""
    smooth: list[float]
    """The running mean of these."""
    steepest: float | None
    """The rate at which the loss falls fastest by the rate's logarithm; None: it never falls."""
    lowest: float | None
    """The rate at which the smoothed loss is least: the training needs one below, a tenth say."""
    began: float
    """The rate that the recipe has."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dict(vars(self))


class _Rising(Trainer):
    """A training whose rate rises from step to step, evenly by its logarithm."""

    def begin(self, rates: Sequence[float]) -> None:
        """`rates`: a step each."""
        self.rates, self.losses, self._mean = rates, list[float](), 0.0

    def _rate(self, stage: StageOptions, step: int) -> float:
        return self.rates[min(step, len(self.rates) - 1)]

    def _loss(self, batch: Any, portions: int) -> Tensor:
        loss = super()._loss(batch, portions)
        if len(self.losses) == self.progress.stage_steps:  # the step's first portion
            self.losses.append(0.0)
        self.losses[-1] += float(loss.detach())
        if not math.isfinite(self.losses[-1]):
            self.losses.pop()
            raise TrialOver
        return loss

    def _step(self, stage: StageOptions, portions: list[Any]) -> None:
        super()._step(stage, portions)
        means = smoothed(self.losses)
        if len(self.losses) == len(self.rates) or means[-1] > LOST * min(means):
            raise TrialOver


def rate_range(
    recipe: RecipeLike,
    *,
    stage: str | None = None,
    low: float = LOW,
    high: float = HIGH,
    steps: int = STEPS,
    plot: str | Path | None = None,
    quiet: bool = True,
    overrides: Mapping[str, Any] | None = None,
    **fields: Any,
) -> RateRange:
    """Train by the recipe's stage called `stage` (by default its first) for so many `steps`, from
    the weights that the recipe begins with, while the rate rises from `low` to `high`; nothing of
    it stays. `plot`: a PNG file of rates and losses to be written. Raises UsageError for what makes
    no sense, RetinueError where hardly a step can be made.
    """
    if not 0 < low < high < math.inf:
        raise UsageError(
            "the rates must rise, from one above 0", where="low, high", mend="1e-6 and 1"
        )
    if not 10 <= steps <= 10_000:
        raise UsageError("a range test takes 10 to 10,000 steps", where="steps")
    place = None if plot is None else Path(plot)
    if place is not None and place.suffix.lower() != ".png":
        raise UsageError("a plot is written as PNG", where=repr(str(place)), mend="NAME.png")
    notes: list[str] = []
    meant, changes = asked(recipe, {**fields, **(overrides or {})}, notes.append)
    loaded, dataset, settings = session.opened(meant, changes, notes, quiet=quiet)
    own = chosen_stage(loaded, stage, settings, "a range test")
    tried = StageOptions.model_validate(
        own.model_dump()
        | {"steps": steps, "epochs": None, "min_steps": None, "max_steps": None}
        | {"schedule": ScheduleOptions(name="constant").model_dump(), "early_stop": None}
        | {"start_half_life": None, "from_best": False}
    )
    rates = [low * (high / low) ** (k / (steps - 1)) for k in range(steps)]
    trainer = trial(
        _Rising,
        loaded,
        dataset,
        settings,
        tried,
        {"ema": None},
        begin=lambda rising: rising.begin(rates),
        quiet=quiet,
    )
    if len(trainer.losses) <= SETTLED:
        raise RetinueError(
            f"the loss is not finite after {len(trainer.losses)} steps",
            where=f"stage {own.name}",
            mend=f"begin lower than {low:g}",
        )
    found = judged(own.name, rates[: len(trainer.losses)], trainer.losses, own.optimizer.lr)
    if place is not None:
        draw(found, place)
    return found


def smoothed(losses: Sequence[float]) -> list[float]:
    """The running mean of the losses, without a share of where it began."""
    means, mean = [], 0.0
    for count, loss in enumerate(losses, 1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        means.append(mean / (1 - MEMORY**count))
    return means


def judged(stage: str, rates: Sequence[float], losses: Sequence[float], began: float) -> RateRange:
    """What `losses`, one a rate, say of the rates."""
    means = smoothed(losses)
    least = min(range(len(means)), key=means.__getitem__)
    slopes = {
        k: (means[k + 1] - means[k - 1]) / math.log(rates[k + 1] / rates[k - 1])
        for k in range(SETTLED, min(least + 1, len(means) - 1))
    }
    steepest = min(slopes, key=slopes.__getitem__, default=None)
    falls = steepest is not None and slopes[steepest] < 0
    return RateRange(
        stage,
        list(rates),
        list(losses),
        means,
        rates[steepest] if falls and steepest is not None else None,
        rates[least] if falls else None,
        began,
    )


def draw(found: RateRange, path: Path) -> None:
    """The losses over the rates, as a PNG file."""
    import matplotlib
    from matplotlib.ticker import FuncFormatter, NullFormatter

    from retinue.page.plots import THEME, blank, png, style

    with matplotlib.rc_context(style()):
        figure = blank(5.5, 3.4)
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.0e}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.plot(found.rates, found.losses, color=THEME["soft"], linewidth=0.6, label="loss")
        axes.plot(found.rates, found.smooth, linewidth=1.6, label="running mean")
        for rate, label in (
            (found.steepest, "falls fastest"),
            (found.lowest, "lowest"),
            (found.began, "the recipe's"),
        ):
            if rate is not None:
                axes.axvline(rate, color=THEME["soft"], linewidth=0.8, linestyle=":")
                axes.annotate(label, (rate, 1), xycoords=("data", "axes fraction"), rotation=90,
                              va="top", ha="right", fontsize=7, color=THEME["soft"])  # fmt: skip
        least = min(found.smooth)
        top = max(found.smooth[: found.smooth.index(least) + 1])
        span = top - least or 1.0
        axes.set_ylim(least - 0.1 * span, top + 0.4 * span)  # what has run away is cut off
        axes.set_xlabel("learning rate")
        axes.set_title(f"Stage {found.stage}: loss while the rate rises", loc="left")
        axes.legend(loc="lower left", fontsize=7)
        png(figure, path)
