"""Boxes as arrays: areas and overlaps. Corners x1, y1, x2, y2 in pixels, never rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.floating[Any]]


def area(boxes: Numbers) -> Numbers:
    """Of `boxes` (…, 4), in square pixels: (…). A box whose corners are the wrong way round has
    none."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    areas: Numbers = np.maximum(width, 0) * np.maximum(height, 0)
    return areas


def intersection(first: Numbers, second: Numbers) -> Numbers:
    """The area that `first` (…, 4) and `second` (…, 4), broadcast against each other, share."""
    low_x = np.maximum(first[..., 0], second[..., 0])
    low_y = np.maximum(first[..., 1], second[..., 1])
    width = np.minimum(first[..., 2], second[..., 2]) - low_x
    height = np.minimum(first[..., 3], second[..., 3]) - low_y
    shared: Numbers = np.maximum(width, 0) * np.maximum(height, 0)
    return shared


def iou(first: Numbers, second: Numbers) -> Numbers:
    """Intersection over union of `first` (…, 4) and `second` (…, 4), broadcast against each other;
    0 for two boxes without an area."""
    common = intersection(first, second)
    return _share(common, area(first) + area(second) - common)


def iou_matrix(first: Numbers, second: Numbers) -> Numbers:
    """Intersection over union of each of `first` (n, 4) with each of `second` (m, 4): (n, m), in
    the wider type of the two; 0 for two boxes without an area.

        >>> iou_matrix(np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 2], [1, 0, 3, 2]]))
        array([[1.        , 0.33333333]])
    """
    return iou(first[:, None], second[None, :])


def covered(inner: Numbers, outer: Numbers) -> Numbers:
    """How much of `inner` (…, 4) lies within `outer` (…, 4), broadcast against each other: shares
    of the inner's own area, COCO's measure for crowds; 0 for a box without an area."""
    return _share(intersection(inner, outer), area(inner))


def covered_matrix(first: Numbers, second: Numbers) -> Numbers:
    """How much of each of `first` (n, 4) lies within each of `second` (m, 4): (n, m), as
    `covered`."""
    return covered(first[:, None], second[None, :])


def _share(part: Numbers, whole: Numbers) -> Numbers:
    """`part` / `whole`, at most 1, and 0 where there is no whole."""
    divisible = np.where(whole > 0, whole, 1)
    shares: Numbers = np.where(whole > 0, np.minimum(part / divisible, 1), 0)
    return shares
