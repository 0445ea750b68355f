"""float32 or bfloat16: in which of them the steps of a training on a CPU are faster.

Which it is depends on processor, network, batch and what of the network learns, so it is measured:
the first step of the training, in both, by turns, on a copy of which nothing stays. It is settled
once, for the whole training and by the stage that costs most: a change of precision between stages
would be one more thing to know of a run, and what the other stages could gain is less. What was
measured is kept for trainings of the same kind (`retinue.inference.engine_cache`), so that the next
of them does the same; what a run does stands in its `environment.json`, and is done to its end.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from accelerate.utils import broadcast_object_list, gather_object

from retinue.data.cpus import cpu_load, usable_cpus
from retinue.errors import RetinueError
from retinue.inference.engine_cache import Choice, EngineCache
from retinue.inference.engine_keys import key_of
from retinue.models.anatomy import unit_macs
from retinue.processor import cpu_flags, cpu_name, without_bfloat16
from retinue.text import counted, first_line
from retinue.training.environment import OPEN, STEPS, is_main, versions
from retinue.training.features.wanted import unwanted
from retinue.training.mixed import on_cpu
from retinue.training.planning.rehearsal import Rehearsal
from retinue.training.stage import cut_before, first_to_learn
from retinue.training.training import Training
from retinue.turns import timed, turns

NAMES = {"fp32": "float32", "bf16": "bfloat16"}
MARGIN = 1.1
"""How many times faster bfloat16 has to be: it costs digits."""
TOLERANCE = 0.05
"""How far the loss in bfloat16 may be from that in float32, as a share of it, or of 1 where it is
less than that."""
ROUNDS = (3, 5)
"""Turns that each takes: at least, and where these do not agree."""
LEAST_STEPS = 500
"""Of a stage, from which on it is measured: 8 steps then take less than 2 % of its time."""
SHARE = 0.02
"""Of a budget that measuring may take."""
HOPELESS = 0.5
"""So fast beside float32, bfloat16 is not tried again."""
EMULATED = 4.0
"""So many times slower a small matrix product in bfloat16 is where it is computed bit by bit; a
step in it would take minutes."""
FORMAT = 1
"""Counts up when steps come to take another time by other code than that of versions."""

Timed = Callable[[], tuple[float, float]]
"""Takes a step and gives its seconds and its loss."""


class Settled(NamedTuple):
    """A precision, and what completes `precision: float32, …`."""

    precision: str
    why: str


def settled(training: Training) -> tuple[Training, list[str]]:
    """`training` with its precision, where `auto` has left that open, and lines that say what it is
    and why. The first process decides for all."""
    settings = training.settings
    if settings.precision != OPEN:
        return training, []
    found: list[Any] = [None]
    lacking = [why for why in gather_object([without_bfloat16()]) if why is not None]
    if lacking:
        found = [Settled("fp32", f"as {lacking[0]}")]
    else:
        index = costliest(training)
        key = key_of(facts(training, index))
        cache = EngineCache()
        if is_main():
            found = [_without_measuring(training, index, cache.choice(key, settings.threads))]
        broadcast_object_list(found)
        if found[0] is None:  # all at once, as they will compute
            outcome, choice = measured(training, index)
            found = [outcome]
            if is_main() and choice is not None:
                cache.keep_choice(key, settings.threads, choice)
    broadcast_object_list(found)
    precision, why = found[0]
    settings = replace(settings, precision=precision, why=why)
    return replace(training, settings=settings), [f"precision: {NAMES[precision]}, {why}"]


def _without_measuring(training: Training, index: int, kept: Choice | None) -> Settled | None:
    """What needs no measuring: of a training that is too short for it, and of one for whose kind
    there is a choice. Too short it is by its steps, not by its time, so that it is so each time."""
    recipe = training.recipe
    if recipe.compile:
        return Settled("fp32", "as steps of a compiled network are not timed beforehand")
    steps = recipe.stages[index].total_steps(training.epoch_steps[index])
    if recipe.budget is None and steps < LEAST_STEPS:
        name, length = recipe.stages[index].name, counted(steps, "step")
        few = f"as stage {name}, of {length}, is too short to find out whether bfloat16 is faster"
        return Settled("fp32", few)
    if kept is None or kept.way != STEPS or kept.engine not in NAMES:
        return None
    if "bf16" in kept.passed_over:
        return Settled("fp32", kept.passed_over["bf16"])
    if not all(kept.speeds.get(name, 0.0) > 0 for name in NAMES):
        return None
    ratio = kept.speeds["bf16"] / kept.speeds["fp32"]
    return Settled(kept.engine, compared(ratio, "measured for an earlier training"))


def compared(ratio: float, how: str) -> str:
    """Of bfloat16, which is `ratio` times as fast as float32; by the `MARGIN` it is chosen."""
    if ratio >= MARGIN:
        return f"{ratio:.2f} times as fast as float32 here ({how})"
    return f"as bfloat16 is {ratio:.2f} times as fast here ({how})"


# --- of which kind it is -------------------------------------------------------------------------


def costliest(training: Training) -> int:
    """The index of the stage whose steps multiply most, by counting, which is the same each time;
    where that cannot be counted, of the stage that learns from most images."""
    recipe, network = training.recipe, training.learner.network
    if len(recipe.stages) == 1:
        return 0
    try:
        with torch.random.fork_rng(devices=[]):
            macs = unit_macs(network, training.preprocessing.size)
    except (RetinueError, RuntimeError, NotImplementedError):
        macs = []
    work = []
    for index, (stage, each) in enumerate(zip(recipe.stages, training.epoch_steps, strict=True)):
        first, start = _span(training, index)
        one = sum(macs[start:]) + 2 * sum(macs[first:]) if macs else 1
        work.append(stage.total_steps(each) * stage.batch_size * one)
    return work.index(max(work))


def _span(training: Training, index: int) -> tuple[int, int]:
    """The first unit that learns in the stage, and the one that its steps begin with."""
    stage, network = training.recipe.stages[index], training.learner.network
    first = first_to_learn(network, stage.trainable, f"key stages.{index}.trainable")
    return first, cut_before(network, first) if unwanted(stage) is None else 0


def facts(training: Training, index: int) -> dict[str, Any]:
    """JSON values: what the time of a step of the stage `index` depends on."""
    recipe, network, settings = training.recipe, training.learner.network, training.settings
    stage = recipe.stages[index]
    first, start = _span(training, index)
    found = versions()
    return {
        "of": STEPS,
        "format": FORMAT,
        "task": [recipe.task, dict(recipe.task_options), len(training.task.classes)],
        "network": [network.name, dict(network.arguments)],
        "sizes": stage.input_sizes(training.preprocessing.size, recipe.seed)[1],
        "learns": [first, start, stage.frozen_batchnorm],
        "portion": [stage.batch_size, stage.accumulate, settings.world],
        "update": [stage.optimizer.name, stage.clip_norm is not None, recipe.ema is not None],
        "teacher": training.taught_by is not None,
        "versions": [found.get(name) for name in ("retinue", "torch")],
        "processor": [cpu_name(), usable_cpus(), *cpu_flags()],
        "allowed": [torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA")],
    }


# --- measuring -----------------------------------------------------------------------------------


def measured(training: Training, index: int) -> tuple[Settled, Choice | None]:
    """What the first step of the stage `index` says, and what is to be kept of that; nothing where
    it could not be measured."""
    stage, budget = training.recipe.stages[index], training.recipe.budget
    load = cpu_load()
    try:
        if (behind := product_ratio()) > EMULATED:
            why = f"as bfloat16 is computed bit by bit here, {behind:.0f} times slower"
            return _passed_over(training, stage.batch_size, load, why)
        ways = [partial(on_cpu, precision) for precision in NAMES]
        full, brief = Rehearsal(training).stepping(training.recipe, index, ways)
        allowed = math.inf if budget is None else SHARE * budget.seconds
        found = compare(full, brief, allowed)
    except (RetinueError, RuntimeError, ValueError, TypeError) as error:
        # What stops float32, too, the training itself meets and names.
        why = first_line(error, type(error).__name__)
        return Settled("fp32", f"as bfloat16 could not be tried ({why})"), None
    if isinstance(found, str):
        return Settled("fp32", found), None
    if found.why:
        return _passed_over(training, stage.batch_size, load, found.why)
    precision = "bf16" if found.ratio >= MARGIN else "fp32"
    images = stage.batch_size / found.seconds
    speeds = {"fp32": images, "bf16": images * found.ratio}
    choice = _kept(training, stage.batch_size, precision, speeds, load)
    how = f"measured over {found.steps} steps"
    return Settled(precision, compared(found.ratio, how)), choice


def _passed_over(
    training: Training, batch: int, load: float | None, why: str
) -> tuple[Settled, Choice]:
    return Settled("fp32", why), _kept(training, batch, "fp32", {}, load, {"bf16": why})


def _kept(
    training: Training,
    batch: int,
    precision: str,
    speeds: Mapping[str, float],
    load: float | None,
    why: Mapping[str, str] | None = None,
) -> Choice:
    """With the machine's `load` before it was measured: on a busy one threads wait for one another,
    in one precision more than in the other."""
    name = training.learner.network.name or training.recipe.model.name
    return Choice(precision, speeds, batch, STEPS, why or {}, name, time.time(), load)


class Compared(NamedTuple):
    """How steps in bfloat16 do beside those in float32."""

    ratio: float
    """How many times as fast they are."""
    seconds: float
    """Of one in float32."""
    steps: int
    """That were timed."""
    why: str = ""
    """Why bfloat16 will not do, however fast."""


def compare(full: Timed, brief: Timed, allowed: float) -> Compared | str:
    """Steps in float32 and in bfloat16, by turns, after one of each that does not count. Why not,
    where they would take longer than the `allowed` seconds."""
    seconds, loss = full()
    if seconds * 2 * (1 + ROUNDS[0]) > allowed:
        return "as the time is too short to find out whether bfloat16 is faster"
    _, other = brief()
    if not math.isfinite(other) and math.isfinite(loss):
        return Compared(0.0, seconds, 0, "as the loss in bfloat16 is not finite")
    if abs(loss - other) > TOLERANCE * max(abs(loss), 1.0):
        why = f"as the loss in bfloat16, {other:.4g}, is far from that in float32, {loss:.4g}"
        return Compared(0.0, seconds, 0, why)
    steps = 0
    pairs: list[tuple[float, float]] = []
    runs = {"fp32": lambda: full()[0], "bf16": lambda: brief()[0]}
    for taken in islice(turns(runs), ROUNDS[1]):
        steps += sum(map(len, taken.values()))
        pairs.append((mean(taken["fp32"]), mean(taken["bf16"])))
        ratios = [a / b for a, b in pairs]
        agreed = len(pairs) >= ROUNDS[0] and len({one >= MARGIN for one in ratios}) == 1
        if agreed or max(ratios) < HOPELESS:
            break
    return Compared(median(ratios), median(a for a, _ in pairs), steps)


def product_ratio(size: int = 256, times: int = 3) -> float:
    """How many times longer a small matrix product takes in bfloat16."""
    runs = {}
    for kind in (torch.float32, torch.bfloat16):
        a = torch.ones((size, size), dtype=kind)
        runs[kind] = timed(partial(torch.mm, a, a))
    _, *rounds = islice(turns(runs, least=0), 1 + times)  # the first gets ready
    full, brief = (min(taken[kind][0] for taken in rounds) for kind in runs)
    return brief / full
