"""The input's size, batch by batch, for training at several scales."""

from __future__ import annotations

from collections.abc import Sequence

from retinue.data.options import SideRange
from retinue.data.random import draw


class SizePlan:
    """A square size for every batch, each of `sides` equally likely, keyed by seed, epoch and the
    batch's number in its epoch. Raises ValueError if there are no sides."""

    def __init__(self, sides: Sequence[int] | SideRange, seed: int) -> None:
        if isinstance(sides, SideRange):
            sides = range(sides.min, sides.max + 1, sides.step)
        if not sides or min(sides) < 1:
            raise ValueError(f"the input's sides must be positive numbers, got {list(sides)}")
        self.sides = tuple(sides)
        self.seed = seed

    def size(self, epoch: int, batch: int) -> tuple[int, int]:
        """Height and width of the batch's images."""
        rng = draw(self.seed, epoch, batch, "input size")
        side = self.sides[int(rng.integers(len(self.sides)))]
        return side, side
