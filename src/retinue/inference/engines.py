"""What runs a network: PyTorch, ONNX Runtime or OpenVINO, behind one call.

A compiled engine is accepted only if it agrees with PyTorch on the real inputs it is compiled with
(`retinue.inference.agreement`). `auto` takes the fastest of those on the machine at hand
(`retinue.inference.racing`); which that was, and its graph, are kept in the user's cache
(`retinue.inference.engine_cache`).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from retinue.data.cpus import cpu_load
from retinue.errors import RetinueError, UsageError
from retinue.inference.agreement import Scores
from retinue.inference.eager import TorchEngine as TorchEngine
from retinue.inference.engine import Engine, Precision, Way
from retinue.inference.engine_cache import ONCE, Choice
from retinue.inference.kept import tell_not_worth, tell_refused, worth
from retinue.inference.making import Making, RefusedError
from retinue.inference.memory import give_back
from retinue.inference.names import EngineName
from retinue.inference.racing import first_of, race
from retinue.inference.runtimes import found
from retinue.nested import Nested
from retinue.processor import without_bfloat16
from retinue.text import counted

log = logging.getLogger("retinue")

_EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
_NEEDS = {
    "torch": (),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
}
_WAYS: Mapping[str, tuple[Way, ...]] = MappingProxyType({"openvino": ("apart", "together")})
"""In what ways an engine can run, the usual one first; by default all images together."""
IMAGES = 16
"""So many at a time are timed."""
CALL = 1.0
"""Seconds that a call of PyTorch may take, for which fewer images are taken."""
CLEARLY = 1.3
"""So much faster than PyTorch, OpenVINO is taken without a look at ONNX Runtime: that takes many
seconds to convert a network for."""
QUICK = 0.002
"""Seconds an image; nor is there one where an image takes less."""


def installed(name: str) -> bool:
    """Whether the packages that the engine `name` needs are there; imports none of them."""
    return all(found(package) for package in _NEEDS[name])


def candidates(device: str = "cpu") -> list[str]:
    """What `auto` tries on `device`, in turn. Graphics processors run PyTorch."""
    if torch.device(device).type != "cpu":
        return ["torch"]
    return [name for name in ("openvino", "onnxruntime", "torch") if installed(name)]


def compile_engine(
    module: nn.Module,
    example: Nested,
    *,
    engine: EngineName = "auto",
    device: str = "cpu",
    precision: Precision = "fp32",
    scores: Scores | None = None,
    computed: Mapping[str, Any] | None = None,
    steady: bool = False,
) -> Engine:
    """An engine for `module`, which takes `example` and gives tensors, both of any nesting.

    `example`: a batch of real, normalised images (or of a frozen trunk's outputs); engines are
    compiled for its shape but for the batch size, and judged on it. On a processor `auto` takes the
    fastest of those that are installed, which is found out in a few seconds; one that cannot
    compile the network, or disagrees on the example, is passed over with a warning. An engine asked
    for by name and not to be had is an error: UsageError if it is not installed, RetinueError if it
    fails or disagrees. With precision bf16 `auto` gives fp32 where that is as fast, with a warning.
    `scores`: which of the outputs are scores of classes, whose best has to be the same
    (`retinue.inference.agreement.compare`).
    `computed`: what the module computes of its weights and inputs
    (`retinue.inference.engine_keys.facts`); graph and choice are then kept, and found again.
    `steady`: an engine's name alone settles how it computes, so that it gives the same bits when it
    is asked for by that name another time.
    The weights are those of this moment: train the module further, and compile again.
    """
    if engine != "auto":
        _check(engine, device)
    if torch.device(device).type != "cpu":
        return TorchEngine(module, device=device, precision=precision)
    making = Making(module.to("cpu"), example, precision, scores, computed, steady)
    entry = _Entry(making, steady)
    if engine != "auto":
        chosen = entry.named(engine)
        making.keep()
        return chosen
    refused = {} if precision == "fp32" else making.refused()
    names = [] if refused else _with_precision(candidates(), precision)
    made = entry.known(names) or entry.fastest(names)
    making.keep()
    if precision == "fp32":
        return made or TorchEngine(module)
    choice = making.choice()
    against = {} if choice is None else choice.against
    if made is not None and worth(precision, against):
        return made
    exact = compile_engine(module, example, scores=scores, computed=computed, steady=steady)
    if made is None:
        if refused:
            tell_refused(precision, refused)
        else:
            making.keep_refused(entry.problems)
            log.warning("no engine supports %s here; using fp32", precision)
        return exact
    if worth(precision, against) is None:
        against = _compared(made, exact, making)
        if choice is not None:
            making.keep_choice(replace(choice, against=against))
        if worth(precision, against):
            return made
    tell_not_worth(precision, against)
    return exact


class _Entry:
    """Engines of one network that compete."""

    def __init__(self, making: Making, steady: bool) -> None:
        self._making, self._steady = making, steady
        self._field: dict[str, Engine] = {}
        """By `openvino apart`, `torch` …"""
        self.problems: dict[str, str] = {}
        """Why those are not among them that are not."""

    def named(self, name: str) -> Engine:
        """The engine of that name, in the fastest of its ways. Raises as `compile_engine`."""
        if (made := self.known([name])) is not None:
            return made
        if not self._enter(name):
            if not self._making.finite:
                return TorchEngine(self._making.module, precision=self._making.precision)
            raise RetinueError(self.problems[name], mend="use engine=torch")
        ways = list(self._field)
        return self._field[first_of(self._race(ways)) if len(ways) > 1 else ways[0]]

    def known(self, names: Sequence[str]) -> Engine | None:
        """What was the fastest another time; None where nobody knows, or it is not to be had."""
        choice = self._making.choice()
        if choice is None or choice.engine not in names:
            return None
        ways = _ways(choice.engine)
        way = next((way for way in ways if way == choice.way and not self._steady), ways[0])
        try:
            engine = self._making.kept(choice.engine, way)
            engine = engine or self._making.fresh(choice.engine, way)
        except (UsageError, RefusedError):
            return None  # why, is told when all are tried
        log.info("engine, as timed before: %s", choice.recalled(), extra=ONCE)
        if choice.engine == "torch" and "openvino" in {*names} - choice.passed_over.keys():
            self._keep_beside("openvino")
        return engine

    def _keep_beside(self, name: str) -> None:
        """A graph of these weights, too, where PyTorch is the fastest: few images are answered by
        it before that is imported. Of ONNX Runtime it would take many seconds to convert. Where it
        cannot be had, that is kept instead, so that nobody tries again."""
        making = self._making
        if self._steady or not making.lacks(name) or name in making.refused():
            return
        log.info("engine: a graph for %s is made, too, which answers few images sooner", name)
        if not self._enter(name, auto=True):
            making.keep_refused(self.problems)

    def fastest(self, names: Sequence[str]) -> Engine | None:
        """The fastest of them, which is told and kept; None where none can be had."""
        making = self._making
        if not making.finite:  # what is no number agrees with nothing; whoever uses it says so
            return None
        before = cpu_load()
        for name in names:
            if name != "onnxruntime" or "openvino" not in names:
                self._enter(name, auto=True)
        field = list(self._field)
        seconds = self._race(field) if len(field) > 1 else dict.fromkeys(field, 0.0)
        if "onnxruntime" in names and "openvino" in names:
            least = _least(seconds, "openvino")
            settled = least < QUICK * self.images or CLEARLY * least < _least(seconds, "torch")
            if not settled and self._enter("onnxruntime", auto=True) and field:
                seconds |= self._race([first_of(seconds), "onnxruntime"])
        if not self._field:
            return None
        if len(seconds) < 2:
            return next(iter(self._field.values()))
        best = first_of(seconds)
        name, _, way = best.partition(" ")
        told = {one.partition(" ")[0] for one in seconds}
        speeds = {one: self.images / _least(seconds, one) for one in names if one in told}
        choice = Choice(
            name, speeds, self.images, way, self.problems, making.called, time.time(), before
        )
        threads = counted(torch.get_num_threads(), "thread")
        log.info("engine, timed %d at a time, %s: %s", self.images, threads, choice.told())
        making.keep_choice(choice)
        if name != "torch":
            give_back()  # what PyTorch's turns have taken
        return self._field[best]

    @property
    def images(self) -> int:
        """So many at a time are timed: fewer of those that take long."""
        most = max(IMAGES, 2 * torch.get_num_threads())
        return max(2, min(most, int(CALL / self._making.seconds)))

    def _enter(self, name: str, *, auto: bool = False) -> bool:
        """Whether the engine takes part, in one of its ways at least."""
        there = False
        for way in _ways(name):
            try:
                engine = None if name == "torch" else self._making.kept(name, way)
                engine = engine or self._making.fresh(name, way)
            except UsageError:  # it has not this precision here
                if not auto:
                    raise
                return False
            except RefusedError as error:
                self.problems[name] = str(error)
                continue
            self._field[f"{name} {way}" if len(_ways(name)) > 1 else name] = engine
            there = True
            if self._steady:
                break
        if there:
            self.problems.pop(name, None)
        elif auto:
            log.warning("%s; going on without it", self.problems[name])
        return there

    def _race(self, names: Sequence[str]) -> dict[str, float]:
        """Seconds that each takes for `images` images."""
        x = self._making.repeated(self.images)
        return race({name: partial(self._field[name], x) for name in names})


def _compared(made: Engine, exact: Engine, making: Making) -> dict[str, float]:
    """Images a second of `exact`, and of `made`, which computes in fewer bits, by their
    precisions."""
    x = making.repeated(IMAGES // 4)
    seconds = race({"fp32": partial(exact, x), made.precision: partial(made, x)})
    return {name: IMAGES // 4 / one for name, one in seconds.items()}


def _ways(name: str) -> tuple[Way, ...]:
    return _WAYS.get(name, ("together",))


def _least(seconds: Mapping[str, float], name: str) -> float:
    """Of all ways of an engine; infinite where it took no part."""
    return min((s for one, s in seconds.items() if one.partition(" ")[0] == name), default=math.inf)


def _with_precision(names: Sequence[str], precision: str) -> list[str]:
    """Those that are worth a trial: where a processor has no bfloat16, PyTorch is hundreds of times
    slower with it, and would not have answered the example yet."""
    if precision == "fp32" or without_bfloat16() is None:
        return list(names)
    return [name for name in names if name != "torch"]


def _check(name: str, device: str) -> None:
    if name not in _NEEDS:
        raise UsageError(
            f"unknown engine {name!r}", mend=f"there are auto, {', '.join(sorted(_NEEDS))}"
        )
    if not installed(name):
        raise UsageError(
            f"the engine {name!r} is not installed",
            mend=f"pip install 'retinue[{_EXTRAS[name]}]', or use engine=torch",
        )
    if name != "torch" and torch.device(device).type != "cpu":
        raise UsageError(
            f"the engine {name!r} runs on the CPU, not on {device!r}",
            mend="use engine=torch, or device=cpu",
        )
