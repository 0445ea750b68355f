"""Which picture boxes were drawn on: the upright one, or the one that is stored.

A photograph may be stored turned (EXIF). Some programs that boxes are drawn with bring it upright,
others do not; the size that they write beside the boxes tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from retinue.data import geometry
from retinue.data.dimensions import Dimensions, upright
from retinue.data.sources.box_rules import Numbers, Oddity, Positions


@dataclass(slots=True)
class Frames:
    """What is settled of `n` images."""

    drawn: Positions
    """(n, 2) width and height of the picture that its boxes are drawn on; 0: not known."""
    turn: npt.NDArray[np.int32]
    """(n,) EXIF's number of how that one is brought upright; 1: it is."""
    usable: npt.NDArray[np.bool_]
    """(n,) False where that cannot be told."""
    problems: list[str] = field(default_factory=list)
    oddities: list[Oddity] = field(default_factory=list)

    def size(self) -> Positions:
        """(n, 2) width and height of the upright pictures."""
        return np.where(self.turn[:, None] >= 5, self.drawn[:, ::-1], self.drawn)


def frames(
    claimed: Positions, found: Dimensions, place: Callable[[int], str], *, sized: bool = True
) -> Frames:
    """Of `n` images: (n, 2) the size that stands beside their boxes, 0 where none does, and what
    their files say. `place`: where each size stands. `sized`: whether one should stand there."""
    stored, standing = found[:, :2].astype(np.int64), upright(found).astype(np.int64)
    there, told, same, stays = (
        np.asarray(flags.all(axis=1))
        for flags in (found[:, :2] > 0, claimed > 0, claimed == standing, claimed == stored)
    )
    both = there & told & ~same
    as_stored, differs = both & stays, both & ~stays
    result = Frames(
        np.where(differs[:, None], 0, np.where(told[:, None], claimed, standing)),
        np.where(as_stored, found[:, 2], 1).astype(np.int32),
        ~differs,
    )
    result.problems = [
        f"{place(k)}: boxes for an image of {_size(claimed[k])} pixels, but it has"
        f" {_size(standing[k])}"
        for k in np.flatnonzero(differs).tolist()
    ]
    for what, detail, which in (
        ("images without a size beside their boxes", "the file's own is taken", there & ~told),
        (
            "photographs that are stored turned, with boxes as they are stored",
            "the boxes are turned with them",
            as_stored,
        ),
    ):
        if sized or which is as_stored:
            names = [place(k) for k in np.flatnonzero(which).tolist()]
            result.oddities += [Oddity(what, names, detail)] if names else []
    return result


def brought_upright(xyxy: Numbers, image: Positions, of: Frames) -> Numbers:
    """(m, 4) boxes of the images `image` (m,), in pixels of the upright ones."""
    moved = xyxy.copy()
    order = np.argsort(image, kind="stable")
    bounds = np.searchsorted(image[order], np.arange(len(of.turn) + 1))
    for k in np.flatnonzero(of.turn > 1).tolist():
        rows = order[bounds[k] : bounds[k + 1]]
        matrix = geometry.orient(int(of.turn[k]), (int(of.drawn[k, 0]), int(of.drawn[k, 1])))
        corners = geometry.apply(matrix, xyxy[rows].reshape(-1, 2)).reshape(-1, 2, 2)
        moved[rows] = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return moved


def _size(pair: Positions) -> str:
    return f"{pair[0]} × {pair[1]}"
