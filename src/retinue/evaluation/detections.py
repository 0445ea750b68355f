"""What was found in images, and what is there: an image at a time, and all in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    xyxy = _flat([f.xyxy for f in found], np.float64, 4)
    names = _checked(_flat([f.of for f in found], np.int64), classes)
    if not ((score[1:] <= score[:-1]) | (image[1:] != image[:-1])).all():
        order = np.lexsort((-score, image))
        score, xyxy, names = score[order], xyxy[order], names[order]
    true_xyxy = _flat([t.xyxy for t in truth], np.float64, 4)
    counts = [len(t.of) for t in truth]
    area = boxes.area(true_xyxy).astype(np.float64)
    if any(t.area is not None for t in truth):
        given = [np.full(n, np.nan) if t.area is None else t.area
                 for t, n in zip(truth, counts, strict=True)]  # fmt: skip
        known = _flat(given, np.float64)
        area = np.where(np.isnan(known), area, known)
    open_keys = [i * classes + k for i, t in enumerate(truth) for k in t.not_exhaustive]
    return Detections(
        images=len(found),
        classes=classes,
        xyxy=xyxy,
        score=score,
        of=names,
        image=image,
        true_xyxy=true_xyxy,
        true_of=_checked(_flat([t.of for t in truth], np.int64), classes),
        true_image=_image_of(counts),
        difficult=_all_flags([t.difficult for t in truth], counts),
        crowd=_all_flags([t.crowd for t in truth], counts),
        area=area,
        not_exhaustive=np.unique(np.array(open_keys, dtype=np.int64)),
    )


def best_first(score: Floats, group: Ints | None = None) -> Ints:
    """The order (n,) of falling scores, equal ones as they came; `group` (n,): within each group of
    equal numbers, which come one after the other.

    What a stable sort gives, in a fraction of its time: NumPy sorts by vector instructions only
    where equal ones may come in any order, and those are put right here.
    """
    if group is not None:
        # Of numbers of 16 bits NumPy's stable sort takes no comparisons.
        small = group.astype(np.uint16) if group.max(initial=0) < 1 << 16 else group
        by_group = np.argsort(small, kind="stable")
        bounds = np.flatnonzero(np.diff(group[by_group], prepend=-1, append=-1))
        parts = [by_group[low:high][best_first(score[by_group[low:high]])]
                 for low, high in pairwise(bounds.tolist())]  # fmt: skip
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    order = np.argsort(-score)
    fallen = score[order]
    same = fallen[1:] == fallen[:-1]
    if same.any():
        in_run = np.zeros(len(order), bool)
        in_run[1:] |= same
        in_run[:-1] |= same
        run = np.cumsum(np.append(True, ~same))[in_run]
        order[in_run] = order[in_run][np.lexsort((order[in_run], run))]
    return order


def _flat(parts: Sequence[Any], kind: Any, width: int = 0) -> Any:
    """All of `parts` one after the other, (n,) or (n, width)."""
    shape = (-1, width) if width else (-1,)
    if not parts:
        return np.zeros(0, dtype=kind).reshape(shape)
    # An empty one may have come without its second axis.
    dimensions = len(shape)
    there = [part if part.ndim == dimensions else part.reshape(shape)
             for part in map(np.asarray, parts)]  # fmt: skip
    return np.concatenate(there).astype(kind, copy=False)


def _image_of(lengths: Sequence[int]) -> Ints:
    return np.repeat(np.arange(len(lengths), dtype=np.int64), np.array(lengths, dtype=np.int64))


def _all_flags(given: Sequence[Flags | None], counts: Sequence[int]) -> Flags:
    if all(one is None for one in given):
        return np.zeros(sum(counts), bool)
    each = [np.zeros(n, bool) if one is None else one for one, n in zip(given, counts, strict=True)]
    flags: Flags = _flat(each, np.bool_)
    return flags


def _checked(of: Ints, classes: int) -> Ints:
    if len(of) and not 0 <= of.min() <= of.max() < classes:
        raise ValueError(f"class {of.min() if of.min() < 0 else of.max()}, of {classes} classes")
    return of
