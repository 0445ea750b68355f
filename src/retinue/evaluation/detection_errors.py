"""What goes wrong where boxes are taken from a confidence on: of what kind each mistake is, which
class was taken for which, and what it costs.

The kinds follow TIDE (Bolya et al., TIDE: A General Toolbox for Identifying Object Detection
Errors, 2020), with one change: a box that lies well on an object of another class is a mistake of
the class even if it also touches one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from retinue.evaluation.boxes import iou
from retinue.evaluation.classification import Confusion
from retinue.evaluation.detections import Detections, Flags, Floats, Ints, Numbers, best_first
from retinue.evaluation.matching import NOBODY, Matches, pairs
from retinue.evaluation.precision_recall import average_precision, curves, mean

TOUCHES = 0.1
"""IoU from which on a box is about an object at all."""


class Kind(IntEnum):
    """Of a found box."""

    RIGHT = 0
    LOCALISATION = 1
    """Of the object's class, but it fits too loosely (IoU from 0.1 to 0.5)."""
    CLASS = 2
    """On an object (IoU from 0.5 on) of another class."""
    BOTH = 3
    """It touches an object of another class (IoU from 0.1 to 0.5)."""
    DUPLICATE = 4
    """On an object that a better box found already."""
    BACKGROUND = 5
    """Where no object is."""
    IGNORED = 6
    """On a difficult object, in a crowd, or of a class that is not labelled exhaustively."""
    LEFT_OUT = 7
    """Below the confidence."""


MISTAKES = (Kind.LOCALISATION, Kind.CLASS, Kind.BOTH, Kind.DUPLICATE, Kind.BACKGROUND)


@dataclass(frozen=True, eq=False)
class Errors:
    """What became of each box and each object."""

    kind: Ints
    """(d,): a `Kind` a box."""
    object: Ints
    """(d,): the object that the kind speaks of; `NOBODY` where there is none."""
    overlap: Floats
    """(d,): IoU with that object."""
    found: Flags
    """(g,): by a box of its class that is taken."""
    missed: Flags
    """(g,): an object that counts, and no box that is taken is about it: neither right nor loose
    nor of another class."""

    def counts(self) -> dict[str, int]:
        """How many boxes of each kind of mistake, and how many objects are `missed`."""
        tally = np.bincount(self.kind, minlength=len(Kind))
        told = {kind.name.lower(): int(tally[kind]) for kind in MISTAKES}
        return told | {"missed": int(self.missed.sum())}


def taken(of: Detections, confidence: float | Sequence[float | None]) -> Flags:
    """(d,): the boxes that score `confidence` or more: a number, or one a class (None: no box)."""
    if isinstance(confidence, int | float):
        return of.score >= confidence
    least = np.array([np.inf if c is None else c for c in confidence], dtype=np.float64)
    return of.score >= least[of.of]


def errors(of: Detections, matches: Matches, chosen: Flags) -> Errors:
    """Of the boxes `chosen` (d,), the best first: see `taken`."""
    rows = np.flatnonzero(chosen)
    real = np.flatnonzero(~of.crowd)
    other, share = _nearest_of_other_classes(of, rows, real)
    kind = np.full(len(chosen), Kind.LEFT_OUT, dtype=np.int64)
    place = np.full(len(chosen), NOBODY, dtype=np.int64)
    overlap = np.zeros(len(chosen))
    own, own_share = matches.object[rows], matches.overlap[rows]
    right, ignored = matches.right[rows], matches.ignored[rows]
    on_own, on_other = own_share >= 0.5, share >= 0.5
    by_kind = {
        Kind.IGNORED: ignored,
        Kind.RIGHT: right,
        Kind.DUPLICATE: on_own,
        Kind.CLASS: on_other,
        Kind.LOCALISATION: own_share >= TOUCHES,
        Kind.BOTH: share >= TOUCHES,
    }
    kind[rows] = np.select(list(by_kind.values()), list(by_kind), Kind.BACKGROUND)
    about_other = np.isin(kind[rows], (Kind.CLASS, Kind.BOTH))
    about_own = np.isin(kind[rows], (Kind.RIGHT, Kind.DUPLICATE, Kind.LOCALISATION, Kind.IGNORED))
    place[rows] = np.where(about_other, other, np.where(about_own, own, NOBODY))
    overlap[rows] = np.where(about_other, share, np.where(about_own, own_share, 0.0))
    found = np.zeros(len(of.true_of), bool)
    found[place[kind == Kind.RIGHT]] = True
    spoken_of = found.copy()
    spoken_of[place[np.isin(kind, (Kind.LOCALISATION, Kind.CLASS))]] = True
    return Errors(kind, place, overlap, found, of.counted & ~spoken_of)


def confusion(of: Detections, matches: Matches, chosen: Flags) -> Confusion:
    """Which class was taken for which among the boxes `chosen` (d,); the index after the last class
    is the background: true background are false boxes, predicted background are missed objects.

    Each object has one box at most, and each box one object: first those that are right, then by
    overlap, from an IoU of 0.5 on.
    """
    background = of.classes
    counted = of.counted
    boxes = np.flatnonzero(chosen & ~matches.ignored & ~matches.right)
    right = np.flatnonzero(chosen & matches.right)
    free = counted.copy()
    free[matches.object[right]] = False
    true, predicted = [of.of[right]], [of.of[right]]
    left = np.flatnonzero(free)
    given, place = _one_to_one(of, boxes, left)
    true.append(of.true_of[place])
    predicted.append(of.of[given])
    free[place] = False
    false = np.setdiff1d(boxes, given)
    true.append(np.full(len(false), background))
    predicted.append(of.of[false])
    missed = of.true_of[free]
    true.append(missed)
    predicted.append(np.full(len(missed), background))
    cells, count = np.unique(
        np.stack([np.concatenate(true), np.concatenate(predicted)]), axis=1, return_counts=True
    )
    return Confusion(cells[0], cells[1], count.astype(np.int64))


def costs(of: Detections, matches: Matches, told: Errors) -> dict[str, float | None]:
    """For each kind of mistake, by how much VOC's average precision at IoU 0.5, the mean of the
    classes, would rise without it (TIDE, section 2.3): loose boxes fit, boxes of the wrong class
    have the right one (and go where the object is found already), duplicates and false boxes go,
    missed objects were never there. None without objects. `told`: of all boxes, or of those that
    are taken."""
    before = _mean_ap(of, matches)
    found: dict[str, float | None] = {}
    for kind in MISTAKES:
        rows = told.kind == kind
        after = _mean_ap(*_mended(of, matches, told, rows, kind)) if rows.any() else before
        found[kind.name.lower()] = None if before is None or after is None else after - before
    fewer = replace(of, difficult=of.difficult | told.missed)
    after = _mean_ap(fewer, matches) if told.missed.any() else before
    # With all objects of a class gone, it has no figure; what is left is compared.
    found["missed"] = None if before is None else (before if after is None else after) - before
    return found


def _mended(
    of: Detections, matches: Matches, told: Errors, rows: Flags, kind: Kind
) -> tuple[Detections, Matches]:
    """As if the boxes `rows` (d,), all of `kind`, had not been wrong that way."""
    if kind in (Kind.DUPLICATE, Kind.BACKGROUND, Kind.BOTH):
        return of, replace(matches, ignored=matches.ignored | rows)
    mended = np.flatnonzero(rows)
    mended = mended[best_first(of.score[mended])]
    things = told.object[mended]
    free = of.counted[things]
    free &= ~_found_by(matches, len(of.true_of))[things]
    first = np.zeros(len(mended), bool)
    first[np.unique(things, return_index=True)[1]] = True
    keep = mended[free & first]
    right, ignored, names = matches.right.copy(), matches.ignored | rows, of.of.copy()
    right[keep], ignored[keep] = True, False
    if kind == Kind.CLASS:
        names[keep] = of.true_of[told.object[keep]]
    place = matches.object.copy()
    place[keep] = told.object[keep]
    return replace(of, of=names), replace(matches, right=right, ignored=ignored, object=place)


def _found_by(matches: Matches, objects: int) -> Flags:
    found = np.zeros(objects, bool)
    found[matches.object[matches.right]] = True
    return found


def _mean_ap(of: Detections, matches: Matches) -> float | None:
    return mean([average_precision(curve) for curve in curves(of, matches)])


def _nearest_of_other_classes(of: Detections, rows: Ints, real: Ints) -> tuple[Ints, Floats]:
    """Of the boxes `rows` (r,): the object among `real` of the same image and another class that
    each overlaps most, and by how much."""
    found = np.full(len(rows), NOBODY, dtype=np.int64)
    most = np.zeros(len(rows))
    for box, thing in pairs(of.image[rows], of.true_image[real]):
        other = of.of[rows[box]] != of.true_of[real[thing]]
        box, thing = box[other], thing[other]
        value = iou(of.xyxy[rows[box]], of.true_xyxy[real[thing]])
        order = np.lexsort((-thing, value, box))
        last = np.append(np.diff(box[order]) > 0, True) if len(order) else np.zeros(0, bool)
        best = order[last]
        touching = best[value[best] > 0]
        found[box[touching]], most[box[touching]] = real[thing[touching]], value[touching]
    return found, most


def _one_to_one(of: Detections, boxes: Ints, things: Ints) -> tuple[Ints, Ints]:
    """Pairs of `boxes` and `things` of the same image, whatever their classes, the best overlap
    first, from 0.5 on: indices of the box and of the object."""
    near: list[tuple[Ints, Ints, Numbers]] = []
    for box, thing in pairs(of.image[boxes], of.true_image[things]):
        value = iou(of.xyxy[boxes[box]], of.true_xyxy[things[thing]])
        close = value >= 0.5
        near.append((boxes[box[close]], things[thing[close]], value[close]))
    if not near:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    box, thing, value = (np.concatenate(part) for part in zip(*near, strict=True))
    order = np.lexsort((thing, box, -value))
    gone: set[tuple[bool, int]] = set()
    given = []
    for row in order.tolist():  # few: those that lie well on an object that is not found
        one, other = (True, int(box[row])), (False, int(thing[row]))
        if one not in gone and other not in gone:
            gone |= {one, other}
            given.append(row)
    return box[given], thing[given]
