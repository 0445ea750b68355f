"""Which of several does the same work soonest: by turns, in little time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

SECONDS = 3.0
"""That the turns may take in all, beside the first call of each."""
ROUNDS = 5
"""At most."""
TURN = 0.01
"""Seconds that a turn takes at least: threads of the one before still look for work for a while."""
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
    """The least seconds that each of `runs` took. They take turns, so that whatever else the
    machine does meets all alike. The first call of each, which gets ready, does not count, except
    that one which takes long and is far behind is not called again."""

    def called(run: Callable[[], object]) -> float:
        began = clock()
        run()
        return max(clock() - began, 1e-9)

    first = {name: called(run) for name, run in runs.items()}
    far = max(2 * BEHIND * min(first.values()), seconds / 4)
    left = [name for name in runs if first[name] <= far]
    best = {name: took if name not in left else float("inf") for name, took in first.items()}
    began = clock()
    for number in range(ROUNDS):
        for name in left if number % 2 == 0 else left[::-1]:
            turn = clock()
            while True:
                best[name] = min(best[name], called(runs[name]))
                if clock() - turn >= TURN:
                    break
        if number == 0:
            left = [name for name in left if best[name] <= BEHIND * min(best.values())]
        if len(left) == 1 or clock() - began > seconds:
            break
    return best


def first_of(seconds: Mapping[str, float]) -> str:
    """The name of the fastest, or of one before it that is as `NEAR`."""
    least = min(seconds.values())
    return next(name for name, one in seconds.items() if least >= NEAR * one)
