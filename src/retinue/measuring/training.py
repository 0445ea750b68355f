"""A training's steps, timed part by part, and the images that they are fed with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from retinue.data.loader import worker_count
from retinue.errors import RetinueError
from retinue.inference.devices import wait
from retinue.measuring.figures import Measured, Spread, refuse_no_time, typical
from retinue.measuring.machine import TURNS, matrix_product, peak_memory
from retinue.models.anatomy import unit_macs
from retinue.sample import Batch, Sample
from retinue.training import session
from retinue.training.feeds import ImageFeed
from retinue.training.options import StageOptions
from retinue.training.request import asked
from retinue.training.session import RecipeLike
from retinue.training.trainer import Trainer
from retinue.training.trial import TrialOver, chosen_stage, trial

SECONDS = 20.0
"""How long it is measured by default, about."""
WARM = 3
"""Steps that do not count, at the beginning and after a pause."""
LEAST = 5
"""Steps that are measured, however long they take."""
TOGETHER = 10
"""Steps that a device is not waited for between, where it works beside the host."""
MOST_STEPS = 1_000_000
MOST_IMAGES = 4_096
"""Of the training split are looked at."""
PARTS = ("waiting for images", "colour", "forward", "backward", "optimiser", "the rest")


class _Varying:
    """A feed's colour, timed."""

    def __init__(self, colour: Any, spent: Callable[[float], None]) -> None:
        self._colour = colour
        self._spent = spent

    def varied(self, *given: Any) -> Tensor:
        """See `Colour`."""
        began = time.perf_counter()
        done: Tensor = self._colour.varied(*given)
        self._spent(time.perf_counter() - began)
        return done


class Measuring(Trainer):
    """A training that measures something for so many seconds, and then ends."""

    def begin(self, seconds: float) -> None:
        """Measure for so long."""
        self.seconds = seconds

    def _tell(self, stage: StageOptions) -> None:
        """How long it would be is nothing to tell."""

    def _tell_epoch(self, line: str) -> None:
        """Nor is how far it is: its length is made up, and it ends by the clock."""

    def _named(self) -> str:
        return f"measuring stage {self.recipe.stages[self.progress.stage].name}"


T = TypeVar("T", bound=Measuring)


class Clocked(Measuring):
    """A training whose steps are timed, and that ends after so many seconds of them."""

    def begin(self, seconds: float) -> None:
        """See `Measuring`."""
        super().begin(seconds)
        self.steps: list[dict[str, float]] = []
        self.products: list[float] = []
        self.memory: dict[str, int] = {}
        self._warming = WARM
        self._spent: dict[str, float] = {}
        self._asked = self._forward = self._optimising = 0.0
        self._waits = self.device.type == "cpu"
        self.bottleneck: str | None = None

    def _add(self, part: str, seconds: float) -> None:
        self._spent[part] = self._spent.get(part, 0.0) + seconds

    def _now(self) -> float:
        """Once the device has done its work, where parts are told apart."""
        if self._waits:
            wait(self.device)
        return time.perf_counter()

    def _begin(self, *given: Any) -> None:
        super()._begin(*given)
        feed = self.data.train
        if isinstance(feed, ImageFeed):
            feed.colour = _Varying(feed.colour, lambda s: self._add("colour", s))  # type: ignore[assignment]
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        inner.register_step_pre_hook(lambda *_: self._before_update())
        inner.register_step_post_hook(lambda *_: self._add("optimiser", self._now() - self._asked))

    def _before_update(self) -> None:
        self._asked = self._now()
        self._add("backward", self._asked - self._forward)

    def _steps(self, stage: StageOptions, count: int) -> Iterator[list[Batch]]:
        steps = super()._steps(stage, count)
        while True:
            began, waited = time.perf_counter(), self.data.train.work.waited
            portions = next(steps, None)
            self._add("fetching", time.perf_counter() - began)
            self._add("waiting for images", self.data.train.work.waited - waited)
            if portions is None:
                self._spent.clear()
                return
            yield portions

    def _loss(self, batch: Batch, portions: int) -> Tensor:
        began = self._now()
        if self._forward:  # of the portion before
            self._add("backward", began - self._forward)
        loss = super()._loss(batch, portions)
        self._forward = self._now()
        self._add("forward", self._forward - began)
        return loss

    def _step(self, stage: StageOptions, portions: list[Batch]) -> None:
        began, self._forward = self._now(), 0.0
        super()._step(stage, portions)
        whole = self._now() - began
        spent, self._spent = self._spent, {}
        spent["step"] = whole + spent.pop("fetching")
        told = sum(spent.get(part, 0.0) for part in PARTS)
        spent["the rest"] = max(spent["step"] - told, 0.0)
        spent["apart"] = float(self._waits)
        if self._warming:
            self._warming -= 1
            return
        self.steps.append(spent)
        self._look()

    def _look(self) -> None:
        """Whether it is enough; a device is waited for in the second half alone."""
        taken = sum(step["step"] for step in self.steps)
        if len(self.steps) < LEAST:
            return
        if taken >= self.seconds / 2 and not self._waits:
            self._waits = True
            self.bottleneck = self.waiting.told()  # afterwards the device is waited for
        turns = len(self.products)
        if turns < TURNS and taken >= turns * self.seconds / TURNS:
            self._multiply()
        if sum(step["apart"] for step in self.steps) >= LEAST and taken >= self.seconds:
            if self.device.type == "cpu":
                self.bottleneck = self.waiting.told()
            raise TrialOver

    def _multiply(self) -> None:
        """See what the machine can do meanwhile; threads that read ahead are ahead afterwards."""
        self.memory = self.memory or peak_memory(self.device)
        precision = self.accelerator.mixed_precision
        self.products.append(matrix_product(self.device, precision))
        self._warming = WARM
        self.clock.begin()  # the training has not waited for that
        self.waiting.begin()


def bench_train(
    recipe: RecipeLike,
    *,
    stage: str | None = None,
    seconds: float = SECONDS,
    quiet: bool = True,
    overrides: Mapping[str, Any] | None = None,
) -> Measured:
    """Steps of the recipe's `stage` (by default its first), on up to `MOST_IMAGES` of its images,
    from the weights that it begins with; nothing of it stays. Where its frozen part is cached, that
    is computed first and not measured. Raises UsageError for what makes no sense."""
    trainer, own = tried(Clocked, recipe, stage, seconds, overrides, {}, quiet=quiet)
    settings = trainer.settings
    counted = trainer.steps
    batch = own.batch_size
    apart = [step for step in counted if step["apart"]]
    together = [step for step in counted if not step["apart"]]
    size = 1 if not together else TOGETHER
    each = _chunks([step["step"] for step in together or apart], size)
    there = [part for part in PARTS if any(part in step for step in apart)]
    parts = typical(
        [{part: step.get(part, 0.0) for part in there} for step in apart],
        1 / Spread.of([batch / step["step"] for step in apart]).median,
    )
    network, device = trainer.network, trainer.device
    macs = _macs(trainer)
    compute = parts["forward"] + parts["backward"]
    return Measured(
        "train",
        {
            "network": network.name,
            "stage": own.name,
            "cached": trainer.data.cached is not None,
            "size": list(trainer.maker.preprocessing.size),
            "batch": batch,
            "device": str(device),
            "precision": settings.precision,
            "threads": settings.threads,
            "workers": worker_count(trainer.recipe.data.workers),
        },
        Spread.of([batch / taken for taken in each]),
        parts,
        trainer.memory,
        None if macs is None else macs / compute,
        max(trainer.products),
        {} if trainer.bottleneck is None else {"bottleneck": f"it {trainer.bottleneck}"},
    )


def tried(
    kind: type[T],
    recipe: RecipeLike,
    stage: str | None,
    seconds: float,
    overrides: Mapping[str, Any] | None,
    changes: Mapping[str, Any],
    *,
    quiet: bool,
) -> tuple[T, StageOptions]:
    """A trainer of `kind` that has measured for so many `seconds`, and the recipe's stage, which it
    has measured with `changes`."""
    refuse_no_time(seconds)
    notes: list[str] = []
    meant, given = asked(recipe, dict(overrides or {}), notes.append)
    loaded, dataset, settings = session.opened(meant, given, notes, quiet=quiet)
    own = chosen_stage(loaded, stage, settings, "a measurement")
    endless = {"steps": MOST_STEPS, "epochs": None, "min_steps": None, "max_steps": None}
    endless |= {"early_stop": None, "from_best": False, **changes}
    trainer = trial(
        kind,
        loaded,
        dataset,
        settings,
        StageOptions.model_validate(own.model_dump() | endless),
        {} if loaded.ema is None or loaded.ema.last_epochs is None else {"ema": None},
        begin=lambda made: made.begin(seconds),
        quiet=quiet,
        learnt_from=_some,
    )
    return trainer, own


def _some(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Evenly over all, in their order."""
    if len(samples) <= MOST_IMAGES:
        return samples
    chosen = np.linspace(0, len(samples) - 1, MOST_IMAGES).astype(int).tolist()
    return [samples[k] for k in chosen]


def _chunks(values: Sequence[float], size: int) -> list[float]:
    """The mean of every `size` values; of fewer the mean of all."""
    whole = len(values) // size * size
    if not whole:
        return [mean(values)]
    return [float(v) for v in np.array(values[:whole]).reshape(-1, size).mean(1)]


def _macs(trainer: Trainer) -> float | None:
    """FLOP of a training step an image: forward from the cut on; backward twice that of what
    learns."""
    try:
        macs = unit_macs(trainer.network, trainer.maker.preprocessing.size)
    except (RetinueError, NotImplementedError):
        return None
    forward = sum(macs[trainer.data.train.cut :])
    return 2.0 * forward + 4.0 * sum(macs[trainer.first :])
