"""What images and geometry are spelt with. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]
Size = tuple[int, int]
"""Height and width of a canvas, such as the network's input."""
ImageSize = tuple[int, int]
"""Width and height of an upright original."""
Rectangle = tuple[float, float, float, float]
"""x1, y1, x2, y2"""
Polygon = npt.NDArray[np.float64]
"""(k, 2) corners x, y of a convex polygon, either way round."""
Read = Callable[[], bytes | Pixels]
"""Gives an image: encoded bytes, or RGB uint8 of shape (height, width, 3). Called from several
threads. Raises OSError for what cannot be read."""
