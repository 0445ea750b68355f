"""What a picture looks like, in numbers that a person has words for."""

from __future__ import annotations

import cv2
import numpy as np

from retinue.data.decode import Encoded, read_image
from retinue.sample import Pixels, Read

_SIDE = 256
"""Longer side, in pixels, at which all are measured: what is fine or coarse depends on it."""


def traits(key: str, read: Read | None = None) -> dict[str, float]:
    """Of an image: `brightness` and `contrast` (mean and standard deviation of the luma, 0–1),
    `colour` (mean of the largest less the smallest channel, 0–1), `warmth` (mean of red less blue,
    −1–1), `sharpness` (the logarithm, base 10, of the variance of its Laplacian in 8-bit levels),
    `megapixels` and `aspect` (width / height) of the original.

    Raises BadImageError for what is no image.
    """
    encoded = Encoded(read_image(key, read), path=key)
    width, height = encoded.size
    ratio = min(1.0, _SIDE / max(width, height))
    size = max(1, round(height * ratio)), max(1, round(width * ratio))
    # Turning an image by quarters changes none of this, so that it is left as it is stored.
    pixels = encoded.decode(at_least=size).image
    if max(pixels.shape[:2]) > _SIDE:
        share = _SIDE / max(pixels.shape[:2])
        small = max(1, round(pixels.shape[1] * share)), max(1, round(pixels.shape[0] * share))
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return {**_of_pixels(pixels), "megapixels": width * height / 1e6, "aspect": width / height}


def _of_pixels(pixels: Pixels) -> dict[str, float]:
    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    levels = pixels.reshape(-1, 3).astype(np.float32) / 255
    edges = cv2.Laplacian(luma, cv2.CV_32F)
    return {
        "brightness": float(luma.mean()) / 255,
        "contrast": float(luma.std()) / 255,
        "colour": float((levels.max(axis=1) - levels.min(axis=1)).mean()),
        "warmth": float((levels[:, 0] - levels[:, 2]).mean()),
        "sharpness": float(np.log10(edges.var() + 1.0)),
    }
