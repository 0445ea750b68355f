"""SIGTERM as an exception, so that what is under way ends in good order, as with Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came. What cleans up after Ctrl-C cleans up after this, too."""


def signal_of(stop: KeyboardInterrupt) -> int:
    """The number of the signal that `stop` stands for."""
    return int(signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


@dataclass
class Heard:
    """What came while `terminable` lasted."""

    terminated: bool = False


@contextmanager
def terminable() -> Iterator[Heard]:
    """While this context lasts, SIGTERM raises `Terminated`; a second one kills.

    Where somebody else handles the signal, or outside the main thread, where Python allows no
    handlers, nothing is done.
    """
    heard = Heard()

    def raises(number: int, frame: FrameType | None) -> None:
        heard.terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    try:
        free = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if free:
            signal.signal(signal.SIGTERM, raises)
    except ValueError:  # not the main thread
        free = False
    try:
        yield heard
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
