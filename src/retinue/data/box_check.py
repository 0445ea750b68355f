"""What `data check` tells of objects that are marked by boxes: how many of which class, how large
at the network's input, and what is remarkable about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.data.box_sizes import FINEST_STRIDE, LARGE, MAX_BOXES, SMALL
from retinue.data.sources.box_rules import Oddity
from retinue.data.sources.records import NONE, Records
from retinue.data.targets.boxes import Boxes
from retinue.text import counted

SIDE = 416
"""Pixels of the input that objects are measured at, where nothing else is asked for."""
_AREAS = {"small": SMALL**2, "medium": LARGE**2, "large": np.inf}
"""COCO's sizes, by areas in pixels of the images themselves."""
_SIDES = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a data set."""

    classes: dict[str, int] = field(default_factory=dict)
    """How many of each class, the commonest first."""
    areas: dict[str, int] = field(default_factory=dict)
    """How many are `small`, `medium` and `large`, as COCO has it: by pixels of the images."""
    sides: dict[str, int] = field(default_factory=dict)
    """How many have a mean side (√area) of so many pixels at the input: `< 8`, `8–16` …"""
    input_side: int = SIDE
    """Of the input that is meant."""
    without: int = 0
    """Images that show none."""
    difficult: int = 0
    crowds: int = 0

    @property
    def total(self) -> int:
        """All of them, regions of crowds among them."""
        return sum(self.classes.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "total": self.total,
            "classes": self.classes,
            "areas": self.areas,
            "input_side": self.input_side,
            "sides": self.sides,
            "images_without": self.without,
            "difficult": self.difficult,
            "crowds": self.crowds,
        }

    def rows(self) -> Iterator[tuple[str, int, str]]:
        """(what, count, detail) for a table."""
        kinds = [f"{name} {count:,}" for name, count in self.classes.items()]
        more = f", … {len(kinds) - 8} more" if len(kinds) > 8 else ""
        yield "objects", self.total, ", ".join(kinds[:8]) + more
        areas = ", ".join(f"{name} {count:,}" for name, count in self.areas.items())
        yield "sizes in the images", self.total, f"{areas} (32² and 96² pixels between them)"
        sides = ", ".join(f"{name}: {count:,}" for name, count in self.sides.items())
        yield f"sides at {self.input_side} pixels", self.total, sides
        if self.without:
            yield "images without objects", self.without, "they teach what is none"
        if self.difficult:
            yield "difficult objects", self.difficult, "not learnt, and no mistake to miss"
        if self.crowds:
            yield "crowds", self.crowds, "regions of many objects: not learnt, and no mistake"


def look_at_boxes(
    records: Records, sizes: npt.NDArray[np.int64], *, side: int = SIDE
) -> tuple[Objects, list[Oddity]]:
    """Of `n` images of `sizes` (n, 2), width and height; 0: not known. `side`: of a square input
    into which they are fitted as a whole."""
    known = [
        (k, target)
        for k, at in enumerate(records.target.tolist())
        if at != NONE and isinstance(target := records.targets[at], Boxes)
    ]
    counts = np.array([len(target.of) for _, target in known], np.int64)
    image = np.repeat(np.array([k for k, _ in known], np.int64), counts)
    empty = np.zeros((0, 4), np.float32)
    xyxy = np.concatenate([empty, *(target.xyxy for _, target in known)]).astype(np.float64)
    classes = Counter(str(name) for _, target in known for name in target.of)
    extent = xyxy[:, 2:] - xyxy[:, :2]
    area = extent.prod(axis=1)
    with np.errstate(divide="ignore"):
        scale = np.where(sizes.min(axis=1) > 0, side / sizes.max(axis=1, initial=1), np.nan)[image]
    shown = np.sqrt(area) * scale
    objects = Objects(
        classes=dict(sorted(classes.items(), key=lambda item: (-item[1], item[0]))),
        areas=_histogram(area, list(_AREAS.values()), list(_AREAS)),
        sides=_histogram(shown, [*_SIDES, np.inf], _names_of_sides()),
        input_side=side,
        without=int((counts == 0).sum()),
        difficult=sum(int(target.difficult.sum()) for _, target in known),
        crowds=sum(int(target.crowd.sum()) for _, target in known),
    )
    return objects, [
        *_too_small(records, image, extent.min(axis=1, initial=np.inf) * scale, side),
        *_crowded(records, [k for k, _ in known], counts),
    ]


def _names_of_sides() -> list[str]:
    between = [f"{low}–{high}" for low, high in pairwise(_SIDES)]
    return [f"< {_SIDES[0]}", *between, f"≥ {_SIDES[-1]}"]


def _histogram(
    values: npt.NDArray[np.float64], bounds: Sequence[float], names: Sequence[str]
) -> dict[str, int]:
    """How many lie below each bound and not below the one before."""
    place = np.searchsorted(bounds, values[np.isfinite(values)], side="right")
    counts = np.bincount(place, minlength=len(names))
    return dict(zip(names, counts[: len(names)].tolist(), strict=True))


def _too_small(
    records: Records,
    image: npt.NDArray[np.int64],
    least: npt.NDArray[np.float64],
    side: int,
) -> Iterator[Oddity]:
    small = np.flatnonzero(least < FINEST_STRIDE)
    images, counts = np.unique(image[small], return_counts=True)
    if not len(small):
        return
    names = [
        f"{records[k].key} ({count})"
        for k, count in zip(images.tolist(), counts.tolist(), strict=True)
    ]
    yield Oddity(
        "images with objects too small",
        names,
        f"{counted(len(small), 'object has', 'objects have')} a side below {FINEST_STRIDE} pixels"
        f" in an input of {side}, the stride of the finest predictions: expect to miss them,"
        " or take a larger input or tiles",
    )


def _crowded(
    records: Records, known: Sequence[int], counts: npt.NDArray[np.int64]
) -> Iterator[Oddity]:
    names = [
        f"{records[known[k]].key} ({counts[k]})"
        for k in np.flatnonzero(counts > MAX_BOXES).tolist()
    ]
    if names:
        yield Oddity(
            "images with many objects",
            names,
            f"more than {MAX_BOXES}, the most that are answered and judged unless"
            " task_options.max_boxes and .judged_boxes say otherwise",
        )
