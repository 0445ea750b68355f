"""Small rows of cached features, and child processes that write them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retinue.training.features import segments
from retinue.training.features.cache import FeatureCache, Space
from retinue.training.features.layouts import Layout

LAYOUT = Layout([("state", "float16", (3, 5)), ("size", "float64", (2,)), ("index", "int32", ())])
ROW = LAYOUT.dtype.itemsize
PLENTY = 10**9
linux = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")  # mostly zeros, also at the end


def values(*numbers: int) -> dict[str, npt.NDArray[Any]]:
    n = np.array(numbers)
    return {
        "state": (n[:, None, None] + np.arange(15).reshape(3, 5) / 16).astype(np.float16),
        "size": n[:, None] + np.array([0.25, 1 / 3]),
        "index": n.astype(np.int32),
    }


def put(space: Space, *numbers: int, capacity: int | None = None) -> None:
    with space.writer(capacity or len(numbers)) as writer:
        writer.append([key(n) for n in numbers], values(*numbers))


def there(space: Space, numbers: range) -> list[int]:
    """Which of `numbers` are found; what is found is as it was written."""
    rows = space.find_sound([key(n) for n in numbers])
    found = [n for n, row in zip(numbers, rows, strict=True) if row >= 0]
    if found:
        read = space.read(rows[rows >= 0])
        for name, expected in values(*found).items():
            np.testing.assert_array_equal(read[name], expected)
    return found


def file_of(space_folder: Path, kind: str, number: int = 0) -> Path:
    return sorted(space_folder.glob(f"*.{kind}"))[number]


def segment_bytes(cache: FeatureCache, name: str) -> int:
    """Of the first segment of a space."""
    return segments.size_of(segments.find_segments(cache.root / f"1-{name}")[0])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def forked(work: Callable[[], object]) -> int:
    """A child process that does `work` and ends with 0, or with 1 if that raises."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
