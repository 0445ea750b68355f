"""Pixels to what networks take, by NumPy and OpenCV alone, image by image."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from retinue.sample import Pixels, Preprocessing

Floats = npt.NDArray[np.float32]


class Constants(NamedTuple):
    """Normalisation's scale and shift, and what 0 and 1 become under it; float32 (width × 3,) each:
    one value a number of a row, as broadcasting over a last axis of 3 defeats vector units."""

    scale: Floats
    shift: Floats
    floor: Floats
    ceiling: Floats


def constants(mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64], width: int) -> Constants:
    """Those for rows of `width` pixels."""
    low, high = -mean / std, (1 - mean) / std
    each = (np.tile(v, width).astype(np.float32) for v in (1 / (255 * std), low, low, high))
    return Constants(*each)


def one_by_one(
    rows: Pixels,
    by: Constants,
    matrix_of: Callable[[int, Floats], npt.NDArray[np.float64] | None] | None = None,
) -> Floats:
    """uint8 (n, height, width, 3) to float32 of that shape, normalised.

    Image by image, so that what is in between stays in the cache, and by NumPy and OpenCV: torch's
    threads would wait for each other at every image, for long where loader threads are busy.
    OpenCV's contraction is five times as fast as a matrix product with a side of 3.

    `matrix_of`: of a position and its pixels, float32 (height, width, 3) from 0 to 255, which it
    may change; (3, 4) in place of the normalisation, or None: nothing but that.
    """
    n, height, width, _ = rows.shape
    out = np.empty((n, height, width * 3), np.float32)
    pixels = np.empty((height, width, 3), np.float32)
    for k, (source, target) in enumerate(zip(rows, out, strict=True)):
        np.copyto(pixels, source)
        matrix = None if matrix_of is None else matrix_of(k, pixels)
        if matrix is None:
            np.multiply(pixels.reshape(height, width * 3), by.scale, out=target)
            np.add(target, by.shift, out=target)
        else:
            cv2.transform(pixels, matrix.astype(np.float32), dst=target.reshape(height, width, 3))
            np.maximum(target, by.floor, out=target)  # `np.clip` takes three times as long
            np.minimum(target, by.ceiling, out=target)
    return out.reshape(n, height, width, 3)


class Normalising:
    """Batches of images as arrays, as `retinue.data.colour.Colour` does it for tensors."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._mean, self._std = np.array(preprocessing.mean), np.array(preprocessing.std)
        self._constants: dict[int, Constants] = {}

    def __call__(self, images: Pixels) -> Floats:
        """uint8 (n, 3, height, width) to float32, normalised; both in channels-last memory."""
        width = images.shape[3]
        if width not in self._constants:
            self._constants[width] = constants(self._mean, self._std, width)
        rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return one_by_one(rows, self._constants[width]).transpose(0, 3, 1, 2)
