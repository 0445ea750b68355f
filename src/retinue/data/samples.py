"""The samples of a split, held by columns: each is made when it is asked for, and then stays the
same object."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from retinue.sample import Read, Sample, Target


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
        self._made: list[Sample | None] = [None] * len(names)

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, k: int) -> Sample: ...
    @overload
    def __getitem__(self, k: slice) -> list[Sample]: ...
    def __getitem__(self, k: int | slice) -> Sample | list[Sample]:
        if isinstance(k, slice):
            return [self[i] for i in range(len(self))[k]]
        made = self._made[k]
        if made is None:
            made = self._made[k] = self._sample(range(len(self))[k])
        return made

    def __iter__(self) -> Iterator[Sample]:
        return (self[k] for k in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _sample(self, k: int) -> Sample:
        name = os.fsdecode(self.names[k].as_py())
        file = None if self.files is None else self.files[k].as_py()
        known = int(self.target[k])
        return Sample(
            name if file is None else os.path.join(self.root, os.fsdecode(file)),
            read=None if self.read is None else self.read[k],
            target=None if known < 0 else self.targets[known],
            weight=1.0 if self.weight is None else float(self.weight[k]),
            name=name,
            shard="" if self.shard is None else self.shard[k],
        )
