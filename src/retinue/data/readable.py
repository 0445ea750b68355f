"""Which images cannot be used: every one is decoded, once, and those that are sound remembered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from retinue.data import complaints
from retinue.data.decode import Encoded, read_image
from retinue.data.remembered import Facts, Remembered, facts
from retinue.data.samples import Samples
from retinue.errors import BadImageError
from retinue.sample import Sample

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""
_In = TypeVar("_In")
_Out = TypeVar("_Out")

_CHUNK = 4096
_WRITE_EVERY = 60.0
_TELL_EVERY = 0.1
SMALL = (1, 1)
"""Decoded at the least scale: all of the file is read at any, and the verdict is the same."""


class Telling:
    """Tells of progress, a few times a second at most."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._told = 0.0
        self(0)

    def __call__(self, done: int) -> None:
        if self._progress is not None and time.monotonic() - self._told > _TELL_EVERY:
            self._told = time.monotonic()
            self._progress(done, self._total)

    def end(self) -> None:
        """All is done, which is told in any case."""
        if self._progress is not None:
            self._progress(self._total, self._total)


def unreadable(
    samples: Sequence[Sample],
    *,
    workers: int = 4,
    progress: Progress | None = None,
    remembered: Remembered | None = None,
    part: tuple[int, int] = (0, 1),
) -> dict[str, str]:
    """Path → reason, for every sample whose image cannot be used.

    All are decoded but those that are remembered as sound and have not changed. What is found is
    remembered, also of a pass that is interrupted. `workers`: threads, at least one. `part` (k, n):
    every n-th sample alone, from the k-th on; several processes share the work so.
    """
    chosen = range(part[0], len(samples), part[1])
    store = Remembered() if remembered is None else remembered
    bad: dict[str, str] = {}
    telling = Telling(progress, len(chosen))
    with (
        complaints.told_once(),
        ThreadPoolExecutor(max(workers, 1), thread_name_prefix="retinue-readable") as pool,
    ):
        keys, unknown = _unknown(samples, chosen, store, pool, workers)
        done = len(chosen) - len(unknown)
        written = time.monotonic()
        sound: list[int] = []
        try:
            judged = in_turn(pool, lambda k: _judge(samples[chosen[k]]), unknown, 4 * workers + 4)
            for position, reasons in zip(unknown, judged, strict=True):
                if reasons:
                    bad.update(reasons)
                else:
                    sound.append(position)
                done += 1
                telling(done)
                if time.monotonic() - written > _WRITE_EVERY:
                    store.add(keys[sound])
                    store.write()
                    sound, written = [], time.monotonic()
        finally:
            store.add(keys[sound])
            store.write()
    telling.end()
    return bad


def _unknown(
    samples: Sequence[Sample],
    chosen: range,
    store: Remembered,
    pool: ThreadPoolExecutor,
    workers: int,
) -> tuple[Facts, list[int]]:
    """What identifies the files of those `chosen`, and which of these are not known to be sound."""

    def look(start: int) -> Facts:
        part = chosen[start : start + _CHUNK]
        if isinstance(samples, Samples):  # many at once are made faster
            return facts(samples[part.start : part.stop : part.step])
        return facts([samples[k] for k in part])

    starts = range(0, len(chosen), _CHUNK)
    found = [np.zeros(0, np.uint64), *in_turn(pool, look, starts, 2 * workers + 2)]
    keys = np.concatenate(found)
    return keys, np.flatnonzero(~store.knows(keys)).tolist()


def in_turn(
    pool: ThreadPoolExecutor, work: Callable[[_In], _Out], items: Iterable[_In], ahead: int
) -> Iterator[_Out]:
    """`pool.map`, at most `ahead` items in advance: of a million, few are held at a time. Closing
    it, an error or an interrupt leaves nothing waiting."""
    upcoming = iter(items)
    waiting: deque[Future[_Out]] = deque()
    try:
        for item in islice(upcoming, max(ahead, 1)):
            waiting.append(pool.submit(work, item))
        while waiting:
            result = waiting.popleft().result()
            for item in islice(upcoming, 1):
                waiting.append(pool.submit(work, item))
            yield result
    finally:
        for future in waiting:
            future.cancel()


def _judge(sample: Sample) -> dict[str, str]:
    try:
        refuse_unreadable(sample)
    except BadImageError as error:
        return {path: placed(why, sample.shard) for path, why in error.reasons.items()}
    return {}


def placed(why: str, shard: str) -> str:
    """`why` an image cannot be used, and the file that holds it among others, if one does."""
    return f"{why}; in {shard!r}" if shard and repr(shard) not in why else why


def refuse_unreadable(sample: Sample) -> None:
    """Raises `BadImageError` if the sample's image cannot be used."""
    Encoded(read_image(sample.key, sample.read), path=sample.key).decode(SMALL)
