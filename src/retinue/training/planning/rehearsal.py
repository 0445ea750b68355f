"""The work of a training, timed on a few of its images before it begins.

Everything is done on a copy of what learns, with its own optimiser, and draws from no generator
that the training uses: what is trained afterwards is bit for bit the same.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from retinue import nested
from retinue.data.loader import collate
from retinue.inference.devices import wait
from retinue.inference.predictor import COMPILE_FROM
from retinue.inference.tracing import evaluating
from retinue.inference.tta import views as orientations
from retinue.models.network import State
from retinue.run.log import Bar
from retinue.sample import Batch, BatchPlan, Row, Sample
from retinue.tasks.learner import TAUGHT, Learner
from retinue.training.environment import build_accelerator
from retinue.training.features.frozen import CHUNK, FrozenPart, whole_chunk
from retinue.training.features.sharing import (
    cuts_on_the_way,
    firsts_to_learn,
    next_on_the_way,
)
from retinue.training.features.wanted import unwanted
from retinue.training.feeds import ImageFeed
from retinue.training.mixed import autocast
from retinue.training.options import ScheduleOptions, StageOptions
from retinue.training.planning.lengths import samples_of_stages
from retinue.training.planning.stepping import (
    Computing,
    first_step,
    restored,
    stepper,
    untouched,
)
from retinue.training.recipe import Recipe
from retinue.training.stage import cut_before, freeze
from retinue.training.stage_data import StageData, StageDataMaker
from retinue.training.training import Training

MOST_ROWS = 64
"""Images that are looked at for a stage; of larger batches a part is timed."""
LONG_ENOUGH = 0.4
"""Seconds after which something has been timed often enough."""
REPEATS = 3
AROUND_A_STEP = 0.002
"""Seconds that go into planning a step and looking after it."""
WORTH_COMPILING = 5.0
"""Seconds of a network's work from which on a faster engine is compiled."""


@dataclass(frozen=True)
class Rates:
    """What the work of a stage takes, in seconds."""

    cached: bool
    """Whether its frozen part is computed once."""
    ready: float
    """Until the frozen part can run."""
    view: float
    """A training view through the frozen part, once."""
    judged_view: float
    """The same of an image of the validation split."""
    absent: float
    """The share of the views that is still to be computed."""
    step: float
    """An optimiser step, its images included where nothing is cached."""
    judged: float
    """An image of the validation split, each time that it is judged."""


@dataclass(frozen=True)
class _Fed:
    """What the steps of a stage are fed with."""

    data: StageData
    batch: Batch
    load: float
    """Until an image is read and rendered."""
    frozen: FrozenPart | None
    """What is computed once, if anything."""
    plain: float
    """An image through `frozen`, with plain PyTorch."""
    state: Any
    """What `frozen` gives for `batch`, or its images."""


@dataclass(frozen=True)
class _Timed:
    """What a stage's work takes, in seconds, at the size of its first images."""

    fed: _Fed
    step: float
    judged: float
    read: float
    """The same of an image of the validation split."""
    area: float
    """How much larger the stage's images are on average."""


@dataclass(frozen=True)
class Judging:
    """What the final evaluation takes, in seconds."""

    ready: float
    image: float
    plain: float
    """An image with plain PyTorch, which labels images for a stage."""


class Rehearsal:
    """Times parts of `training`, each once."""

    def __init__(self, training: Training) -> None:
        self.training = training
        settings = training.settings
        self.accelerator = build_accelerator(settings.device, settings.precision)
        self.device: torch.device = self.accelerator.device
        own = training.learner
        if own.teacher is not None:
            own.teacher.to(self.device)
        with untouched(self.device):
            self.learner: Learner = Learner(
                copy.deepcopy(own.network), copy.deepcopy(own.objective), own.teacher
            ).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._stages: dict[str, _Stage] = {}
        self._judging: Judging | None = None
        self._faster: tuple[float, float] | None = None
        self._loaded: dict[Any, tuple[Batch, float]] = {}

    def rates(self, recipe: Recipe) -> list[Rates]:
        """Of each stage of `recipe`, the training's or one that differs in its stages."""
        found: list[Rates] = []
        network = self.learner.network
        moved = len(network.units())  # the first unit that has learnt so far
        passed: dict[int, float] = {}
        """The share of a stage's views that is computed on the way to those of an earlier one."""
        firsts = firsts_to_learn(recipe.stages, network)
        with untouched(self.device):
            each = zip(recipe.stages, samples_of_stages(recipe, self.training.splits), strict=True)
            for index, (stage, samples) in enumerate(each):
                first = firsts[index]
                cut = cut_before(network, first)
                like = stage.model_copy(update=_free(stage)).model_dump_json()
                if like not in self._stages:
                    self._stages[like] = _Stage(self, recipe, stage, samples, first, cut)
                via = cuts_on_the_way(recipe.stages, index, network, firsts)
                rates = self._stages[like].rates(stage.views, via, probe=moved >= cut)
                after = next_on_the_way(recipe.stages, index, network, firsts)
                if after is not None and rates.absent:
                    views = (stage.views or 1) / (recipe.stages[after].views or 1)
                    share = min(views, 1.0) * rates.absent
                    passed[after] = max(share, passed.get(after, 0.0))  # of several the same views
                found.append(replace(rates, absent=rates.absent * (1 - passed.get(index, 0.0))))
                moved = min(moved, first)
        return found

    def stepping(
        self, recipe: Recipe, index: int, ways: Sequence[Computing]
    ) -> list[Callable[[], tuple[float, float]]]:
        """For each of the `ways` a function that takes the first step of the recipe's stage
        `index`, always the same one from the weights that the training begins with, and gives its
        seconds and its loss (not finite where the weights after it are not). A step of more than
        `MOST_ROWS` images is one of so many."""
        stage = recipe.stages[index]
        first = firsts_to_learn(recipe.stages[: index + 1], self.learner.network)[index]
        cut = cut_before(self.learner.network, first)
        *_, samples = islice(samples_of_stages(recipe, self.training.splits), index + 1)
        with untouched(self.device):
            return _Stage(self, recipe, stage, samples, first, cut).stepping(ways)

    def judging(self, samples: Sequence[Sample]) -> Judging:
        """Of the final evaluation of `samples`, with the engine that it will take."""
        if self._judging is None:
            with untouched(self.device):
                self._judging = self._judge(samples)
        return self._judging

    def _judge(self, samples: Sequence[Sample]) -> Judging:
        recipe = self.training.recipe
        maker = self.maker(recipe, _spread(samples))
        data = maker.images(recipe.stages[0], _spread(self.training.splits["train"]))
        assert data.validation is not None
        network = self.learner.network
        whole = FrozenPart(network, len(network.units()), self.device)
        chunk, load = self.load("final", data.validation, data.judged)
        seconds, _ = self.run_frozen(whole, chunk)
        ready, each = 0.0, seconds
        if len(samples) >= COMPILE_FROM:
            ready, each = self.faster(whole, chunk, len(samples), seconds)
        count = len(orientations(recipe.evaluation.tta))
        plain = self.together(load, seconds * count)
        return Judging(ready, self.together(load, each * count), plain)

    # --- what is timed ---------------------------------------------------------------------------

    def maker(self, recipe: Recipe, judged: Sequence[Sample]) -> StageDataMaker:
        """Of the data of `recipe`'s stages; `judged` are the images between epochs."""
        training = self.training
        return StageDataMaker(
            recipe,
            judged,
            training.preprocessing,
            self.accelerator,
            Bar(),
            training.learner.teacher,
            training.taught_by,
        )

    def load(self, what: Any, feed: Any, plans: Sequence[BatchPlan]) -> tuple[Batch, float]:
        """The first of the batches, and how long it takes to read and render an image. `what` tells
        it from others: what is known is not read again."""
        if what not in self._loaded:
            self._loaded[what] = self._load(feed, plans)
        return self._loaded[what]

    def _load(self, feed: Any, plans: Sequence[BatchPlan]) -> tuple[Batch, float]:
        assert isinstance(feed, ImageFeed)
        rows = [row for plan in plans for row in plan.rows][:MOST_ROWS]
        chunks = [rows[k : k + CHUNK] for k in range(0, len(rows), CHUNK)]
        first = None
        began = time.perf_counter()
        for batch in feed.batches(replace(plans[0], rows=chunk) for chunk in chunks):
            first = batch if first is None else first
        wait(self.device)
        assert first is not None
        return first, (time.perf_counter() - began) / len(rows)

    def run_frozen(self, frozen: FrozenPart, batch: Batch) -> tuple[float, Any]:
        """Seconds an image with plain PyTorch, and what it gave for `batch`."""
        state, seconds = self._frozen(frozen, whole_chunk(batch.inputs), "torch")
        there = len(batch)
        return seconds, nested.mapped(lambda t: t[:there].float().clone(), state)

    def faster(
        self, frozen: FrozenPart, batch: Batch, count: int, seconds: float
    ) -> tuple[float, float]:
        """Seconds until it can run, and seconds an image, with the engine that it gets for `count`
        images, which `frozen` takes or goes on from; with plain PyTorch an image takes
        `seconds`."""
        if self.device.type != "cpu" or count * seconds < WORTH_COMPILING:
            return 0.0, seconds
        if self._faster is None:
            images = whole_chunk(batch.inputs)
            _, plain = self._frozen(frozen, images, "torch")
            began = time.perf_counter()
            _, compiled = self._frozen(frozen, images, "auto")
            # Taken to be so of all the network's parts.
            self._faster = time.perf_counter() - began, plain / compiled
        ready, times = self._faster
        return ready, seconds / times

    def _frozen(
        self, frozen: FrozenPart, inputs: State, engine: Literal["torch", "auto"]
    ) -> tuple[Any, float]:
        """What it gives for `CHUNK` inputs, and the seconds an image."""
        compiled = frozen.compile(inputs, engine)
        teacher = self.learner.teacher

        def work() -> Any:
            if teacher is not None:
                with torch.inference_mode():
                    teacher(inputs)
            return compiled(inputs)

        given, seconds = self.repeat(work)
        return given, seconds / CHUNK

    def repeat(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """What `work` gives, and the seconds that it takes once it has been done before."""
        work()
        wait(self.device)
        taken = 0.0
        for count in range(1, REPEATS + 1):  # noqa: B007
            began = time.perf_counter()
            given = work()
            wait(self.device)
            taken += time.perf_counter() - began
            if taken > LONG_ENOUGH:
                break
        return given, taken / count

    def together(self, load: float, compute: float) -> float:
        """Of reading ahead and computing: on a CPU they share the cores."""
        return load + compute if self.device.type == "cpu" else max(load, compute)


def _free(stage: StageOptions) -> dict[str, Any]:
    """Those fields of `stage` that its steps, images and views take no longer for, at one value."""
    return {
        "epochs": 1,
        "steps": None,
        "min_steps": None,
        "max_steps": None,
        "schedule": ScheduleOptions(),
        "views": None if stage.views is None else 1,
    }


class _Stage:
    """The work of one stage, from its images to its steps, however long it goes on."""

    def __init__(
        self,
        rehearsal: Rehearsal,
        recipe: Recipe,
        stage: StageOptions,
        samples: Sequence[Sample],
        first: int,
        cut: int,
    ) -> None:
        self._by = rehearsal
        self._stage = stage
        self._first = first
        self._cut = cut
        self._recipe = recipe
        self.learner = rehearsal.learner
        self._count = len(samples)
        self._shown = _spread(samples)
        self._judged = _spread(rehearsal.training.splits.get("val", ()))
        self._maker = rehearsal.maker(recipe, self._judged)
        self._timed: _Timed | None = None
        self._absent: dict[tuple[int | None, tuple[int, ...]], float] = {}

    def rates(self, views: int | None, via: Sequence[int], *, probe: bool) -> Rates:
        """With so many views of each image, computed via these cuts. `probe`: the frozen part is as
        it is now, so that the cache may hold some of it."""
        if self._timed is None:
            self._timed = self._measure()
        timed, fed = self._timed, self._timed.fed
        ready = view = judged_view = absent = 0.0
        if fed.frozen is not None:
            count = self._count * (views or 1)
            with evaluating(self.learner.network):
                # Of the part that will take the images, so that its engine is known then.
                part = self._part(min(via, default=self._cut))
                ready, each = self._by.faster(part, fed.batch, count, fed.plain)
                absent = self._lacking(views, via) if probe else 1.0
            view = self._by.together(fed.load, each)
            judged_view = self._by.together(timed.read, each) if timed.read else 0.0
        return Rates(
            fed.frozen is not None,
            ready,
            view * timed.area,
            judged_view,
            absent,
            timed.step * timed.area,
            timed.judged,
        )

    def _part(self, cut: int) -> FrozenPart:
        teacher, taught_by = self.learner.teacher, self._by.training.taught_by
        return FrozenPart(self.learner.network, cut, self._by.device, teacher, taught_by)

    def _lacking(self, views: int | None, via: Sequence[int]) -> float:
        of = views, tuple(via)
        if of not in self._absent:
            stage = self._stage.model_copy(update={"views": views})
            data = self._maker.images(stage, self._shown)
            network = self.learner.network
            self._absent[of] = self._maker.absent(stage, data, network, self._cut, via)
        return self._absent[of]

    def stepping(self, ways: Sequence[Computing]) -> list[Callable[[], tuple[float, float]]]:
        """See `Rehearsal.stepping`."""
        fed = self._fed()
        steps = [self._stepper(fed, way)[0] for way in ways]
        how = (self.learner, self._by.device, self._recipe.seed)
        return [partial(first_step, step, *how) for step in steps]

    def _fed(self) -> _Fed:
        freeze(self.learner.network, self._first)
        data = self._maker.images(self._stage, self._shown)
        what = (self._stage.augment.model_dump_json(), repr(self._stage.sizes), self._shown[0].key)
        batch, load = self._by.load(what, data.train, [self._plan(data)])
        frozen, plain = None, 0.0
        state: Any = batch.inputs
        if self._cut > 0 and unwanted(self._stage) is None:
            frozen = self._part(self._cut)
            with evaluating(self.learner.network):
                plain, state = self._by.run_frozen(frozen, batch)
            if (teacher := self.learner.teacher) is not None:
                with torch.no_grad():
                    batch.targets[TAUGHT] = teacher(batch.inputs)
        return _Fed(data, batch, load, frozen, plain, state)

    def _measure(self) -> _Timed:
        fed = self._fed()
        step = self._step(fed)
        judged = read = 0.0
        if fed.data.validation is not None:
            judged, read = self._judging(fed.data, fed.frozen)
            judged = judged if fed.frozen is not None else self._by.together(read, judged)
        return _Timed(fed, step, judged, read, self._area(fed.batch))

    def _plan(self, data: StageData) -> BatchPlan:
        view = data.plans.view
        rows = []
        for k in range(len(self._shown)):
            cast = view.cast(k, key=k, epoch=0)
            rows.append(Row(k, tuple(self._shown[p] for p in cast), 1.0))
        return BatchPlan(rows, data.plans.size_of(0, 0), 0, float(len(rows)))

    def _area(self, batch: Batch) -> float:
        """How much larger than those of `batch` the stage's images are on average."""
        sizes = self._stage.input_sizes(self._by.training.preprocessing.size, 0)[1]
        height, width = batch.images.shape[2:]
        return sum(h * w for h, w in sizes) / len(sizes) / (height * width)

    def _step(self, fed: _Fed) -> float:
        """Seconds of a step, its images read where every step does that."""
        step, share = self._stepper(fed, lambda: autocast(self._by.accelerator))
        with restored(self.learner):
            _, seconds = self._by.repeat(step)
        seconds /= share
        stage, world = self._stage, self._by.training.settings.world
        portion = min(stage.batch_size // (stage.accumulate * world), self._count)
        each = fed.load if fed.frozen is None else self._row(fed.data)
        reading = each * portion * stage.accumulate
        taken = reading + seconds
        if fed.frozen is None:
            taken = self._by.together(reading, seconds)
        return taken + AROUND_A_STEP

    def _stepper(self, fed: _Fed, computing: Computing) -> tuple[Callable[[], Tensor], float]:
        """What takes a step and gives the loss of its last portion, and the share of the step's
        images that it is taken with."""
        stage, world = self._stage, self._by.training.settings.world
        portion = min(stage.batch_size // (stage.accumulate * world), self._count)
        rows = min(portion, MOST_ROWS)
        batch = fed.batch
        where = torch.arange(rows) % len(batch)
        step = stepper(
            self.learner,
            stage,
            self._recipe.ema,
            self._by.accelerator,
            computing,
            first=self._first,
            start=0 if fed.frozen is None else self._cut,
            inputs=nested.mapped(lambda t: t[where.to(t.device)], fed.state),
            targets=nested.mapped(lambda t: t[where.to(t.device)], batch.targets),
            weight=batch.weight.new_ones(rows),
        )
        return step, rows / portion

    def _row(self, data: StageData) -> float:
        """Seconds to make a row of a batch of what is cached."""
        loader = data.loaders[0]
        rows = self._plan(data).rows[:CHUNK]
        plan = replace(self._plan(data), rows=rows)
        _, rendered = next(iter(loader.rendered([plan])))
        _, seconds = self._by.repeat(lambda: collate(plan, None, rendered))
        return 2 * seconds / len(rows)  # the other half is planning and reading them

    def _judging(self, data: StageData, frozen: FrozenPart | None) -> tuple[float, float]:
        """Seconds to judge an image, and to read one."""
        assert data.validation is not None
        batch, read = self._by.load("val", data.validation, data.judged)
        network, task = self.learner.network, self._by.training.task
        network.eval()
        with torch.inference_mode(), autocast(self._by.accelerator):
            state = batch.inputs if frozen is None else frozen.trunk()(batch.inputs)
            start = 0 if frozen is None else self._cut

            def judge() -> None:
                task.decode(nested.single(network(state, start=start)), batch)

            _, seconds = self._by.repeat(judge)
        return seconds / len(batch), read


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """At most `MOST_ROWS` of them, from all over."""
    step = max(len(samples) // MOST_ROWS, 1)
    return list(samples[::step][:MOST_ROWS])
