"""What bringing images takes: of the threads that read and render them, and of whoever waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any, Self, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Work:
    """Seconds, but for `images`; of all that was done so far, or of a part of it."""

    images: int = 0
    waited: float = 0.0
    """What the caller waited for them."""
    busy: float = 0.0
    """Of all threads, from an image's beginning to its end."""
    computed: float = 0.0
    """Of `busy`, what a processor worked on it. The rest waited: for a disk or a network, or for a
    processor."""

    def __iadd__(self, other: Self) -> Self:
        self.images += other.images
        self.waited += other.waited
        self.busy += other.busy
        self.computed += other.computed
        return self

    def since(self, before: Work) -> Work:
        """What came after `before`, a copy of it then."""
        return Work(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))

    def copy(self) -> Work:
        """As it is now."""
        return Work(*astuple(self))


def worked(do: Callable[..., T], *given: Any) -> tuple[T, Work]:
    """What `do` gives, and what it took in this thread, as of one image."""
    began, computed = time.perf_counter(), time.thread_time()
    done = do(*given)
    computed = time.thread_time() - computed
    return done, Work(1, 0.0, time.perf_counter() - began, computed)
