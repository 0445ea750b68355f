"""What becomes of the boxes that a data set has: the one decision, for training and `data check`.

A box is used as it is; or clipped to its image; or left out, and said so, because nothing is lost
with it; or it is a problem, which stops a training unless `on_bad_image` is `skip`:

- A corner that is no number, a box that is inverted, or that lies wholly outside its image: a
  problem. Nobody can know what was meant, and without it its object would be taught as background.
- One that reaches beyond its image: clipped.
- One without any width or height, which is a click and no box: left out.
- The same box of the same class once more in an image: left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from retinue.errors import some
from retinue.text import counted

Numbers = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

Place = Callable[[int], str]
"""Where a box stands, for a message: file and line, or number."""
FirstPixel = Literal[0, 1]
"""What the first pixel of a row or column is called, where boxes are said by the pixels in them."""
LARGEST = 1e7
"""A coordinate beyond is none that anyone means."""
_SHOWN = 5
_MIXING = np.array(
    (
        *(0x9E3779B97F4A7C1, 0x2545F4914F6CDD1D, 0x5851F42D4C957F2D),
        *(0x369DEA0F31A53F85, 0x27BB2EE687B0B0FD, 0x106689D45497FDB5),
    ),
    np.int64,
)
_LEAST = 1e-3
"""Pixels of width or height below which there is none: they are a number's rounding."""
_SAID = 0.01
"""Pixels that a box may reach beyond its image without a word: a number's rounding."""


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that is remarkable about boxes: for a training's notes and for `data check`."""

    what: str
    items: list[str]
    detail: str
    """What it means, or what is done with it."""
    quiet: bool = False
    """Whether only `data check` tells it: nothing is changed by it."""

    def note(self) -> str:
        """As a line."""
        return f"{self.what}: {len(self.items):,}, {self.detail}: {some(self.items, _SHOWN)}"


@dataclass(slots=True)
class Judged:
    """What came of boxes."""

    xyxy: Numbers
    """(n, 4) corners in pixels of the upright images, an image reaching from 0, 0 to its size."""
    kept: Flags
    """(n,) those that are used."""
    problems: list[str] = field(default_factory=list)
    oddities: list[Oddity] = field(default_factory=list)


def judge(
    xyxy: Numbers,
    image: Positions,
    of: Positions,
    size: Positions,
    place: Place,
    *,
    first_pixel: FirstPixel = 0,
    crowd: Flags | None = None,
) -> Judged:
    """Of `n` boxes.

    Args:
        xyxy: (n, 4) corners as the data has them.
        image: (n,) the image of each.
        of: (n,) the class of each, by number.
        size: (images, 2) width and height; 0: not known.
        place: Where each stands.
        first_pixel: 1: corners name the first and the last pixel in the box, counted from 1, as
            PASCAL VOC has them (its development kit's areas have +1); 0: they are places.
        crowd: (n,) regions of many objects; the same region twice is not looked for.
    """
    found = Judged(xyxy.copy(), np.ones(len(xyxy), bool))
    width, height = (xyxy[:, 2 + k] - xyxy[:, k] for k in (0, 1))
    with np.errstate(invalid="ignore"):
        absurd = np.logical_not((np.abs(xyxy) <= LARGEST).all(axis=1))
        inverted: Flags = np.logical_and(~absurd, (width < 0) | (height < 0))
        empty: Flags = ~absurd & ~inverted & ((width < _LEAST) | (height < _LEAST))
    _refuse(found, absurd, place, lambda k: f"a box at {_said(xyxy[k])}, which is no place")
    _refuse(
        found, inverted, place, lambda k: f"an inverted box, {_said(xyxy[k])} as x1, y1, x2, y2"
    )
    _leave_out(found, empty, place, "boxes without area", "left out")
    if first_pixel == 1:
        found.xyxy[:, :2] -= 1
    sides = size[image].astype(np.float64)
    known = (sides > 0).all(axis=1) & found.kept
    low, high = found.xyxy[:, :2], found.xyxy[:, 2:]
    outside = known & ((high <= 0) | (low >= sides)).any(axis=1)
    _refuse(
        found,
        outside,
        place,
        lambda k: (
            f"a box outside its image of {sides[k, 0]:g} × {sides[k, 1]:g} pixels,"
            f" {_said(found.xyxy[k])}"
        ),
    )
    known &= found.kept
    over = np.maximum(-low, high - sides).max(axis=1, initial=0)
    beyond = known & (over > 0)
    said = np.flatnonzero(beyond & (over > _SAID)).tolist()
    names = [f"{place(k)} (by {over[k]:.3g} px)" for k in said]
    if names:
        found.oddities.append(Oddity("boxes that reach beyond their image", names, "clipped"))
    low[beyond] = np.clip(low[beyond], 0, sides[beyond])
    high[beyond] = np.clip(high[beyond], 0, sides[beyond])
    again = _again(found, image, of, crowd)
    _leave_out(found, again, place, "boxes that stand there twice", "one of each is left out")
    thin = found.kept & (np.minimum(width, height) <= 1)
    names = [place(k) for k in np.flatnonzero(thin).tolist()]
    if names:
        what = "boxes of one pixel or less"
        found.oddities.append(Oddity(what, names, "used, and hardly to be found", quiet=True))
    return found


def first_pixel_of(xyxy: Numbers) -> tuple[FirstPixel, str]:
    """How pixels are counted in data of PASCAL VOC's kind, which does not say; and a word on it
    where that is not clear.

    Boxes at the border tell: where it is counted from 1, none begins at 0. Programs that count from
    0 write as many zeros as others write ones.
    """
    zeros, ones = (int((xyxy[:, :2] == value).any(axis=1).sum()) for value in (0, 1))
    if zeros == 0:
        return 1, ""
    told = f"{counted(zeros, 'box begins', 'boxes begin')} at 0 and {ones:,} at 1"
    taken: FirstPixel = 0 if zeros > ones else 1
    said = "counted from 0" if taken == 0 else "counted from 1"
    return taken, f"{told}: taken to be {said}"


def _again(found: Judged, image: Positions, of: Positions, crowd: Flags | None) -> Flags:
    """(n,) the boxes that are the same as an earlier one of their image."""
    kept = found.kept if crowd is None else found.kept & ~crowd
    at = np.flatnonzero(kept)
    again = np.zeros(len(found.kept), bool)
    if len(at):
        rows = np.column_stack([image[at], of[at], found.xyxy[at] + 0.0])  # −0 is 0
        # By one number each, which is the same for few others; then to the letter.
        with np.errstate(over="ignore"):
            mixed = (rows.view(np.int64) * _MIXING).sum(axis=1)
        mixed ^= mixed >> 29
        alike = np.sort(mixed)
        alike = np.unique(alike[1:][alike[1:] == alike[:-1]])
        few = np.flatnonzero(np.isin(mixed, alike))
        order = few[np.lexsort(rows[few].T[::-1])]
        same = (rows[order[1:]] == rows[order[:-1]]).all(axis=1)
        again[at[order[1:][same]]] = True
    return again


def _refuse(found: Judged, which: Flags, place: Place, what: Callable[[int], str]) -> None:
    found.problems += [f"{place(k)}: {what(k)}" for k in np.flatnonzero(which).tolist()]
    found.kept &= ~which


def _leave_out(found: Judged, which: Flags, place: Place, what: str, how: str) -> None:
    names = [place(k) for k in np.flatnonzero(which).tolist()]
    if names:
        found.oddities.append(Oddity(what, names, how))
    found.kept &= ~which


def _said(box: Numbers) -> str:
    return ", ".join(f"{value:g}" for value in box)
