"""Random erasing: a rectangle of an image is painted over (Zhong et al., "Random Erasing Data
Augmentation", 2017)."""

from __future__ import annotations

import math

import numpy as np

from retinue.data.geometry import Paint, Region
from retinue.data.options import ErasingOptions
from retinue.data.random import draw
from retinue.sample import Size

_TRIES = 10
"""So often a rectangle is drawn that does not fit; then none is."""


def erased(
    options: ErasingOptions,
    mean: tuple[float, float, float],
    *,
    seed: int,
    epoch: int,
    key: int,
    size: Size,
) -> list[Paint]:
    """What hides a part of a canvas of `size` (height, width), or nothing. Area and log aspect
    ratio are uniform, and so is the place. `mean`, of values between 0 and 1: what becomes 0 by
    normalisation."""
    height, width = size
    rng = draw(seed, epoch, key, "erasing")
    if rng.random() >= options.probability:
        return []
    low, high = (math.log(ratio) for ratio in options.ratio)
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*options.area)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w < width and 0 < h < height:
            x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            region = Region(x, y, x + w, y + h)
            if options.fill == "mean":
                red, green, blue = (round(value * 255) for value in mean)
                return [Paint(region, (red, green, blue))]
            return [Paint(region, rng.integers(0, 256, (h, w, 3), dtype=np.uint8))]
    return []
