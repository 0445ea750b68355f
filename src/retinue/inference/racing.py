"""Which of several does the same work soonest: by turns, in little time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from retinue.turns import timed, turns

SECONDS = 3.0
"""That the turns may take in all, beside the first call of each."""
ROUNDS = 5
"""At most."""
BEHIND = 1.25
"""So much slower than the fastest of its first round, one is out."""
NEAR = 0.97
"""Of two as near as that the one named first is taken: it would be noise that tells them apart."""


def race(
    runs: Mapping[str, Callable[[], object]],
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The least seconds that each of `runs` took, by turns. The first call of each, which gets
    ready, does not count, except that one which takes long and is far behind is not called
    again."""
    calls = {name: timed(run, clock) for name, run in runs.items()}
    first = {name: call() for name, call in calls.items()}
    far = max(2 * BEHIND * min(first.values()), seconds / 4)
    left = {name: call for name, call in calls.items() if first[name] <= far}
    best = {name: math.inf if name in left else took for name, took in first.items()}
    began = clock()
    for number, taken in zip(range(ROUNDS), turns(left), strict=False):
        best |= {name: min(best[name], *each) for name, each in taken.items()}
        if number == 0:
            for name in [name for name in left if best[name] > BEHIND * min(best.values())]:
                del left[name]
        if len(left) == 1 or clock() - began > seconds:
            break
    return best


def first_of(seconds: Mapping[str, float]) -> str:
    """The name of the fastest, or of one before it that is as `NEAR`."""
    least = min(seconds.values())
    return next(name for name, one in seconds.items() if least >= NEAR * one)
