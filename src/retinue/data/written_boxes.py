"""Boxes as other tools' files have them: PASCAL VOC's XML, YOLO's rows, COCO's entries.

Text alone: nothing is read or written here. Boxes are x1, y1, x2, y2 in pixels of an image that
reaches from 0, 0 to width, height; they are written as they are, never rounded to whole pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from retinue.arrays import ImageSize
from retinue.text import utf8

DIGITS = 4
"""Of a pixel, in VOC's and COCO's files."""
_ROUNDING = 5e-3
"""Pixels that reading and writing may take off a side."""
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NOT_XML = {
    code: chr(code).encode("ascii", "backslashreplace").decode() if code > 255 else f"\\x{code:02x}"
    for code in (*range(9), 11, 12, *range(14, 32), 65534, 65535)
}
"""Characters that no XML file may have, and how they are written: names stay different ones."""


class Written(NamedTuple):
    """An object for VOC's XML."""

    name: str
    xyxy: Sequence[float]
    difficult: bool = False
    truncated: bool = False
    score: float | None = None
    """Of a prediction."""


def voc_xml(path: str, size: ImageSize, objects: Iterable[Written]) -> str:
    """The XML of the image at `path` (its last part is the `filename`) of `size` (width, height).

    As VOC has it, `xmin` and `xmax` are the first and the last pixel in the box, counted from 1: a
    box from the image's left border begins at 1. `score` is an element that VOC does not know and
    its readers pass over.
    """
    parts = path.replace("\\", "/").rsplit("/", 2)
    width, height = size
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<annotation>",
        f"  <folder>{_xml(parts[-2] if len(parts) > 1 else '')}</folder>",
        f"  <filename>{_xml(parts[-1])}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for one in objects:
        corners = "".join(
            f"<{side}>{plain(value)}</{side}>"
            for side, value in zip(_CORNERS, by_pixels(one.xyxy), strict=True)
        )
        lines += [
            "  <object>",
            f"    <name>{_xml(one.name)}</name>",
            "    <pose>Unspecified</pose>",
            f"    <truncated>{int(one.truncated)}</truncated>",
            f"    <difficult>{int(one.difficult)}</difficult>",
            *([] if one.score is None else [f"    <score>{one.score:.6f}</score>"]),
            f"    <bndbox>{corners}</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def by_pixels(xyxy: Sequence[float]) -> tuple[float, float, float, float]:
    """Corners as VOC has them: the first and the last pixel in the box, counted from 1."""
    x1, y1, x2, y2 = xyxy
    return x1 + 1, y1 + 1, x2, y2


def told_by_pixels(
    xyxy: npt.NDArray[np.float32] | npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """(k,) which boxes (k, 4) VOC's corners can tell: of one of a pixel or less the first pixel is
    the last, or lies behind it, which is read as no box, or as none that makes sense."""
    sides: npt.NDArray[np.float64] = (xyxy[:, 2:] - xyxy[:, :2]).astype(np.float64)
    return np.logical_and(sides[:, 0] > 1 + _ROUNDING, sides[:, 1] > 1 + _ROUNDING)


def yolo_row(of: int, xyxy: Sequence[float], size: ImageSize) -> str:
    """`class x y width height`: the middle and the sides as shares of the image of `size` (width,
    height), all within 0–1; with digits enough for a thousandth of a pixel in any image."""
    width, height = size
    x1, y1, x2, y2 = (
        min(max(value / side, 0.0), 1.0)
        for value, side in zip(xyxy, (width, height, width, height), strict=True)
    )
    shares = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    return " ".join([str(of), *(f"{share:.9f}" for share in shares)])


def coco_entry(
    number: int, image: Any, category: Any, xyxy: Sequence[float], *, score: float | None = None
) -> dict[str, Any]:
    """An entry of `annotations`; with a `score` also one of COCO's list of results. `image` and
    `category` are the file's own ids."""
    x1, y1, x2, y2 = (round(float(value), DIGITS) for value in xyxy)
    width, height = round(x2 - x1, DIGITS), round(y2 - y1, DIGITS)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, width, height],
        "area": round(width * height, DIGITS),
        "iscrowd": 0,
        **({} if score is None else {"score": round(float(score), 6)}),
    }


def plain(value: float) -> str:
    """A number without a needless fraction: `6`, `45.7`."""
    return f"{float(value):.{DIGITS}f}".rstrip("0").rstrip(".")


def _xml(text: str) -> str:
    return escape(utf8(text).translate(_NOT_XML))
