"""Timing by turns, so that whatever else the machine does meets all alike.

The caller says how long it goes on, and what of it counts: `retinue.inference.racing` looks for
the fastest of several in little time, others for how many times as fast one is as another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import TypeVar

TURN = 0.01
"""Seconds that a turn takes at least: for a while, threads of the turn before still look for
work."""

Name = TypeVar("Name")


def turns(
    runs: Mapping[Name, Callable[[], float]], *, least: float = TURN
) -> Iterator[dict[Name, list[float]]]:
    """Rounds without end. In each, every one of `runs` has a turn: it is called until its calls
    have come to `least` seconds, at least once; a call gives its seconds (`timed`). Yields those of
    each call, by the names of `runs`. The order is reversed from round to round; what is taken out
    of `runs` between two rounds has no more turns."""
    for number in count():
        names = list(runs)
        yield {name: _turn(runs[name], least) for name in names[:: -1 if number % 2 else 1]}


def _turn(run: Callable[[], float], least: float) -> list[float]:
    taken = [run()]
    while sum(taken) < least:
        taken.append(run())
    return taken


def timed(
    run: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> Callable[[], float]:
    """`run`, which gives the seconds that it took, more than 0."""

    def call() -> float:
        began = clock()
        run()
        return max(clock() - began, 1e-9)

    return call
