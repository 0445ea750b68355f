"""What an answer rests on, as a picture to lay over the one that was sent."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from retinue.errors import RetinueError, UsageError
from retinue.inference.predictor import Predictor
from retinue.sample import Batch
from retinue.serving.problems import Problem, bad

MOST_SIDE = 1024
"""Pixels: a map has a few dozen cells, and a larger picture tells no more."""


def explains(predictor: Predictor) -> bool:
    """Whether anything can be told of its answers."""
    from retinue.explaining.methods import chosen

    try:
        chosen(predictor, "auto")
    except RetinueError:
        return False
    return True


def overlay(predictor: Predictor, batch: Batch, target: str | None) -> tuple[bytes, dict[str, str]]:
    """A PNG to lay over the one image of `batch`, transparent where nothing speaks for the class
    `target` (None: the best one, or whatever was found); and headers that say what it is of. Raises
    `Problem`."""
    from retinue.explaining.methods import explain_batch

    try:
        told = explain_batch(predictor, batch, target=target, most_side=MOST_SIDE)
    except UsageError as error:
        raise bad("no_explanation", error.what, mend=error.mend or "") from error
    except RetinueError as error:
        raise Problem(500, "not_finite", error.what) from error
    return painted(told.heat), {
        "x-target": f"UTF-8''{quote(told.target, safe='')}",
        "x-score": f"{told.score:.6f}",
        "x-method": told.method,
    }


def painted(heat: Any) -> bytes:
    """`heat`, float (height, width) in 0…1, as a PNG from blue to red, the stronger the less
    transparent."""
    levels = np.rint(np.clip(np.nan_to_num(heat), 0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)
    opaque = np.rint(255 * np.sqrt(levels / 255.0)).astype(np.uint8)
    done, encoded = cv2.imencode(".png", np.dstack([colours, opaque]))
    assert done
    return encoded.tobytes()
