"""What was found in images, and what is there: an image at a time, and all in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.evaluation import boxes

Numbers = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Found:
    """The boxes that were found in an image, after suppression, in any order."""

    xyxy: Numbers
    """float (k, 4): x1, y1, x2, y2 in pixels of the original."""
    score: Numbers
    """float (k,), between 0 and 1."""
    of: Ints
    """int64 (k,): the index of each one's class."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The objects of an image, as `retinue.data.targets.boxes.Boxes` knows them."""

    xyxy: Numbers
    """float (n, 4), in pixels of the original."""
    of: Ints
    """int64 (n,)"""
    difficult: Flags | None = None
    """(n,): those are no mistake to miss, and none to find (PASCAL VOC). None: none is."""
    crowd: Flags | None = None
    """(n,): regions of many objects, in which a box is no mistake (COCO). None: none is."""
    not_exhaustive: Sequence[int] = ()
    """Classes of which a box beyond the objects may be right (LVIS)."""
    area: Numbers | None = None
    """(n,) square pixels that tell small from large objects; None: the boxes' areas."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Of many images. The found boxes lie image by image, the best of each first; of equal scores
    in the order they came in."""

    images: int
    classes: int
    xyxy: Floats
    """(d, 4)"""
    score: Floats
    """(d,)"""
    of: Ints
    """(d,)"""
    image: Ints
    """(d,): which image each is in."""
    true_xyxy: Floats
    """(g, 4)"""
    true_of: Ints
    """(g,)"""
    true_image: Ints
    """(g,)"""
    difficult: Flags
    """(g,)"""
    crowd: Flags
    """(g,)"""
    area: Floats
    """(g,)"""
    not_exhaustive: Ints
    """(image × classes + class), sorted, of what is not labelled exhaustively."""

    @property
    def counted(self) -> Flags:
        """(g,): the objects that are to be found."""
        return ~(self.difficult | self.crowd)

    @property
    def objects(self) -> Ints:
        """(classes,): how many of each class are to be found."""
        return np.bincount(self.true_of[self.counted], minlength=self.classes).astype(np.int64)

    @property
    def keys(self) -> Ints:
        """(d,): the image and the class of each box in one number."""
        return self.image * self.classes + self.of

    @property
    def true_keys(self) -> Ints:
        """(g,): as `keys`, of the objects."""
        return self.true_image * self.classes + self.true_of


def gathered(found: Sequence[Found], truth: Sequence[Truth], classes: int) -> Detections:
    """`found` and `truth` of the same images, in the same order; `classes`: how many there are.

    Figures depend on the order of images only where scores are equal, as PASCAL's and COCO's do:
    sort the images by what stays the same.
    """
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} images were looked at, and {len(truth)} are known")
    score = _flat([f.score for f in found], np.float64)
    image = _image_of([len(f.score) for f in found])
    order = np.lexsort((-score, image))
    true_xyxy = _flat([t.xyxy for t in truth], np.float64, 4)
    areas = [boxes.area(np.asarray(t.xyxy, np.float64).reshape(-1, 4)) if t.area is None else t.area
             for t in truth]  # fmt: skip
    open_keys = [i * classes + k for i, t in enumerate(truth) for k in t.not_exhaustive]
    return Detections(
        images=len(found),
        classes=classes,
        xyxy=_flat([f.xyxy for f in found], np.float64, 4)[order],
        score=score[order],
        of=_checked(_flat([f.of for f in found], np.int64)[order], classes),
        image=image[order],
        true_xyxy=true_xyxy,
        true_of=_checked(_flat([t.of for t in truth], np.int64), classes),
        true_image=_image_of([len(t.of) for t in truth]),
        difficult=_flat([_flags(t.difficult, len(t.of)) for t in truth], np.bool_),
        crowd=_flat([_flags(t.crowd, len(t.of)) for t in truth], np.bool_),
        area=_flat(areas, np.float64),
        not_exhaustive=np.unique(np.array(open_keys, dtype=np.int64)),
    )


def _flat(parts: Sequence[Any], kind: Any, width: int = 0) -> Any:
    """All of `parts` one after the other, (n,) or (n, width)."""
    shape = (-1, width) if width else (-1,)
    there = [np.asarray(part, dtype=kind).reshape(shape) for part in parts]
    return np.concatenate(there) if there else np.zeros((0, width) if width else 0, dtype=kind)


def _image_of(lengths: Sequence[int]) -> Ints:
    return np.repeat(np.arange(len(lengths), dtype=np.int64), np.array(lengths, dtype=np.int64))


def _flags(given: Flags | None, count: int) -> Flags:
    return np.zeros(count, bool) if given is None else given


def _checked(of: Ints, classes: int) -> Ints:
    if len(of) and not 0 <= of.min() <= of.max() < classes:
        raise ValueError(f"class {of.min() if of.min() < 0 else of.max()}, of {classes} classes")
    return of
