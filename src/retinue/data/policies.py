"""Augmentation policies that draw operations: RandAugment and TrivialAugment.

Both draw from the same fourteen operations with equal chances: nothing, shear and shift along
either axis, rotation, brightness, saturation, contrast, sharpness, posterize, solarize,
autocontrast, equalize. Geometry is composed with the rest of an image's one matrix; brightness,
saturation and contrast with the one matrix of its colours; the others come before that, on the
batch. So operations of one of these three kinds come in the order in which they were drawn, and the
kinds one after the other; nothing is rounded in between.

- RandAugment (Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced
  search space", 2020): N operations of one magnitude, 0–30.
- TrivialAugment (Müller & Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
  Augmentation", 2021): one operation, its magnitude uniform in 0–30, over the "wide" ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from retinue.data import geometry, tones
from retinue.data.options import RandAugmentOptions, TrivialAugmentOptions
from retinue.data.random import draw
from retinue.sample import Matrix, Size

LARGEST = 30
"""The greatest magnitude."""
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness",
    "saturation", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
AFFINE = ("brightness", "contrast", "saturation")
"""Those that the matrix of colours does."""
_SIGNED = frozenset(OPERATIONS[1:10])
"""Those that go either way, equally likely."""
Ranges = dict[str, Callable[[float, Size], float]]
Operation = Callable[[Tensor, Tensor], Tensor]
Amounts = npt.NDArray[np.float64]


def _up_to(most: float) -> Callable[[float, Size], float]:
    return lambda share, size: most * share


def _bits(fewest: int) -> Callable[[float, Size], float]:
    return lambda share, size: float(8 - np.rint((8 - fewest) * share))


def _threshold(share: float, size: Size) -> float:
    return 255 * (1 - share)


_RAND: Ranges = {
    **dict.fromkeys(("shear_x", "shear_y"), _up_to(0.3)),
    "translate_x": lambda share, size: 150 / 331 * share * size[1],
    "translate_y": lambda share, size: 150 / 331 * share * size[0],
    "rotate": _up_to(30.0),
    **dict.fromkeys((*AFFINE, "sharpness"), _up_to(0.9)),
    "posterize": _bits(4),
    "solarize": _threshold,
}
"""Operation → what a magnitude, as a share of the greatest, means on a canvas of (height, width):
tangents, pixels, degrees, changes of a factor, bits, a value."""
_WIDE: Ranges = {
    **dict.fromkeys(("shear_x", "shear_y"), _up_to(0.99)),
    **dict.fromkeys(("translate_x", "translate_y"), _up_to(32.0)),
    "rotate": _up_to(135.0),
    **dict.fromkeys((*AFFINE, "sharpness"), _up_to(0.99)),
    "posterize": _bits(2),
    "solarize": _threshold,
}


class Step(NamedTuple):
    """One operation on one image."""

    operation: str
    magnitude: int
    """0–30"""
    sign: int
    """1 or −1; of what goes one way only, 1."""


class Policy:
    """What is drawn for each image: keyed by the seed, the epoch and the image's key, so that
    whoever asks is told the same."""

    def __init__(self, options: RandAugmentOptions | TrivialAugmentOptions, seed: int) -> None:
        self.options = options
        self.seed = seed
        self._ranges = _RAND if isinstance(options, RandAugmentOptions) else _WIDE

    def drawn(self, key: int, epoch: int) -> list[Step]:
        """The operations on the image of `key`, in order."""
        rng = draw(self.seed, epoch, key, "policy")
        options = self.options
        count = options.operations if isinstance(options, RandAugmentOptions) else 1
        found = []
        for _ in range(count):
            operation = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
            magnitude, sign = int(rng.integers(LARGEST + 1)), 1 - 2 * int(rng.integers(2))
            if isinstance(options, RandAugmentOptions):
                magnitude = options.magnitude
            found.append(Step(operation, magnitude, sign if operation in _SIGNED else 1))
        return found

    def amount(self, step: Step, size: Size = (0, 0)) -> float:
        """In the operation's own measure, with its sign; 0 where it has none. `size`: of the
        canvas, for what is measured in pixels."""
        in_its_range = self._ranges.get(step.operation)
        return (
            0.0
            if in_its_range is None
            else step.sign * in_its_range(step.magnitude / LARGEST, size)
        )

    def matrix(self, key: int, epoch: int, size: Size) -> Matrix:
        """What the geometric ones do to a canvas of `size` (height, width): rotations about its
        middle, shears about its corner, as published."""
        matrix = geometry.identity()
        for step in self.drawn(key, epoch):
            amount = self.amount(step, size)
            if step.operation == "rotate":
                rotation = geometry.rotate(amount)
                matrix = geometry.about(rotation, size[1] / 2, size[0] / 2) @ matrix
            elif (place := _PLACES.get(step.operation)) is not None:
                move = geometry.identity()
                move[place] = amount
                matrix = move @ matrix
        return matrix

    def tones(self, drawn: Sequence[Sequence[Step]]) -> list[tuple[Operation, Amounts]]:
        """Of a batch's images what no matrix does, in the order in which it is to be done: an
        operation of `retinue.data.tones`, and float64 (m, 2) positions with an amount each."""
        found: list[tuple[Operation, Amounts]] = []
        for turn in range(max(map(len, drawn), default=0)):
            for name, operation in _TONES.items():
                rows = [
                    (k, self.amount(steps[turn]))
                    for k, steps in enumerate(drawn)
                    if turn < len(steps) and steps[turn].operation == name
                ]
                if rows:
                    found.append((operation, np.array(rows, dtype=np.float64)))
        return found

    def affine(self, steps: Sequence[Step]) -> list[tuple[str, float]]:
        """Those of `AFFINE`, with their amounts."""
        return [(s.operation, self.amount(s)) for s in steps if s.operation in AFFINE]


_PLACES = {"shear_x": (0, 1), "shear_y": (1, 0), "translate_x": (0, 2), "translate_y": (1, 2)}
"""Which number of a matrix each is."""
_TONES = {
    "sharpness": tones.sharpen,
    "posterize": tones.posterize_to,
    "solarize": tones.solarize_from,
    "autocontrast": tones.autocontrast,
    "equalize": tones.equalize,
}
