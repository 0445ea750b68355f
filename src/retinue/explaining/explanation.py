"""What comes of explaining one answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retinue.data.geometry import identity
from retinue.errors import UsageError
from retinue.inference.heat import coloured
from retinue.inference.predictor import Heat
from retinue.sample import Pixels
from retinue.text import shorten


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where an image holds what speaks for a class."""

    heat: npt.NDArray[np.float32]
    """(height, width) of the upright image as it was given, or smaller where that was asked for,
    between 0 and 1: 0 where nothing speaks for the class, and where the network does not look. A
    `heatmap` holds scores; of other methods' maps the warmest cell is 1, or all are 0 where nothing
    at all speaks for the class."""
    target: str
    """The class; empty: whatever was found."""
    score: float
    """Of that class in the predictor's answer, between 0 and 1."""
    method: str
    """One of `METHODS`."""

    def __repr__(self) -> str:
        height, width = self.heat.shape
        name = shorten(self.target, 40) if self.target else "everything found"
        return (
            f"<Explanation of {name} {self.score:.1%} by {self.method}, {width} × {height} pixels>"
        )

    def overlay(self, image: Pixels) -> Pixels:
        """A copy of the `image` that was explained, RGB uint8 (height, width, 3), with the heat on
        it: blue where nothing is, red where most is; shrunk where it is very large. UsageError for
        an array of another shape."""
        wanted = (*self.heat.shape, 3)
        if image.shape != wanted or image.dtype != np.uint8:
            raise UsageError(
                f"the overlay needs the image that was explained, uint8 {wanted}; this one is "
                f"{image.dtype} {image.shape}",
                mend="of a file, `retinue.explaining.upright(path)` gives it",
            )
        return coloured(image, [Heat(self.heat, identity())])
