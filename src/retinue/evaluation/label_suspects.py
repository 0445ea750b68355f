"""Labels of boxes that look wrong, by what a trained detector says of them: objects that are not
labelled, boxes that fit loosely, classes that are swapped. A person has to look at each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from retinue.evaluation.boxes import iou
from retinue.evaluation.detection_errors import TOUCHES, Errors, Kind
from retinue.evaluation.detections import Detections, Ints, best_first
from retinue.evaluation.matching import NOBODY, nearest

_SURE = 0.5
"""A box has to score this much, however low the confidence is that boxes are taken from."""
_WELL = 0.7
"""From this IoU on a box of another class is on that very object."""
_LOOSE = 0.75
"""A label that a box which is right overlaps by less, where that is rare, may be loose."""
_RARE = 0.25
"""Where more than this share of the right boxes fit as badly, it is the boxes that are loose."""


@dataclass(frozen=True)
class Suspect:
    """One label, or the place where one lacks."""

    kind: Literal["missing", "loose", "swapped"]
    box: int
    """The found box that speaks against it, of the `Detections`."""
    object: int
    """The labelled object; `NOBODY` where it is missing."""
    strength: float
    """How much speaks for a mistake of the label, between 0 and 1: they are shown by it."""


def suspects(of: Detections, told: Errors) -> list[Suspect]:
    """The most suspicious first. `told`: the errors of the boxes that are taken."""
    found = [*_missing(of, told), *_swapped(of, told), *_loose(of, told)]
    return sorted(found, key=lambda one: (-one.strength, one.box))


def _missing(of: Detections, told: Errors) -> list[Suspect]:
    """Confident boxes that touch no object at all, crowds and difficult ones among them."""
    rows = np.flatnonzero((told.kind == Kind.BACKGROUND) & (of.score >= _SURE))
    _, share = nearest(of.image[rows], of.xyxy[rows], of.true_image, of.true_xyxy)
    alone = rows[share < TOUCHES]
    return [
        Suspect("missing", box, NOBODY, float(of.score[box]))
        for box in _one_each(of, alone).tolist()
    ]


def _swapped(of: Detections, told: Errors) -> list[Suspect]:
    """Confident boxes of another class, well on an object that no box of its own class finds."""
    rows = np.flatnonzero((told.kind == Kind.CLASS) & (of.score >= _SURE) & (told.overlap >= _WELL))
    rows = rows[~told.found[told.object[rows]]]
    rows = rows[np.unique(told.object[rows], return_index=True)[1]]
    strength = of.score[rows] * told.overlap[rows]
    return [
        Suspect("swapped", box, thing, value)
        for box, thing, value in zip(
            rows.tolist(), told.object[rows].tolist(), strength.tolist(), strict=True
        )
    ]


def _loose(of: Detections, told: Errors) -> list[Suspect]:
    """Confident boxes that are about an object of their class, where most others fit far better."""
    right = np.flatnonzero(told.kind == Kind.RIGHT)
    if not len(right) or (told.overlap[right] < _LOOSE).mean() > _RARE:
        return []
    near = np.flatnonzero((told.kind == Kind.LOCALISATION) & (told.overlap >= 2 * TOUCHES))
    near = near[~told.found[told.object[near]]]
    near = near[np.unique(told.object[near], return_index=True)[1]]
    rows = np.concatenate([right[told.overlap[right] < _LOOSE], near])
    rows = rows[of.score[rows] >= _SURE]
    strength = of.score[rows] * (1 - told.overlap[rows])
    return [
        Suspect("loose", box, thing, value)
        for box, thing, value in zip(
            rows.tolist(), told.object[rows].tolist(), strength.tolist(), strict=True
        )
    ]


def _one_each(of: Detections, rows: Ints) -> Ints:
    """Of `rows`, the best one where several lie on the same place of an image, whatever their
    classes."""
    kept: dict[int, list[int]] = {}
    for box in rows[best_first(of.score[rows])].tolist():
        same = kept.setdefault(int(of.image[box]), [])
        if not same or iou(of.xyxy[box], of.xyxy[same]).max() < 0.5:
            same.append(box)
    return np.array([box for boxes in kept.values() for box in boxes], dtype=np.int64)
