"""How evaluation frames an image: what is shown of it, and where on the network's input."""

from __future__ import annotations

from retinue.data import geometry
from retinue.sample import ImageSize, Matrix, Preprocessing


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
