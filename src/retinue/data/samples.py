"""The samples of a split, held by columns: each is made when it is asked for, and stays the same
object, those of shards for as long as anybody has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from retinue.data.on_demand import Column
from retinue.sample import Read, Sample, Target

_CHUNK = 65_536
"""Samples that are made at a time."""


class Samples(Sequence[Sample]):
    """`n` samples.

    Args:
        names: `pyarrow.LargeBinaryArray` (n,): what each is called within its data set.
        targets: Every target that occurs, once or oftener.
        target: int64 (n,) positions in `targets`; −1: nothing is known of the image.
        root: The absolute folder that `files` start from.
        files: The same kind as `names`: each sample's file; null: it lies in none.
        weight: float64 (n,); None: 1 each.
        read: Where the images come from that lie in no file of their own.
        shard: The file that holds each image among others; None: none.
    """

    def __init__(
        self,
        names: Any,
        targets: Sequence[Target],
        target: npt.NDArray[np.int64],
        *,
        root: str = "",
        files: Any = None,
        weight: npt.NDArray[np.float64] | None = None,
        read: Sequence[Read | None] | None = None,
        shard: Sequence[str] | None = None,
    ) -> None:
        self.names = names
        self.targets = targets
        self.target = target
        self.root = root
        self.files = files
        self.weight = weight
        self.read = read
        self.shard = shard
        # Made anew they cost a few microseconds, kept half a kilobyte each, in every process: what
        # lies in shards may be many times as much as anybody keeps in files of their own.
        self._made: list[Sample | None] | WeakValueDictionary[int, Sample]
        self._known: Callable[[int], Sample | None]
        if isinstance(read, Column):
            self._made = WeakValueDictionary()
            self._known = self._made.get
        else:
            self._made = [None] * len(target)
            self._known = self._made.__getitem__

    def __len__(self) -> int:
        return len(self.target)

    @overload
    def __getitem__(self, k: int) -> Sample: ...
    @overload
    def __getitem__(self, k: slice) -> list[Sample]: ...
    def __getitem__(self, k: int | slice) -> Sample | list[Sample]:
        if isinstance(k, slice):
            start, stop, step = k.indices(len(self))
            if step == 1:
                return self._between(start, stop)
            return [self[i] for i in range(start, stop, step)]
        at = range(len(self))[k]
        made = self._known(at)
        return self._between(at, at + 1)[0] if made is None else made

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _between(self, start: int, stop: int) -> list[Sample]:
        """Those from `start` to `stop`."""
        names = self.names[start:stop].to_pylist()
        files = names if self.files is None else self.files[start:stop].to_pylist()
        known = self.target[start:stop].tolist()
        decode, made, made_before = os.fsdecode, self._made, self._known
        found = []
        for k, (name, file, target) in enumerate(zip(names, files, known, strict=True), start):
            sample = made_before(k)
            if sample is None:
                called = decode(name)
                alone = self.files is not None and file is not None
                sample = Sample(
                    os.path.join(self.root, decode(file)) if alone else called,
                    read=None if self.read is None else self.read[k],
                    target=None if target < 0 else self.targets[target],
                    weight=1.0 if self.weight is None else float(self.weight[k]),
                    name=called,
                    shard="" if self.shard is None else self.shard[k],
                )
                made[k] = sample
            found.append(sample)
        return found
