"""Evidence over an image, as colours on it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from retinue.data.geometry import scale, translate
from retinue.inference.predictor import Heat
from retinue.sample import ImageSize, Pixels

LONGEST = 4096
"""A larger picture is shrunk to this before it is coloured."""
_SHARE = 0.6
"""Of the colour, where the evidence is greatest."""


def warmth(heat: Sequence[Heat], size: ImageSize, shrunk: float = 1.0) -> npt.NDArray[np.float32]:
    """The greatest evidence that any view has for each pixel, float32 (height, width) between 0 and
    1, of an original of which a canvas of `size` (width, height) shows every pixel `shrunk` to that
    many."""
    total = np.zeros((size[1], size[0]), np.float32)
    for one in heat:
        # OpenCV's coordinates have pixel centres at whole numbers.
        matrix = translate(-0.5, -0.5) @ scale(shrunk) @ one.to_original @ translate(0.5, 0.5)
        how = matrix[:2] / matrix[2, 2]
        evidence = np.ascontiguousarray(one.evidence, np.float32)
        spread = cv2.warpAffine(evidence, how, size, flags=cv2.INTER_LINEAR,
                                borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        within = cv2.warpAffine(np.ones_like(evidence, np.uint8), how, size,
                                flags=cv2.INTER_NEAREST)  # fmt: skip
        np.maximum(total, np.where(within > 0, spread, 0), out=total)
    return total


def coloured(pixels: Pixels, heat: Sequence[Heat]) -> Pixels:
    """A copy of RGB uint8 (height, width, 3), blue and dark where nothing is, red where most
    is; shrunk where it is very large."""
    height, width = pixels.shape[:2]
    shrunk = min(1.0, LONGEST / max(height, width))
    size = (max(round(width * shrunk), 1), max(round(height * shrunk), 1))
    base: Pixels = pixels
    if shrunk != 1:
        base = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return painted(base, warmth(heat, size, shrunk))


def painted(base: Pixels, warm: npt.NDArray[np.float32]) -> Pixels:
    """The same of `warm`, (height, width) between 0 and 1, on RGB uint8 of that size."""
    levels = np.rint(np.clip(warm, 0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
    share = _SHARE * (0.4 + 0.6 * warm[..., None])
    return np.asarray(np.rint(base * (1 - share) + colours * share), np.uint8)
