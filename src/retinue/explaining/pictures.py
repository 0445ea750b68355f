"""Pictures side by side, each with what is said of it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from retinue.sample import Pixels
from retinue.tasks.lettering import fit

_TALL, _WIDE = 320, 480
"""Of a picture on a sheet at most, in pixels."""
_GAP, _LETTERS = 8, 15
GROUND, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)


def side_by_side(pictures: Sequence[Pixels], said: Sequence[Sequence[str]]) -> Pixels:
    """RGB uint8 `pictures` of one image, (height, width, 3) each, at one size in a row, with two
    lines below each."""
    tall, wide = _within(pictures[0])
    shown = [cv2.resize(one, (wide, tall), interpolation=cv2.INTER_AREA) for one in pictures]
    line = _LETTERS + 5
    sheet = Image.new(
        "RGB", (len(shown) * (wide + _GAP) + _GAP, tall + 2 * _GAP + 2 * line), GROUND
    )
    pen = ImageDraw.Draw(sheet)
    for number, (picture, lines) in enumerate(zip(shown, said, strict=True)):
        left = _GAP + number * (wide + _GAP)
        sheet.paste(Image.fromarray(picture), (left, _GAP))
        for place, (text, colour) in enumerate(zip(lines[:2], (INK, FAINT), strict=False)):
            told, font = fit(text, _LETTERS, wide)
            pen.text((left, tall + _GAP + 4 + place * line), told, fill=colour, font=font)
    return np.asarray(sheet, dtype=np.uint8).copy()


def _within(picture: Pixels) -> tuple[int, int]:
    """Height and width of it on a sheet."""
    height, width = picture.shape[:2]
    ratio = min(1.0, _TALL / height, _WIDE / width)
    return max(round(height * ratio), 1), max(round(width * ratio), 1)
