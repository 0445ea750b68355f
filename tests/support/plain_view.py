"""A plain training view, one step after the other, straight from what the options say."""

from __future__ import annotations

import math

import numpy as np

from retinue.data import geometry
from retinue.data.framing import eval_matrix
from retinue.data.geometry import Matrix
from retinue.data.options import AugmentOptions
from retinue.data.random import draw
from retinue.sample import Preprocessing


def _cropped_box(
    options: AugmentOptions, source: tuple[int, int], size: tuple[int, int], seed: int, key: int
) -> tuple[float, ...]:
    """Straight from the definition: ten tries, else the middle; sides on whole pixels."""
    width, height = source
    rng = draw(seed, 3, key, "crop")
    low, high = (math.log(ratio) for ratio in options.crop_ratio)
    for _ in range(10):
        area = width * height * rng.uniform(*options.crop_scale)
        ratio = math.exp(rng.uniform(low, high))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w > width or h > height:
            continue
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        room = min((x + w - x) / size[1], (y + h - y) / size[0])
        grid = next((g for g in (8, 4, 2) if room >= g), 1)
        left, top = math.floor(x / grid) * grid, math.floor(y / grid) * grid
        right = min(max(round((x + w) / grid) * grid, left + grid), width)
        return left, top, right, min(max(round((y + h) / grid) * grid, top + grid), height)
    ratio = min(max(width / height, options.crop_ratio[0]), options.crop_ratio[1])
    w, h = min(width, height * ratio), min(height, width / ratio)
    return (width - w) / 2, (height - h) / 2, (width - w) / 2 + w, (height - h) / 2 + h


def training_view(
    options: AugmentOptions, preprocessing: Preprocessing, source: tuple[int, int], key: int
) -> Matrix:
    """The plain view of seed 5 and epoch 3, one step after the other."""
    height, width = preprocessing.size
    if options.crop_scale is None:
        matrix = eval_matrix(preprocessing, source)
    else:
        box = _cropped_box(options, source, preprocessing.size, 5, key)
        matrix = geometry.crop(box, preprocessing.size)
    rng = draw(5, 3, key, "pose")
    flips, turn = rng.random(2), int(rng.integers(4))
    angle, slant, right, down, zoom = rng.uniform(-1, 1, 5)
    pose = geometry.identity()
    if flips[0] < options.horizontal_flip:
        pose = geometry.scale(-1, 1) @ pose
    if flips[1] < options.vertical_flip:
        pose = geometry.scale(1, -1) @ pose
    if options.quarter_turns and turn:
        fit = (width / height, height / width) if turn % 2 else (1.0, 1.0)
        pose = geometry.scale(*fit) @ np.rint(geometry.rotate(90 * turn)) @ pose
    if options.shear:
        pose = geometry.shear(slant * options.shear) @ pose
    if options.rotation:
        pose = geometry.rotate(angle * options.rotation) @ pose
    if options.zoom is not None:
        low, high = (math.log(factor) for factor in options.zoom)
        pose = geometry.scale(math.exp((low + high + zoom * (high - low)) / 2)) @ pose
    shift = right * options.translate * width, down * options.translate * height
    centred = geometry.about(pose, width / 2, height / 2)
    return geometry.translate(*shift) @ centred @ matrix
