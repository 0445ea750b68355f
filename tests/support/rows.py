"""Samples, rows and views in a line each, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retinue.data.geometry import Matrix, Pixels
from retinue.data.views import Seen, View
from retinue.sample import BatchPlan, Row, Sample, Target


def sample_of(
    image: bytes | Pixels, key: str = "it", target: Target | None = None, weight: float = 1.0
) -> Sample:
    """A sample whose image is in memory."""
    return Sample(key, lambda: image, target, weight)


class Looked(NamedTuple):
    """A rendered row."""

    image: Pixels
    target: Target | None
    to_original: Matrix
    original_size: tuple[int, int]
    sizes: list[tuple[int, int]]
    """Of the upright originals of all the row's samples."""

    @property
    def seen(self) -> Seen:
        """What the view told beside the pixels."""
        return Seen(self.target, self.to_original, self.original_size)


def look(
    view: View, *samples: Sample, size: tuple[int, int], key: int = 0, epoch: int = 0
) -> Looked:
    """The row of `samples`, painted on a canvas of `size` (height, width)."""
    out = np.full((*size, 3), 251, np.uint8)
    seen, sizes = view.render(samples, key=key, epoch=epoch, size=size, out=out)
    return Looked(out, *seen, sizes)


def same(one: Seen, other: Seen) -> bool:
    """Whether two views tell the same, to the bit."""
    return (
        one.target == other.target
        and np.array_equal(one.to_original, other.to_original)
        and one.original_size == other.original_size
    )


def plan_of(
    samples: Sequence[Sample],
    positions: Sequence[int] | None = None,
    *,
    size: tuple[int, int] = (32, 32),
    epoch: int = 0,
) -> BatchPlan:
    """A batch of the samples at `positions` (all of them), each alone, keyed by its position and
    with its own weight."""
    chosen = range(len(samples)) if positions is None else positions
    rows = [Row(int(k), (samples[k],), samples[k].weight) for k in chosen]
    return BatchPlan(rows, size, epoch, sum(row.weight for row in rows))
