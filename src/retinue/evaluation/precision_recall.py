"""Precision against recall of found boxes, and the figures that are read off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from retinue.evaluation.detections import Detections, Floats, Ints, best_first
from retinue.evaluation.matching import Matches

_MISSES_AT = np.logspace(-2, 0, 9)
"""False boxes an image at which a miss rate is read (Dollár et al., 2012)."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Of one class, or of all: what taking ever more boxes gives, the best first. Arrays are (n,),
    a value a box that counts."""

    score: Floats
    right: Ints
    """How many so far found an object."""
    wrong: Ints
    """How many so far did not."""
    objects: int
    """How many there are to be found."""

    @property
    def precision(self) -> Floats:
        """(n,)"""
        share: Floats = self.right / np.maximum(self.right + self.wrong, 1)
        return share

    @property
    def recall(self) -> Floats:
        """(n,)"""
        return self.right / max(self.objects, 1)

    @property
    def f1(self) -> Floats:
        """(n,)"""
        score: Floats = 2 * self.right / np.maximum(self.right + self.wrong + self.objects, 1)
        return score

    @property
    def ends(self) -> Ints:
        """Where a threshold can lie: after the last of each run of equal scores."""
        last = np.ones(len(self.score), bool)
        last[:-1] = self.score[1:] != self.score[:-1]
        return np.flatnonzero(last)


@dataclass(frozen=True)
class Point:
    """What one threshold gives."""

    threshold: float | None
    """None: nothing was found."""
    precision: float | None
    """None: no box is above it."""
    recall: float
    f1: float


def curves(of: Detections, matches: Matches) -> list[Curve]:
    """One a class."""
    rows = np.flatnonzero(~matches.ignored)
    order = rows[best_first(of.score[rows], of.of[rows])]
    bounds = np.searchsorted(of.of[order], np.arange(of.classes + 1))
    objects = of.objects.tolist()
    return [
        _curve(of, matches, order[low:high], objects[k])
        for k, (low, high) in enumerate(pairwise(bounds))
    ]


def pooled(of: Detections, matches: Matches) -> Curve:
    """Of the boxes of all classes that have objects, together."""
    objects = of.objects
    rows = np.flatnonzero(~matches.ignored & (objects[of.of] > 0))
    order = rows[best_first(of.score[rows])]
    return _curve(of, matches, order, int(objects.sum()))


def average_precision(curve: Curve) -> float | None:
    """The area under the curve, with the precision made monotonic (VOC 2010 and later, `VOCap.m`);
    None without objects."""
    if not curve.objects:
        return None
    recall = np.concatenate([[0.0], curve.recall, [1.0]])
    precision = np.concatenate([[0.0], curve.precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())


def average_precision_07(curve: Curve) -> float | None:
    """The mean of the best precision at a recall of 0, 0.1, … 1 or more (VOC 2007); None without
    objects."""
    if not curve.objects:
        return None
    envelope = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(curve.recall, _ELEVEN, side="left")].mean())


def _colon() -> Floats:
    """What MATLAB makes of 0:0.1:1, which counts from both ends: its 0.3 lies a rounding above
    3/10, so that a recall of just that does not reach it."""
    half = np.arange(6) * 0.1
    return np.concatenate([half, (1.0 - half[:5])[::-1]])


_ELEVEN = _colon()


def best_f1(curve: Curve) -> Point | None:
    """The threshold that gives the highest F1; None without objects. It lies halfway to the best
    box that is left out, so that a rounding changes nothing; of equally good ones the highest."""
    if not curve.objects:
        return None
    ends = curve.ends
    if not len(ends):
        return Point(None, None, 0.0, 0.0)
    k = int(ends[curve.f1[ends].argmax()])
    below = float(curve.score[k + 1]) if k + 1 < len(curve.score) else 0.0
    return _point(curve, k, (float(curve.score[k]) + below) / 2)


def at(curve: Curve, threshold: float) -> Point | None:
    """What boxes with a score of `threshold` or more give; None without objects."""
    if not curve.objects:
        return None
    k = int(np.searchsorted(-curve.score, -threshold, side="right")) - 1
    return _point(curve, k, threshold) if k >= 0 else Point(threshold, None, 0.0, 0.0)


def log_average_miss_rate(curve: Curve, images: int) -> float | None:
    """The geometric mean of the share of missed objects at 9 numbers of false boxes an image,
    evenly from 0.01 to 1 by their logarithm (Dollár et al., Pedestrian Detection, 2012); None
    without objects."""
    if not curve.objects or not images:
        return None
    ends = curve.ends
    alarms = np.concatenate([[-1.0], curve.wrong[ends] / images])
    missed = np.concatenate([[1.0], 1 - curve.recall[ends]])
    at_each = missed[np.searchsorted(alarms, _MISSES_AT, side="right") - 1]
    return float(np.exp(np.log(np.maximum(at_each, 1e-10)).mean()))


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are defined; None where none is."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _curve(of: Detections, matches: Matches, rows: Ints, objects: int) -> Curve:
    right = matches.right[rows]
    return Curve(of.score[rows], np.cumsum(right), np.cumsum(~right), objects)


def _point(curve: Curve, k: int, threshold: float) -> Point:
    return Point(threshold, float(curve.precision[k]), float(curve.recall[k]), float(curve.f1[k]))
