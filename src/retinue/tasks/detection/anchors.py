"""Anchors: the widths and heights that predictions start from; published, or clusters of the sizes
that a data set has at the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retinue.errors import UsageError
from retinue.models.anchors import YOLOV3_ANCHORS

Sizes = npt.NDArray[np.float64]
"""(n, 2): widths and heights in pixels of the network's input."""

PUBLISHED = YOLOV3_ANCHORS

CLOSE = 0.8
"""Two anchors of which width and height agree by more do the work of one."""
_STARTS = 8
_ROUNDS = 100
_ENOUGH = 20_000
"""Of more sizes, so many drawn ones are clustered."""


class Recall(NamedTuple):
    """How well anchors cover sizes."""

    mean_iou: float
    """Of each size with the anchor that fits it best, averaged."""
    within_half: float
    """Share of the sizes that agree with an anchor by an IoU of 0.5 or more."""
    within_ratio: float
    """Share of the sizes that differ from an anchor by a factor below 4 in width and height."""


def fitted(
    sizes: Any, levels: int, *, each: int = 3, seed: int = 0
) -> list[list[tuple[float, float]]]:
    """`each` anchors for each of `levels` levels, by increasing area, finest level first: clusters
    of `sizes` (n, 2), as `clusters` finds them, to a tenth of a pixel."""
    found = clusters(sizes, levels * each, seed=seed)
    rounded = [(round(max(w, 0.1), 1), round(max(h, 0.1), 1)) for w, h in found.tolist()]
    return [rounded[k * each : (k + 1) * each] for k in range(levels)]


def clusters(sizes: Any, count: int, *, seed: int = 0) -> Sizes:
    """The centres (count, 2) of clusters of `sizes` (n, 2), by increasing area.

    k-means with 1 − IoU of width and height as distance and the median of its members as a
    cluster's centre, as published with the platform, from several drawn starts, of which the one
    with the highest mean IoU is taken. The same for the same sizes in any order. Sizes without an
    area have no say. Raises UsageError where there are fewer different sizes than clusters.
    """
    known = _with_area(sizes)
    known = known[np.lexsort(known.T)]
    different = len(np.unique(known, axis=0))
    if different < count:
        raise UsageError(
            f"{different} different sizes of boxes are too few for {count} anchors",
            where="key anchors",
            mend="take anchors: published",
        )
    rng = np.random.default_rng(seed)
    if len(known) > _ENOUGH:
        known = known[np.sort(rng.choice(len(known), _ENOUGH, replace=False))]
        count = min(count, len(np.unique(known, axis=0)))
    starts = [_k_medians(known, count, rng) for _ in range(_STARTS)]
    best = max(starts, key=lambda centres: recall(known, centres).mean_iou)
    return best[np.lexsort((best[:, 0], best.prod(axis=1)))]


def recall(sizes: Any, anchors: Any) -> Recall:
    """Of `sizes` (n, 2) by `anchors` (k, 2), or a list a level of such. Raises UsageError where
    there are no sizes."""
    known, given = _with_area(sizes), flat(anchors)
    if not len(known):
        raise UsageError("there are no boxes to measure anchors by", mend="label objects")
    best = _ious(known, given).max(axis=1)
    factor = known[:, None] / given[None]
    worst = np.maximum(factor, 1 / factor).max(axis=2).min(axis=1)
    return Recall(float(best.mean()), float((best >= 0.5).mean()), float((worst < 4).mean()))


def doubts(anchors: Any) -> list[str]:
    """What to warn of: anchors that lie so close that one would do, each pair in a sentence."""
    given = flat(anchors)
    ious = np.triu(_ious(given, given), 1)
    return [
        f"the anchors {_named(given[a])} and {_named(given[b])} nearly coincide "
        f"(IoU {ious[a, b]:.2f}): the boxes' sizes are too much alike for {len(given)} anchors"
        for a, b in zip(*(each.tolist() for each in np.nonzero(ious > CLOSE)), strict=True)
    ]


def flat(anchors: Any) -> Sizes:
    """`anchors` (k, 2), or a list a level of such, as one array (k, 2)."""
    rows: Sequence[Any] = anchors
    if len(rows) and np.ndim(rows[0]) == 2:
        rows = [pair for level in rows for pair in level]
    return np.asarray(rows, np.float64).reshape(-1, 2)


def _named(size: Sizes) -> str:
    return f"{size[0]:g}×{size[1]:g}"


def _with_area(sizes: Any) -> Sizes:
    known = np.asarray(sizes, np.float64).reshape(-1, 2)
    return known[(known > 0).all(axis=1) & np.isfinite(known).all(axis=1)]


def _ious(sizes: Sizes, centres: Sizes) -> Sizes:
    """IoU of width and height of each of (n, 2) with each of (k, 2): (n, k)."""
    common = np.minimum(sizes[:, None, 0], centres[None, :, 0])
    common = common * np.minimum(sizes[:, None, 1], centres[None, :, 1])
    ious: Sizes = common / (sizes.prod(axis=1)[:, None] + centres.prod(axis=1)[None] - common)
    return ious


def _spread(sizes: Sizes, count: int, rng: np.random.Generator) -> Sizes:
    """`count` different ones of the sizes, each drawn by its squared distance from those before
    (k-means++; Arthur and Vassilvitskii, 2007), so that few are of one cluster."""
    centres = sizes[[rng.integers(len(sizes))]]
    while len(centres) < count:
        distance = np.square(1 - _ious(sizes, centres).max(axis=1))
        # Of those that are there already no second one, whatever the last digit says.
        distance[(sizes[:, None] == centres).all(axis=2).any(axis=1)] = 0
        drawn = rng.choice(len(sizes), p=distance / distance.sum())
        centres = np.concatenate([centres, sizes[[drawn]]])
    return centres


def _k_medians(sizes: Sizes, count: int, rng: np.random.Generator) -> Sizes:
    centres = _spread(sizes, count, rng)
    nearest = np.full(len(sizes), -1)
    for _ in range(_ROUNDS):
        ious = _ious(sizes, centres)
        now = ious.argmax(axis=1)
        if np.array_equal(now, nearest):
            break
        nearest = now
        # A cluster that has lost all goes to the size that is covered worst.
        worst = iter(np.argsort(ious.max(axis=1), kind="stable").tolist())
        for k in range(count):
            members = sizes[nearest == k]
            centres[k] = np.median(members, axis=0) if len(members) else sizes[next(worst)]
    return centres
