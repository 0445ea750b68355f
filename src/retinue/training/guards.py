"""What stops a training in good order: signals, a loss that is not finite, memory that is short."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Self

import torch
from accelerate import Accelerator
from torch import Tensor

from retinue import nested
from retinue.errors import RetinueError
from retinue.sample import Batch
from retinue.tasks.learner import Learner
from retinue.training.mixed import autocast
from retinue.training.options import StageOptions

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptions:
    """While this context lasts, SIGINT and SIGTERM are noted instead of killing.

    The second SIGINT is Python's own KeyboardInterrupt again, for whoever cannot wait. Outside
    the main thread, where Python allows no handlers, nothing is caught.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        try:
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread
            self._before.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


class SignalExchange:
    """Tells every process what one of them was told, over a channel that leaves devices alone."""

    def __init__(self, processes: int) -> None:
        self._group: Any = None
        self._processes = processes
        if processes > 1 and torch.distributed.get_backend() != "gloo":
            self._group = torch.distributed.new_group(backend="gloo")

    def largest(self, number: int) -> int:
        """The largest `number` of any process. A collective operation."""
        if self._processes == 1:
            return number
        told = torch.tensor(number)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(told)


class FiniteWatch:
    """Sees to it that nothing that is not finite goes unnoticed, without waiting for the device:
    values are noted as tensors, and looked at together later."""

    EVERY = 32
    """Values that are looked at in one go."""

    def __init__(self) -> None:
        self._noted: list[tuple[Tensor, str, list[str], str]] = []

    def note(self, value: Tensor, what: str, keys: list[str], where: str) -> None:
        """`value`, a scalar, is `what` in the step `where`, from the images `keys`."""
        self._noted.append((value.detach(), what, keys, where))

    @property
    def full(self) -> bool:
        """Whether it is time to look."""
        return len(self._noted) >= self.EVERY

    def look(self) -> None:
        """Raise with the names of the batch's files for the first value that is NaN or infinite.
        Before anything is kept, everything has to be looked at."""
        if not self._noted:
            return
        noted, self._noted = self._noted, []
        values = torch.stack([value.float() for value, *_ in noted]).cpu()
        for value, (_, what, keys, where) in zip(values.tolist(), noted, strict=True):
            if not math.isfinite(value):
                raise RetinueError(
                    f"{what} is {value}",
                    where=f"{where}, images {', '.join(map(repr, keys))}",
                    mend="look at these images, lower optimizer.lr, or set clip_norm",
                )


def refuse_not_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise RetinueError for the first of `tensors` that holds a NaN or an infinity: a gradient can
    be so where the loss was not yet, and another process's loss where one's own was not."""
    kept = {k: v.detach() for k, v in tensors.items() if v.is_floating_point() and v.numel()}
    if not kept:
        return
    largest = torch.stack([v.float() for v in torch._foreach_norm(list(kept.values()), math.inf)])
    for name, value in zip(kept, largest.cpu().tolist(), strict=True):
        if not math.isfinite(value):
            raise RetinueError(
                f"the weights {name} are not finite",
                where=where,
                mend="lower optimizer.lr, or set clip_norm, in a new training",
            )


def out_of_memory(
    learner: Learner,
    batch: Batch,
    cut: int,
    accelerator: Accelerator,
    stage: StageOptions,
    number: int,
) -> RetinueError:
    """The error for a portion `batch` that the device has no room for, in the `stage` of that
    `number`: it says which portion fits, and the accumulation that changes nothing. `cut`: the unit
    that the batch's inputs are for."""
    learner.zero_grad(set_to_none=True)

    def attempt(size: int) -> None:
        first = nested.mapped(lambda t: t[:size], batch.inputs)
        targets = nested.mapped(lambda t: t[:size], batch.targets)
        with autocast(accelerator):
            losses = learner(first, targets, cut)
        sums = [p[0] if isinstance(p, tuple) else p for p in losses.parts.values()]
        sum(part.float().sum() for part in sums).backward()
        learner.zero_grad(set_to_none=True)

    share = stage.batch_size // accelerator.num_processes
    return RetinueError(
        f"the device ran out of memory with {len(batch)} images",
        where=f"stage {stage.name}",
        mend=portions_that_fit(len(batch), attempt, share, number),
    )


def largest_that_fits(size: int, attempt: Callable[[int], None]) -> int | None:
    """The largest of size/2, size/4 … that `attempt` gets through; None if not even 1 does."""
    while size > 1:
        size //= 2
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        return size
    return None


def portions_that_fit(size: int, attempt: Callable[[int], None], share: int, stage: int) -> str:
    """What to do where `size` images at a time are too many: the accumulation of the stage of that
    number that changes nothing, `share` being what each process has of a batch."""
    fits = largest_that_fits(size, attempt)
    if fits is None:
        return "not even one image fits: choose a smaller network or input size"
    portions = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= fits)
    return (
        f"{fits} images fit: stages.{stage}.accumulate={portions} computes the same batch in"
        f" {portions} portions"
    )
