"""Boxes and their labels, drawn on a picture."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from retinue.tasks.lettering import fit
from retinue.tasks.results import Box

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

_FIRST: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Told apart by the colour-blind, too (Okabe and Ito, 2008)."""
_GOLDEN = 0.618034
"""Turns of the hue: ever further colours lie where the circle is emptiest."""
_SMALLEST = 8
"""Height of letters in pixels."""


@dataclass(frozen=True)
class Mark:
    """One box to be drawn."""

    xyxy: Sequence[float]
    """x1, y1, x2, y2 in pixels of the picture; what lies outside is not drawn."""
    text: str
    """Its label; empty: none."""
    colour: Colour


def colour_of(name: str, classes: Sequence[str] = ()) -> Colour:
    """RGB of a class: the same wherever it is drawn with these `classes`, neighbours far apart; of
    a name that is not among them, by its letters."""
    if name in classes:
        k = list(classes).index(name)
    else:
        k = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=2).digest())
    if k < len(_FIRST):
        return _FIRST[k]
    hue, light = (k * _GOLDEN) % 1, (0.5, 0.62, 0.4)[k % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, light, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(image: Pixels, boxes: Sequence[Box], classes: Sequence[str] = ()) -> Pixels:
    """A copy of the RGB uint8 `image` (height, width, 3) with `boxes`, which are in its pixels, on
    it: name, track and score of each, the best on top."""
    marks = [
        Mark(box.xyxy, _said(box), colour_of(box.name, classes))
        for box in sorted(boxes, key=lambda box: box.score)
    ]
    return draw_marks(image, marks)


def _said(box: Box) -> str:
    number = "" if box.track is None else f" #{box.track}"
    return f"{box.name}{number} {100 * box.score:.0f} %"


def draw_marks(image: Pixels, marks: Sequence[Mark]) -> Pixels:
    """A copy of the RGB uint8 `image` with `marks` on it, later ones over earlier ones. Lines and
    letters are as large as the picture asks for; a label lies inside it as a whole, whatever its
    box does."""
    picture = Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    line = line_width(picture.size)
    for mark in marks:
        _outline(pen, mark, picture.size, line)
    for mark in marks:  # after all boxes, so that no line crosses a label
        if mark.text:
            _label(pen, mark, picture.size, line)
    return np.asarray(picture, dtype=np.uint8).copy()


def line_width(size: tuple[int, int]) -> int:
    """In pixels, of a picture of `size` (width, height)."""
    return max(1, round(sum(size) * 0.0022))


def letter_size(size: tuple[int, int]) -> int:
    """The height of letters in pixels, for a picture of `size` (width, height)."""
    return max(_SMALLEST + 2, round(sum(size) * 0.0105))


def _outline(pen: ImageDraw.ImageDraw, mark: Mark, size: tuple[int, int], line: int) -> None:
    corners = _clipped(mark.xyxy, size)
    if corners is None:
        return
    x1, y1, x2, y2 = corners
    dark = tuple(part // 4 for part in mark.colour)
    # A thin dark line around it, for what is drawn on its own colour.
    around = (max(x1 - 1, 0), max(y1 - 1, 0), min(x2 + 1, size[0] - 1), min(y2 + 1, size[1] - 1))
    pen.rectangle(around, outline=dark, width=line + 1)
    pen.rectangle((x1, y1, x2, y2), outline=mark.colour, width=line)


def _clipped(xyxy: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The pixels that the box begins and ends with; None where it lies outside."""
    width, height = size
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0 or x2 < x1 or y2 < y1:
        return None
    left, top = max(round(x1), 0), max(round(y1), 0)
    left, top = min(left, width - 1), min(top, height - 1)
    # An image reaches from 0 to its width: the last pixel of a box is the one before its end.
    return left, top, max(min(round(x2), width) - 1, left), max(min(round(y2), height) - 1, top)


def _label(pen: ImageDraw.ImageDraw, mark: Mark, size: tuple[int, int], line: int) -> None:
    corners = _clipped(mark.xyxy, size)
    if corners is None:
        return
    letters = letter_size(size)
    pad = max(1, letters // 5)
    room = size[0] - 2 * pad
    text, font = fit(mark.text, letters, room)
    while text.endswith(("…", "...")) and letters > _SMALLEST:  # smaller, rather than cut off
        letters -= 1
        text, font = fit(mark.text, letters, room)
    left, top, right, bottom = font.getbbox(text)
    width, height = round(right - left) + 2 * pad, round(bottom - top) + 2 * pad
    x = min(corners[0], size[0] - width)
    y = corners[1] - height if corners[1] >= height else corners[1] + line
    x, y = max(x, 0), max(min(y, size[1] - height), 0)
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=mark.colour)
    pen.text((x + pad - left, y + pad - top), text, fill=_on(mark.colour), font=font)


def _on(colour: Colour) -> Colour:
    """Black or white, whichever is read better on `colour` (WCAG 2's relative luminance)."""
    red, green, blue = ((part / 255) ** 2.2 for part in colour)
    bright = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if (bright + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)
