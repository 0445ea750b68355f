"""How an image is framed: what is shown of it, and where on the network's input."""

from __future__ import annotations

import math
from typing import NamedTuple

from retinue.data import geometry
from retinue.data.geometry import Region
from retinue.sample import ImageSize, Matrix, Preprocessing, Size


def eval_boxes(
    preprocessing: Preprocessing, size: ImageSize
) -> tuple[tuple[float, float, float, float], tuple[int, int, int, int]]:
    """What is shown of an upright image of `size` (width, height), and where on the input.

    The box `x1, y1, x2, y2` of the original, in fractions of pixels, and the rectangle
    `top, left, height, width` of the input that it fills. `crop` equals resizing the shorter side
    to size / crop_fraction and cutting out the middle in whole pixels, as torchvision and timm do.
    """
    width, height = size
    tall, wide = preprocessing.size
    if preprocessing.fit == "squash":
        return (0.0, 0.0, width, height), (0, 0, tall, wide)
    if preprocessing.fit == "letterbox":
        ratio = min(tall / height, wide / width)
        h, w = max(round(height * ratio), 1), max(round(width * ratio), 1)
        return (0.0, 0.0, width, height), ((tall - h) // 2, (wide - w) // 2, h, w)
    need_h, need_w = preprocessing.covered
    if need_h * width <= need_w * height:
        resized_w, resized_h = need_w, max(int(need_w * height / width), tall)
    else:
        resized_w, resized_h = max(int(need_h * width / height), wide), need_h
    left, top = round((resized_w - wide) / 2), round((resized_h - tall) / 2)
    x, y = width / resized_w, height / resized_h
    return (left * x, top * y, (left + wide) * x, (top + tall) * y), (0, 0, tall, wide)


def eval_matrix(preprocessing: Preprocessing, size: ImageSize) -> Matrix:
    """From an upright original of `size` (width, height) to the input, as `eval_boxes` says."""
    box, (top, left, tall, wide) = eval_boxes(preprocessing, size)
    return geometry.translate(left, top) @ geometry.crop(box, (tall, wide))


def fitted(
    preprocessing: Preprocessing,
    size: ImageSize,
    stretch: float,
    grow: float,
    place: tuple[float, float],
) -> tuple[Matrix, Region]:
    """The whole of an image of `size` (width, height), anywhere on the input or, where it is larger
    than that, any part of it: the matrix, and the rectangle of the input that it fills.

    Its aspect ratio, as evaluation shows it, is multiplied with `stretch`; it is `grow` times as
    large as it would have to be to just fit in; `place`: where it lies, from 0 (its left or upper
    edge at the input's; of a larger one the right or lower) to 1. On a square input that is what
    the published trainings of YOLOv3 do.
    """
    (width, height), (tall, wide) = size, preprocessing.size
    ratio = stretch * (wide / tall if preprocessing.fit == "squash" else width / height)
    w, h = grow * min(wide, tall * ratio), grow * min(tall, wide / ratio)
    across, along = _shown(place[0], w, wide), _shown(place[1], h, tall)
    box = width * across.start, height * along.start, width * across.end, height * along.end
    room = along.last - along.first, across.last - across.first
    matrix = geometry.crop(snapped(box, size, room), room)
    window = Region(across.first, along.first, across.last, along.last)
    return geometry.translate(window.x1, window.y1) @ matrix, window


class _Shown(NamedTuple):
    """What of an image's extent along an axis is shown, and where on the canvas."""

    start: float
    """Of the image, as a share of its extent."""
    end: float
    first: int
    """Pixels of the canvas."""
    last: int


def _shown(chance: float, length: float, room: int) -> _Shown:
    """Something of `length` pixels, anywhere within the room, or around it if it is longer."""
    begin = chance * (room - length)
    first = min(max(round(begin), 0), room - 1)
    last = min(max(round(begin + length), first + 1), room)
    if length <= room:  # all of it, on whole pixels
        return _Shown(0.0, 1.0, first, last)
    return _Shown(-begin / length, (room - begin) / length, 0, room)


def snapped(
    box: tuple[float, float, float, float], source: ImageSize, size: Size
) -> tuple[float, ...]:
    """The box with its sides on whole pixels, as they are after a JPEG's scaled decoding: less
    than a pixel of the canvas away, and `render` is faster for it."""
    x1, y1, x2, y2 = box
    room = min((x2 - x1) / size[1], (y2 - y1) / size[0])
    grid = next((g for g in (8, 4, 2) if room >= g), 1)
    left, top = (math.floor(v / grid) * grid for v in (x1, y1))
    right = min(max(round(x2 / grid) * grid, left + grid), source[0])
    bottom = min(max(round(y2 / grid) * grid, top + grid), source[1])
    return left, top, right, bottom
