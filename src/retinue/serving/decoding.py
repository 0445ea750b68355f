"""Pictures decoded by processes of their own, so that one of them harms nobody.

Each is ended when a picture keeps it too long, and replaced when it has gone. They are started
afresh (no fork, which would copy the locks of torch's threads), hold nothing and listen to nobody.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np

from retinue.arrays import ImageSize, Matrix, Pixels
from retinue.data.cpus import usable_cpus
from retinue.errors import RetinueError
from retinue.sample import Preprocessing
from retinue.serving.frames import receive, send
from retinue.serving.problems import Problem, bad, too_large, unready

log = logging.getLogger("retinue.serving")

_LOOK = 0.05
_START = 60.0
"""Seconds that a process may take until it is ready."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A picture as the model takes it."""

    name: str
    pixels: Pixels
    """uint8 (height, width, 3), of the network's input size or as large as the picture."""
    to_original: Matrix
    """float64 (3, 3)."""
    size: ImageSize
    """Width and height of the upright original."""


class _Child:
    """One process, and what it is at."""

    def __init__(self, most_pixels: int) -> None:
        command = [sys.executable, "-m", "retinue.serving.decode_worker", str(most_pixels)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ready = False
        self.until: float | None = None
        self.overdue = False

    def ask(self, asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes] | None:
        """None where it has ended. Raises `Problem`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        sink, source = self.process.stdin, self.process.stdout
        try:
            if not self.ready:
                self.ready = receive(source) is not None
            send(sink, asked, data)
            frame = receive(source)
        except (OSError, ValueError):
            return None
        if frame is None:
            return None
        if "code" in frame[0]:
            raise _PROBLEMS[frame[0]["code"]](frame[0]["error"])
        return frame

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe and pipe.close()


_PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "unsupported": lambda told: Problem(415, "unsupported_image", told),
    "too_large": lambda told: too_large("too_many_pixels", told, mend="send a smaller one"),
    "bad_image": lambda told: bad("bad_image", f"the picture cannot be read: {told}"),
}


def _made_up() -> bytes:
    done, encoded = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
    assert done
    return encoded.tobytes()


class Decoders:
    """`count` processes; closing ends them."""

    def __init__(
        self,
        count: int | None = None,
        *,
        most_pixels: int,
        time: float,
        replaced: Callable[[], None] = lambda: None,
    ) -> None:
        """`time`: seconds for one picture; `replaced` is called for each process that had to be.
        RetinueError where they cannot be started."""
        self.count = count or min(usable_cpus(), 8)
        self._most_pixels, self._time, self._replaced = most_pixels, time, replaced
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="retinue-decode")
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        self._all: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        try:
            for _ in range(self.count):
                self._idle.put(self._started())
        except OSError as error:
            self.close()
            raise RetinueError(
                f"{self.count} processes that decode pictures cannot be started: {error}",
                mend="let this process start more, or have more files open",
            ) from error
        self._watch = threading.Thread(target=self._end_overdue, name="retinue-watch", daemon=True)
        self._watch.start()

    def warm_up(self) -> None:
        """Wait until every process has decoded something. RetinueError where one does not."""
        small, how = _made_up(), Preprocessing(size=(8, 8))
        try:
            for one in [self.submit("warm-up", small, how) for _ in range(self.count)]:
                one.result()
        except Problem as problem:
            told = f"the picture decoder does not start: {problem.what}"
            raise RetinueError(told) from problem

    def submit(
        self, name: str, data: bytes, how: Preprocessing, *, whole: bool = False
    ) -> Future[Prepared]:
        """The picture, framed as `how` says or `whole`; `Problem` where that cannot be done.
        Cancelled before a process is at it, it costs nothing."""
        return self._threads.submit(self._prepared, name, data, how, whole)

    def _prepared(self, name: str, data: bytes, how: Preprocessing, whole: bool) -> Prepared:
        asked = {
            "name": name, "most_pixels": self._most_pixels, "preprocessing": how.as_dict(),
            "whole": whole,
        }  # fmt: skip
        told, pixels = self._asked(asked, data)
        image = np.frombuffer(pixels, np.uint8).reshape(told["shape"])
        width, height = told["size"]
        return Prepared(name, image, np.array(told["to_original"]), (width, height))

    def _asked(self, asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer of a process that is free. Raises `Problem`."""
        # As many threads come here as there are processes, and each puts back one for the one that
        # it takes, alive or not: nobody waits here for ever.
        child = self._idle.get()
        if self._closed.is_set() or child.process.poll() is not None:
            # Ended by somebody else, not by this picture; or none could be started after the last.
            child = self._renewed(child)
            if child.process.poll() is not None:
                self._idle.put(child)
                going = self._closed.is_set()
                raise unready("the server is going down" if going else "no process can be started")
        # One that has just been started is not ready yet.
        self._expect(child, time.monotonic() + self._time + (0 if child.ready else _START))
        frame = None
        problem: Problem | None = None
        try:
            frame = child.ask(asked, data)
        except Problem as refusal:
            problem = refusal
        finally:
            self._expect(child, None)
            gone = (frame is None and problem is None) or child.overdue
            self._idle.put(self._renewed(child) if gone else child)
        if problem is not None:
            raise problem
        if frame is not None:
            return frame
        if self._closed.is_set():
            raise unready("the server is going down")
        if child.overdue:
            told = f"the picture takes longer than {self._time:g} s to decode"
            raise too_large("too_slow_to_decode", told, mend="save it again, or make it smaller")
        raise bad("bad_image", "the picture cannot be read: its decoder failed")

    def _expect(self, child: _Child, until: float | None) -> None:
        with self._lock:
            child.until = until

    def _started(self) -> _Child:
        child = _Child(self._most_pixels)
        with self._lock:
            self._all.add(child)
        return child

    def _renewed(self, child: _Child) -> _Child:
        """Another in its place; `child` itself, ended, where none can be started any more."""
        child.end()
        if self._closed.is_set():
            return child
        try:
            fresh = self._started()
        except OSError as error:  # too many processes or files; the next picture tries again
            log.warning("a process that decodes pictures cannot be started: %s", error)
            return child
        with self._lock:
            self._all.discard(child)
        self._replaced()
        if self._closed.is_set():  # meanwhile, and perhaps without having seen this one
            fresh.end()
        return fresh

    def _end_overdue(self) -> None:
        while not self._closed.wait(_LOOK):
            now = time.monotonic()
            with self._lock:
                for child in self._all:
                    if child.until is not None and child.until < now:
                        child.overdue = True
                        child.process.kill()

    def close(self) -> None:
        """End them all; what is under way fails."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            children = list(self._all)
        for child in children:
            child.end()
