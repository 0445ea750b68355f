"""What stops a training in good order: signals, a loss that is not finite, memory that is short."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

import torch

from retinue.errors import RetinueError

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


def refuse_not_finite(value: float, what: str, paths: list[str], where: str) -> None:
    """Raise with the names of the batch's files if `value` is NaN or infinite."""
    if value - value == 0:
        return
    raise RetinueError(
        f"{what} is {value}",
        where=f"{where}, images {', '.join(map(repr, paths))}",
        mend="look at these images, lower optimizer.lr, or set clip_norm",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device (not the host) ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError)


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
