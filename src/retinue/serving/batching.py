"""Images of several requests through a model at once.

One thread a model takes what is there whenever the model is free. It waits for more only while
others are being decoded, and no longer than the latency that was allowed: an image that is alone is
answered at once. Other work with the model takes turns with the batches, so that neither keeps the
other waiting for long.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from retinue.serving.decoding import Prepared
from retinue.serving.problems import Problem, busy, late, unready


class Answering(Protocol):
    """What answers for images: a model, ready."""

    def answer(self, images: Sequence[Prepared]) -> list[Any]:
        """Of each what was found, or the `Problem` with it; raises nothing."""
        ...


@dataclass(slots=True, eq=False)
class _Job:
    by: Answering
    image: Prepared
    until: float
    came: float
    future: Future[Any] = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class _Call:
    function: Callable[[], Any]
    until: float
    future: Future[Any] = field(default_factory=Future)


class Batcher:
    """Up to `size` images at once; the first of them waits `latency` seconds at most. `most`: so
    many images may be under way."""

    def __init__(
        self,
        name: str,
        *,
        size: int,
        latency: float,
        most: int,
        noted: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        """`noted` is told of each batch: how many images, and what it took."""
        self.size, self.latency, self.most = size, latency, most
        self._noted = noted
        self._jobs: deque[_Job] = deque()
        self._calls: deque[_Call] = deque()
        self._coming = 0
        self.pending = 0
        """Images that are under way, from their request's admission to its answer."""
        self._pace = 0.05
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"retinue-{name}", daemon=True)
        self._thread.start()

    def refuse_full(self) -> None:
        """Raise `Problem` where there is no room for one more image."""
        with self.admitted(1):
            pass

    @contextmanager
    def admitted(self, images: int) -> Iterator[None]:
        """Room for so many images as long as this lasts. Raises `Problem` where there is none."""
        with self._changed:
            if self.pending and self.pending + images > self.most:
                told = f"{self.pending} images are in progress already, of at most {self.most}"
                raise busy(told, self.pending * self._pace)
            self.pending += images
        try:
            yield
        finally:
            with self._changed:
                self.pending -= images

    @contextmanager
    def expected(self) -> Iterator[None]:
        """An image is being decoded, and will be here soon."""
        with self._changed:
            self._coming += 1
        try:
            yield
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify()

    def submit(self, by: Answering, image: Prepared, *, until: float) -> Future[Any]:
        """What `by` finds in the image. Cancelled, it is not looked at any more; beyond `until`, of
        the monotonic clock, it has a `Problem`."""
        job = _Job(by, image, until, time.monotonic())
        with self._changed:
            if self._closed:
                raise unready("the server is going down")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def call(self, function: Callable[[], Any], *, until: float) -> Future[Any]:
        """`function()` in the model's thread, between two batches; `until` as for images."""
        call = _Call(function, until)
        with self._changed:
            if self._closed:
                raise unready("the server is going down")
            self._calls.append(call)
            self._changed.notify()
        return call.future

    def close(self) -> None:
        """Answer what is there, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        called = False  # last time
        while True:
            with self._changed:
                while not (self._jobs or self._calls or self._closed):
                    self._changed.wait()
                if self._closed and not (self._jobs or self._calls):
                    return
                called = bool(self._calls) and not (called and self._jobs)
                call = self._calls.popleft() if called else None
                jobs = [] if call else self._taken()
            if call is not None:
                _fulfil(call)
            else:
                self._answer(jobs)

    def _taken(self) -> list[_Job]:
        """The next batch: of one model, and of images that somebody waits for."""
        first = self._jobs[0]
        while len(self._jobs) < self.size and self._coming and not self._closed:
            left = first.came + self.latency - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                break
        jobs: list[_Job] = []
        while self._jobs and len(jobs) < self.size and self._jobs[0].by is first.by:
            job = self._jobs.popleft()
            if _wanted(job):
                jobs.append(job)
        return jobs

    def _answer(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        start = time.monotonic()
        found = jobs[0].by.answer([job.image for job in jobs])
        seconds = time.monotonic() - start
        self._pace += 0.1 * (seconds / len(jobs) - self._pace)
        self._noted(len(jobs), seconds)
        for job, one in zip(jobs, found, strict=True):
            if isinstance(one, Problem):
                job.future.set_exception(one)
            else:
                job.future.set_result(one)


def _wanted(one: _Job | _Call) -> bool:
    """Whether somebody waits for it still; whoever has waited too long is told."""
    if not one.future.set_running_or_notify_cancel():
        return False
    if one.until < time.monotonic():
        one.future.set_exception(late())
        return False
    return True


def _fulfil(call: _Call) -> None:
    if not _wanted(call):
        return
    try:
        call.future.set_result(call.function())
    except BaseException as error:
        call.future.set_exception(error)
