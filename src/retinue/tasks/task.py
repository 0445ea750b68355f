"""What a task is. Trainer, checkpoints, predictor and report know this and nothing further.

A task says how its network is built, what its loss is, how raw outputs become results, which
figures judge them, and how they are drawn.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from retinue.errors import UsageError, suggest
from retinue.models.network import Network
from retinue.options import Options
from retinue.sample import Batch, Result, Sample


class Meter(ABC):
    """Collects outputs over a split and tells the figures."""

    @abstractmethod
    def update(self, outputs: Tensor, batch: Batch) -> None:
        """`outputs`: what the network returns in eval mode for `batch`; padding has weight 0."""

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """The figures of `metrics.json` as plain JSON values; scalars are what stages watch."""

    @abstractmethod
    def table(self) -> pa.Table:
        """`predictions.parquet`: a row an image, in the order of the split."""


class Task(ABC):
    """One kind of recognition. Stateless but for its options and the class names."""

    name: ClassVar[str]
    options_type: ClassVar[type[Options]]
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"loss"})
    """Figures of which less is better; more is better for every other one."""
    default_metric: ClassVar[str]
    """The figure that picks the best checkpoint unless the recipe names another."""

    def __init__(self, classes: Sequence[str], options: Options) -> None:
        self.classes = tuple(classes)
        self.options = options

    @abstractmethod
    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        """The network `network` of the zoo (`arguments` are its keywords) for these classes."""

    def observe(self, samples: Sequence[Sample]) -> None:  # noqa: B027 - most tasks need nothing
        """Told the training split once, before the first step; what depends on it (class weights,
        anchors) is worked out here. Evaluating and predicting never need it."""

    @abstractmethod
    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Parts of the loss by name, (n,) each: the trainer weighs, adds and averages them."""

    def running(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Figures to show of the training batches, (n,) each; averaged over an epoch."""
        return {}

    @abstractmethod
    def decode(self, outputs: Tensor, batch: Batch) -> list[Result]:
        """Raw outputs in eval mode to results in pixels of the original images."""

    @abstractmethod
    def meter(self) -> Meter:
        """A new, empty meter."""

    @abstractmethod
    def draw(self, image: npt.NDArray[np.uint8], result: Result) -> npt.NDArray[np.uint8]:
        """A copy of the RGB uint8 `image` with `result` drawn on it."""

    def merge_views(self, outputs: Sequence[Tensor]) -> Tensor:
        """One output from those of several views of the same images (test-time augmentation)."""
        raise UsageError(f"the task {self.name!r} has no test-time augmentation", where="key tta")


_TASKS: dict[str, str | type[Task]] = {
    "classification": "retinue.tasks.classification:Classification"
}


def register_task(task: type[Task]) -> type[Task]:
    """Class decorator: makes `task` known to recipes and model files by its name."""
    known = _TASKS.get(task.name)
    if isinstance(known, type) and known is not task:
        raise ValueError(f"task {task.name!r} is already registered by {known.__module__}")
    _TASKS[task.name] = task
    return task


def task_type(name: str) -> type[Task]:
    """The task called `name`."""
    found = _TASKS.get(name)
    if found is None:
        raise UsageError(f"unknown task {name!r}", where="key task", mend=suggest(name, _TASKS))
    if isinstance(found, str):
        module, attribute = found.split(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, type)
        _TASKS[name] = found
    return found
