"""One matrix for geometry: everything between a decoded image and the canvas composes to one warp.

Matrices are 3×3 homographies of column vectors (x, y, 1), x to the right and y down, in a plane
where pixel (row i, column j) covers j … j+1, i … i+1: pixel centres are at +½, and an image reaches
from 0, 0 to width, height. `b @ a` applies a first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from retinue.arrays import ImageSize, Matrix, Pixels, Polygon, Rectangle, Size

Colour = tuple[int, int, int]
Border = Literal["reflect", "fill"]


class Region(NamedTuple):
    """A rectangle of the canvas, in whole pixels."""

    x1: int
    y1: int
    x2: int
    y2: int


class Entry(NamedTuple):
    """A source image, where it lies on the canvas, and the part of the canvas that it may paint."""

    image: Pixels
    matrix: Matrix
    region: Region | Polygon | None = None
    opacity: float = 1.0
    """Its part in what is painted there, from 0 to 1; what lies below has the rest."""


class Paint(NamedTuple):
    """A part of the canvas (None: all of it) in one colour, RGB 0–255."""

    region: Region | Polygon | None
    colour: Colour | Pixels
    """Of each pixel of a region that is a rectangle, its own, too."""


def identity() -> Matrix:
    """Nothing changes."""
    return np.eye(3)


def translate(x: float, y: float) -> Matrix:
    """Moves by x, y pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def scale(x: float, y: float | None = None) -> Matrix:
    """Magnifies about the origin by x (and y, default: the same)."""
    return np.diag([x, x if y is None else y, 1.0])


def rotate(degrees: float) -> Matrix:
    """Rotates about the origin; positive turns x towards y, which is clockwise on the screen."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=np.float64)


def shear(degrees: float) -> Matrix:
    """Shifts rows sideways by y times the tangent of the angle."""
    return np.array([[1, math.tan(math.radians(degrees)), 0], [0, 1, 0], [0, 0, 1]])


def about(matrix: Matrix, x: float, y: float) -> Matrix:
    """`matrix` with x, y as its origin."""
    return translate(x, y) @ matrix @ translate(-x, -y)


def crop(box: Sequence[float], size: Size) -> Matrix:
    """Brings the box x1, y1, x2, y2 to the canvas of `size` (height, width)."""
    x1, y1, x2, y2 = box
    return scale(size[1] / (x2 - x1), size[0] / (y2 - y1)) @ translate(-x1, -y1)


# The eight EXIF orientations: how a stored pixel's x, y come from, in units of the stored width w
# and height h, to the upright image. A row for x: (from x, from y, offset w, offset h), one for y.
_ORIENTATIONS: dict[int, tuple[tuple[int, int, int, int], tuple[int, int, int, int]]] = {
    1: ((1, 0, 0, 0), (0, 1, 0, 0)),
    2: ((-1, 0, 1, 0), (0, 1, 0, 0)),
    3: ((-1, 0, 1, 0), (0, -1, 0, 1)),
    4: ((1, 0, 0, 0), (0, -1, 0, 1)),
    5: ((0, 1, 0, 0), (1, 0, 0, 0)),
    6: ((0, -1, 0, 1), (1, 0, 0, 0)),
    7: ((0, -1, 0, 1), (-1, 0, 1, 0)),
    8: ((0, 1, 0, 0), (-1, 0, 1, 0)),
}


def orient(orientation: int, size: ImageSize) -> Matrix:
    """From the stored image of `size` (width, height) to the upright one, by EXIF 1–8."""
    w, h = size
    (a, b, c, d), (e, f, g, i) = _ORIENTATIONS[orientation]
    return np.array([[a, b, c * w + d * h], [e, f, g * w + i * h], [0, 0, 1]], dtype=np.float64)


def dihedral(orientation: int, size: Size) -> Matrix:
    """Element 0–7 of the dihedral group on a canvas of `size` (height, width).

    `orientation & 3` clockwise quarter turns, after a horizontal flip if `orientation & 4`. Odd
    ones swap the canvas's sides.
    """
    exif = (1, 6, 3, 8, 2, 7, 4, 5)[orientation]
    return orient(exif, (size[1], size[0]))


def inverse(matrix: Matrix) -> Matrix:
    """The way back."""
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def apply(matrix: Matrix, points: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """(n, 2) points x, y through the matrix."""
    mapped = np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]
    result: npt.NDArray[np.float64] = mapped[:, :2] / mapped[:, 2:]
    return result


def boxes_through(matrix: Matrix, boxes: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """(n, 4) boxes x1, y1, x2, y2 through the matrix: the upright rectangles around the mapped
    corners."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    mapped = apply(matrix, corners).reshape(-1, 4, 2)
    return np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1).astype(np.float32)


def magnification(matrix: Matrix, x: float, y: float) -> tuple[float, float]:
    """How long a step to the right and a step down become, near the point x, y of the source."""
    u, v, w = matrix @ (x, y, 1.0)
    jacobian = (matrix[:2, :2] - np.outer((u / w, v / w), matrix[2, :2])) / w
    return math.hypot(*jacobian[:, 0]), math.hypot(*jacobian[:, 1])


def area(polygon: Polygon) -> float:
    """The area of a polygon; 0 for fewer than three corners."""
    return abs(_signed_area(polygon))


def _signed_area(polygon: Polygon) -> float:
    # Of a few corners: NumPy would take ten times as long.
    points: list[list[float]] = polygon.tolist()
    following = points[1:] + points[:1]
    return sum((x * v - y * u) / 2 for (x, y), (u, v) in zip(points, following, strict=True))


_APART = 1e-9


def clip(polygon: Polygon, size: Size) -> Polygon:
    """What of a convex polygon lies on the canvas of `size` (height, width); (0, 2) if nothing
    does."""
    return common(polygon, (0, 0, size[1], size[0]))


def common(polygon: Polygon, other: Rectangle | Polygon) -> Polygon:
    """What a convex polygon has in common with a rectangle or another convex polygon, (k, 2); (0,
    2) for nothing. Sutherland & Hodgman, 1974."""
    corners = [(float(x), float(y)) for x, y in polygon]
    for a, b, c in _sides(other):
        # Which side of the line each corner lies on, and how far from it, in some measure.
        depth = [a * x + b * y - c for x, y in corners]
        kept = []
        for k, here in enumerate(corners):
            before, d, e = corners[k - 1], depth[k - 1], depth[k]
            if (d < 0) != (e < 0):
                t = d / (d - e)
                x, y = (before[i] + t * (here[i] - before[i]) for i in (0, 1))
                kept.append((x if b else c / a, y if a else c / b))
            if e >= 0:
                kept.append(here)
        # Of two corners in one place, rounding alone would say where the side between them goes.
        corners = [p for k, p in enumerate(kept) if math.dist(p, kept[k - 1]) > _APART]
    return np.array(corners, dtype=np.float64).reshape(-1, 2)


def _sides(outline: Rectangle | Polygon) -> list[tuple[float, float, float]]:
    """a, b, c of each side: inside is where a · x + b · y ≥ c."""
    if not isinstance(outline, np.ndarray):
        x1, y1, x2, y2 = outline
        return [(1.0, 0.0, x1), (-1.0, 0.0, -x2), (0.0, 1.0, y1), (0.0, -1.0, -y2)]
    turn = _signed_area(outline)
    if turn == 0:
        return [(1.0, 0.0, math.inf)]
    walk: list[list[float]] = (outline if turn > 0 else outline[::-1]).tolist()
    sides = []
    for (x, y), (u, v) in zip(walk, walk[1:] + walk[:1], strict=True):
        if (x, y) != (u, v):
            sides.append((y - v, u - x, (u - x) * y - (v - y) * x))
    return sides


def corners(outline: Rectangle | Polygon) -> Polygon:
    """Of a rectangle, its four; of a polygon, its own."""
    if isinstance(outline, np.ndarray):
        return outline
    x1, y1, x2, y2 = outline
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)


def visible_area(polygon: Polygon, covered: Sequence[Rectangle | Polygon]) -> float:
    """The area of a convex polygon without what lies under any of `covered`."""
    left = area(polygon)
    if left == 0:
        return 0.0
    # What lies under several counts under the first of them.
    for k, cover in enumerate(covered):
        left -= visible_area(common(polygon, cover), covered[:k])
    return max(left, 0.0)


def bounds(region: Region | Polygon | None, size: Size) -> Region:
    """The least rectangle of whole pixels around the region, within the canvas of `size` (height,
    width); None: the whole canvas."""
    if region is None:
        return Region(0, 0, size[1], size[0])
    if not isinstance(region, np.ndarray):
        return region
    if not len(region):
        return Region(0, 0, 0, 0)
    x1, y1 = (max(math.floor(v), 0) for v in region.min(axis=0))
    x2, y2 = (math.ceil(v) for v in region.max(axis=0))
    return Region(x1, y1, min(x2, size[1]), min(y2, size[0]))


def upright(outline: Polygon, size: Size) -> Region | None:
    """What of the canvas an upright rectangle of whole pixels covers; None if it is none, or covers
    nothing."""
    (x1, y1), (x2, y2) = outline.min(axis=0).tolist(), outline.max(axis=0).tolist()
    rounded = Region(*map(round, (x1, y1, x2, y2)))
    whole = all(abs(a - b) < 1e-6 for a, b in zip((x1, y1, x2, y2), rounded, strict=True))
    if not (whole and math.isclose(area(outline), (x2 - x1) * (y2 - y1))):
        return None
    left, top, right, bottom = rounded
    region = Region(max(left, 0), max(top, 0), min(right, size[1]), min(bottom, size[0]))
    return region if region.x1 < region.x2 and region.y1 < region.y2 else None


def inside(polygon: Polygon, box: Region) -> npt.NDArray[np.bool_]:
    """bool (height, width) of `box`: the pixels whose centres a convex polygon contains.

    A centre on a side that two polygons share belongs to exactly one of them, so that polygons
    which tile the plane tile the pixels.
    """
    polygon = np.asarray(polygon, dtype=np.float64)
    turn = _signed_area(polygon)
    shape = (max(box.y2 - box.y1, 0), max(box.x2 - box.x1, 0))
    if turn == 0:
        return np.zeros(shape, dtype=np.bool_)
    if turn < 0:
        polygon = polygon[::-1]
    x, y = box.x1 + 0.5 + np.arange(shape[1]), box.y1 + 0.5 + np.arange(shape[0])
    mask = np.ones(shape, dtype=np.bool_)
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        # Both polygons look at the side from the same end, and so round the same way; what lies
        # on it goes to the one that walks along it in that direction.
        if np.array_equal(start, end):
            continue
        forward = tuple(start) < tuple(end)
        (ax, ay), (bx, by) = (start, end) if forward else (end, start)
        left, right = (bx - ax) * (y - ay)[:, None], (by - ay) * (x - ax)[None]
        mask &= left >= right if forward else left < right
    return mask


def render(
    entries: Sequence[Entry | Paint],
    size: Size,
    *,
    border: Border = "fill",
    fill: int = 114,
    smooth: bool = True,
    out: Pixels | None = None,
) -> Pixels:
    """The canvas, uint8 (height, width, 3) of `size` (height, width), with every entry painted on
    it in turn.

    Each source is resampled once, bilinearly (`smooth=False`: nearest); where it shrinks to less
    than half, it is area-averaged first and the averaging's scale composed into its matrix. Outside
    a source, within its region, lies its reflection or grey `fill`. A polygon is the pixels whose
    centres it contains. `out` receives the canvas.
    Where a region shows a box of whole source pixels, upright or mirrored, that box is resized,
    three times as fast: its outermost half pixel repeats the box's edge.
    """
    canvas = np.empty((*size, 3), dtype=np.uint8) if out is None else out
    whole = Region(0, 0, size[1], size[0])
    if not any(_hides_all(entry, whole) for entry in entries):
        canvas[...] = fill
    for entry in entries:
        region = whole if entry.region is None else entry.region
        box = bounds(region, size)
        if box.x2 <= box.x1 or box.y2 <= box.y1:
            continue
        target = canvas[box.y1 : box.y2, box.x1 : box.x2]
        mask = inside(region, box) if isinstance(region, np.ndarray) else None
        if isinstance(entry, Paint):
            target[... if mask is None else mask] = entry.colour
            continue
        image, matrix = entry.image, entry.matrix
        if region is not whole:
            matrix = translate(-box.x1, -box.y1) @ matrix
        over = mask is None and entry.opacity == 1
        painted = target if over else np.empty_like(target)
        if not (smooth and _resize(image, matrix, painted)):
            shown = (target.shape[0], target.shape[1])
            if smooth:
                image, matrix = _average_first(image, matrix, shown)
            if max(image.shape[:2]) > LONGEST:
                image, matrix = _shorter(image, matrix, shown)
            _warp(image, matrix, painted, border, fill, smooth)
        if entry.opacity < 1:
            rest = 1 - entry.opacity
            cv2.addWeighted(painted, entry.opacity, target, rest, 0, dst=painted)
        if mask is not None:
            _into(target, cv2.copyTo(painted, mask.view(np.uint8), target))
        else:
            _into(target, painted)
    return canvas


def _hides_all(entry: Entry | Paint, whole: Region) -> bool:
    if isinstance(entry, Entry) and entry.opacity < 1:
        return False
    region = entry.region
    return region is None or (not isinstance(region, np.ndarray) and region == whole)


def _resize(image: Pixels, matrix: Matrix, target: Pixels) -> bool:
    """Paints the target if it shows exactly a box of whole pixels; says whether it did."""
    if matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1]:
        return False
    height, width = target.shape[:2]
    ends = []
    for scaling, offset, shown, length in (
        (matrix[0, 0], matrix[0, 2], width, image.shape[1]),
        (matrix[1, 1], matrix[1, 2], height, image.shape[0]),
    ):
        low, high = sorted((-offset / scaling, (shown - offset) / scaling))
        start, end = round(low), round(high)
        if abs(low - start) > 1e-6 or abs(high - end) > 1e-6 or start < 0 or end > length:
            return False
        if not 0 < end - start < 3 * shown:
            return False
        ends.append((start, end))
    (left, right), (top, bottom) = ends
    part = image[top:bottom, left:right]
    # Bilinear sampling at half the size averages pairs of pixels: the fastest area average.
    half_w = -(-(right - left) // 2) if right - left >= 2 * width else right - left
    half_h = -(-(bottom - top) // 2) if bottom - top >= 2 * height else bottom - top
    if (half_h, half_w) != part.shape[:2]:
        part = np.asarray(cv2.resize(part, (half_w, half_h)), dtype=np.uint8)
    mirrored = (matrix[0, 0] < 0, matrix[1, 1] < 0)
    if not any(mirrored):
        _into(target, cv2.resize(part, (width, height), dst=target))
        return True
    how = {(True, False): 1, (False, True): 0, (True, True): -1}[mirrored]
    _into(target, cv2.flip(cv2.resize(part, (width, height)), how, dst=target))
    return True


def _into(target: Pixels, painted: Any) -> None:
    """OpenCV paints in place where it can, and answers with a new array where it cannot."""
    if painted is not target and not np.shares_memory(painted, target):
        target[...] = painted


_HALF = translate(-0.5, -0.5)
_BACK = translate(0.5, 0.5)


def _warp(
    image: Pixels, matrix: Matrix, target: Pixels, border: Border, fill: int, smooth: bool
) -> None:
    # OpenCV's coordinates have pixel centres at whole numbers.
    centred = _HALF @ matrix @ _BACK
    affine = matrix[2, 0] == 0 and matrix[2, 1] == 0
    warp = cv2.warpAffine if affine else cv2.warpPerspective
    painted = warp(
        image,
        centred[:2] / centred[2, 2] if affine else centred,
        (target.shape[1], target.shape[0]),
        dst=target,
        flags=cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REFLECT if border == "reflect" else cv2.BORDER_CONSTANT,
        borderValue=(fill, fill, fill),
    )
    _into(target, painted)


LONGEST = 32_766
"""The longest side that OpenCV warps, before its release 5."""


def _shorter(image: Pixels, matrix: Matrix, size: Size) -> tuple[Pixels, Matrix]:
    """The part of a very long image that the canvas of `size` shows, with its matrix; shrunk if
    that is still too long."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = boxes_through(inverse(matrix), np.array([[0, 0, size[1], size[0]]]))[
        0
    ].tolist()
    left, right = _span(x1, x2, width, 1)
    top, bottom = _span(y1, y2, height, 1)
    part = image[top:bottom, left:right]
    shape = (min(right - left, LONGEST), min(bottom - top, LONGEST))
    if shape != (right - left, bottom - top):
        part = np.asarray(cv2.resize(part, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    grow = translate(left, top) @ scale((right - left) / shape[0], (bottom - top) / shape[1])
    return part, matrix @ grow


def _average_first(image: Pixels, matrix: Matrix, size: Size) -> tuple[Pixels, Matrix]:
    """The part of the image that the canvas shows, shrunk by whole factors, with its matrix."""
    back = inverse(matrix)
    middle = apply(back, np.array([[size[1] / 2, size[0] / 2]]))[0]
    along_x, along_y = magnification(matrix, *middle)
    factor_x, factor_y = int(1 / max(along_x, 1e-9)), int(1 / max(along_y, 1e-9))
    height, width = image.shape[:2]
    factor_x, factor_y = min(factor_x, width), min(factor_y, height)
    if factor_x < 2 and factor_y < 2:
        return image, matrix
    factor_x, factor_y = max(factor_x, 1), max(factor_y, 1)
    canvas = np.array([[0, 0, size[1], size[0]]])
    x1, y1, x2, y2 = boxes_through(back, canvas)[0].tolist()
    left, right = _span(x1, x2, width, factor_x)
    top, bottom = _span(y1, y2, height, factor_y)
    part = image[top:bottom, left:right]
    shape = (max(round((right - left) / factor_x), 1), max(round((bottom - top) / factor_y), 1))
    small = np.asarray(cv2.resize(part, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    grow = translate(left, top) @ scale((right - left) / shape[0], (bottom - top) / shape[1])
    return small, matrix @ grow


def _span(low: float, high: float, length: int, factor: int) -> tuple[int, int]:
    """Whole pixels around low … high with a margin for the interpolation and for reflections, a
    multiple of `factor` where the image is long enough: averaging is fastest then."""
    margin = 2 * factor
    start, end = math.floor(low) - margin, math.ceil(high) + margin
    if start < 0:
        end = max(end, -start)
    if end > length:
        start = min(start, 2 * length - end)
    start, end = max(start, 0), min(end, length)
    start = min(start, length - 1)
    end = max(end, start + 1)
    wanted = -(-(end - start) // factor) * factor
    end = min(length, start + wanted)
    return max(0, end - wanted), end


def average(image: Pixels, factor: int) -> Pixels:
    """The image shrunk by a whole factor, sides rounded up, by averaging areas."""
    height, width = image.shape[:2]
    bottom, right = -height % factor, -width % factor
    if bottom or right:
        padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        image = np.asarray(padded, dtype=np.uint8)
    shape = (image.shape[1] // factor, image.shape[0] // factor)
    return np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
