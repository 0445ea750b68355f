"""How many threads read: more of them where they wait for a slow disk or a network.

One for each processor is right where they decode. A file that takes long to come keeps a thread
from that: then twice as many, and again, as long as that brings more images.
"""

from __future__ import annotations

import time

from retinue.data.cpus import Idleness
from retinue.data.work import Work

MOST = 64
"""Threads."""
WINDOW = 0.5
"""Seconds that are judged together, at least."""
WAITED = 0.1
"""The share of the time that the caller has to wait for images."""
IDLE = 0.75
"""Processors that work less than this share of the time have some to spare: in this process, and
in all, where the system tells it."""
GAIN = 1.1
"""What twice as many threads have to bring; otherwise they go again."""


class Growth:
    """Looks at what reading took, now and then, and says how many threads there should be."""

    def __init__(self, workers: int, processors: int, work: Work) -> None:
        """`processors`: that fall to this process; `work`: what was done so far."""
        self.workers = workers
        self._processors = processors
        self._before: tuple[int, float] | None = None  # workers and images a second, until judged
        self._settled = False
        self.look(work)

    def look(self, work: Work) -> None:
        """Judge from here on, `work` being done by now; what was found before stays known."""
        self._began, self._computed = time.perf_counter(), time.process_time()
        self._work, self._idleness = work.copy(), Idleness()

    def wanted(self, work: Work) -> int:
        """How many, `work` being done by now."""
        if self._settled or self.workers >= MOST:
            return self.workers
        seconds, done = time.perf_counter() - self._began, work.since(self._work)
        # After a change, what was begun before it makes up less than half.
        if seconds < WINDOW or done.images < 4 * self.workers:
            return self.workers
        rate = done.images / seconds
        computed = time.process_time() - self._computed
        waits = done.waited > WAITED * seconds and done.computed < done.busy / 2
        idle = computed < IDLE * self._processors * seconds and to_spare(self._idleness)
        if self._before is not None and rate < GAIN * self._before[1]:
            self.workers, self._settled = self._before[0], True
        elif waits and idle:
            self._before = self.workers, rate
            self.workers = min(2 * self.workers, MOST)
        else:
            self._before = None
        self.look(work)
        return self.workers


def to_spare(idleness: Idleness) -> bool:
    """Whether the machine had processors to spare, as far as it tells: threads that wait for a
    processor look like those that wait for a disk."""
    share = idleness.share()
    return share is None or share > 1 - IDLE
