"""Which found box belongs to which object, by the rule of the PASCAL VOC devkit (`VOCevaldet.m`).

A box looks at the object of its image and class that it overlaps most. From the threshold on that
object is found by the best-scored box that looks at it; further ones are duplicates. Boxes on
difficult objects, within a crowd, or of a class that the image is not exhaustively labelled for are
neither right nor wrong.

Everything is worked out for all images at once: a benchmark compares it with a loop over boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinue.evaluation import boxes
from retinue.evaluation.detections import Detections, Flags, Floats, Ints, best_first

NOBODY = -1
"""In an array of indices: there is none."""
_CHUNK = 1 << 20
"""So many pairs of a box and an object are looked at in one go."""
_LARGEST_INDEX = 1 << 22
"""Up to so many keys are looked up in a table of all."""


@dataclass(frozen=True, eq=False)
class Matches:
    """(d,) each, a value a found box."""

    object: Ints
    """The object of its image and class that it overlaps most, crowds aside; `NOBODY` where it
    overlaps none."""
    overlap: Floats
    """Its IoU with that."""
    right: Flags
    """It found that object."""
    ignored: Flags
    """It counts neither way."""


def match(of: Detections, iou: float = 0.5) -> Matches:
    """What each box of `of` did, an object being found from an IoU of `iou` on."""
    real, crowds = np.flatnonzero(~of.crowd), np.flatnonzero(of.crowd)
    place, overlap = nearest(of.keys, of.xyxy, of.true_keys[real], of.true_xyxy[real])
    found = np.full(len(place), NOBODY, dtype=np.int64)
    found[place >= 0] = real[place[place >= 0]]
    hit = overlap >= min(iou, 1 - 1e-10)  # as COCO's code: at 1, rounding must not lose a match
    hit &= found != NOBODY
    ignored = np.zeros(len(found), bool)
    ignored[hit] = of.difficult[found[hit]]
    right = np.zeros(len(found), bool)
    claims = np.flatnonzero(hit & ~ignored)
    claims = claims[best_first(of.score[claims])]
    right[claims[np.unique(found[claims], return_index=True)[1]]] = True
    rest = ~right & ~ignored
    if len(crowds):
        _, within = nearest(
            of.keys, of.xyxy, of.true_keys[crowds], of.true_xyxy[crowds], measure=boxes.covered
        )
        ignored |= rest & (within >= iou)
    if len(of.not_exhaustive):
        ignored |= rest & np.isin(of.keys, of.not_exhaustive)
    return Matches(found, overlap, right, ignored)


Measure = Callable[[Any, Any], Any]
"""Of boxes (n, 4) and (n, 4), pair by pair: (n,)."""


def nearest(
    keys: Ints, xyxy: Floats, true_keys: Ints, true_xyxy: Floats, *, measure: Measure = boxes.iou
) -> tuple[Ints, Floats]:
    """Which of the objects with its own key each box overlaps most, and by how much: (d,) indices,
    `NOBODY` where it overlaps none, and (d,) values of `measure`. Of equal ones the first."""
    found = np.full(len(keys), NOBODY, dtype=np.int64)
    most = np.zeros(len(keys))
    for box, thing in pairs(keys, true_keys):
        value = measure(xyxy[box], true_xyxy[thing])
        starts = np.flatnonzero(np.diff(box, prepend=-1))
        best = np.maximum.reduceat(value, starts)
        owner = box[starts]
        top = np.flatnonzero(value == np.repeat(best, np.diff(starts, append=len(box))))
        first = top[np.flatnonzero(np.diff(box[top], prepend=-1))]
        found[owner], most[owner] = np.where(best > 0, thing[first], NOBODY), best
    return found, most


def pairs(keys: Ints, true_keys: Ints) -> Iterator[tuple[Ints, Ints]]:
    """All pairs of a box and an object of equal keys, as indices (p,), ordered by the box, then by
    the object; those of one box are never apart."""
    order = np.argsort(true_keys, kind="stable")
    low, count = _places(true_keys[order], keys)
    ends = np.cumsum(count)
    start = 0
    while start < len(keys):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, side="right")))
        counts = count[start:stop]
        total = int(counts.sum())
        if total:
            box = np.repeat(np.arange(start, min(stop, len(keys))), counts)
            within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
            yield box, order[np.repeat(low[start:stop], counts) + within]
        start = stop


def _places(true_keys: Ints, keys: Ints) -> tuple[Ints, Ints]:
    """Where in the sorted `true_keys` those equal to each of `keys` (d,) begin, and how many there
    are."""
    if not len(keys) or not len(true_keys):
        return np.zeros_like(keys), np.zeros_like(keys)
    most = int(max(keys.max(), true_keys[-1])) + 1
    if most <= _LARGEST_INDEX:
        tally = np.bincount(true_keys, minlength=most)
        return (np.cumsum(tally) - tally)[keys], tally[keys]
    low = np.searchsorted(true_keys, keys, side="left")
    return low, np.searchsorted(true_keys, keys, side="right") - low
