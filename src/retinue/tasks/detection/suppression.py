"""One box an object: non-maximum suppression, whatever time it takes.

Greedy suppression keeps the best candidate, drops all that overlap it too much, and goes on with
the best of the rest. It is worked out here for a block of candidates at a time, best blocks first:
those of a block are compared with what is kept by one matrix and with each other by another, and
nothing is looked at any more once `max_boxes` are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from retinue.evaluation.boxes import iou_matrix
from retinue.tasks.detection.candidates import Candidates

Kind = Literal["greedy", "soft", "diou"]
Boxes = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BLOCK = 256
"""Candidates. Small: what a block compares within is quadratic; large: there are few steps."""


def suppress(
    candidates: Candidates,
    *,
    confidence: float | Sequence[float],
    iou: float,
    max_boxes: int,
    class_wise: bool = True,
    kind: Kind = "greedy",
    sigma: float = 0.5,
) -> Candidates:
    """The at most `max_boxes` best of those that score `confidence` (a number, or one for each
    class) or more and do not overlap a better one, best first; of equal scores the earlier one.

    `class_wise`: boxes of different classes never suppress each other. `greedy`: what overlaps by
    more than `iou` is dropped. `diou`: the same by IoU less the squared distance of the centres in
    diagonals of the hull, so that neighbours with a centre of their own stay (Zheng et al., 2020,
    section 3.4). `soft`: nothing is dropped for overlapping, its score is multiplied by
    exp(−IoU² / sigma) instead (Bodla et al., 2017), and it goes where that is below `confidence`;
    `iou` has no say.
    """
    least = _least(confidence, candidates.of)
    there = np.flatnonzero(candidates.score >= least)
    order = there[np.argsort(-candidates.score[there], kind="stable")]
    able = candidates[order]
    if kind == "soft":
        return _soft(able, least[order], max_boxes, class_wise=class_wise, sigma=sigma)
    of = able.of if class_wise else np.zeros_like(able.of)
    return able[_greedy(able.xyxy, of, iou, max_boxes, by_distance=kind == "diou")]


def _greedy(xyxy: Boxes, of: Places, most_shared: float, most: int, *, by_distance: bool) -> Places:
    """The places of those kept, of boxes (k, 4) in order of their scores."""

    def too_close(first: Places, second: Places) -> Flags:
        a, b = xyxy[first], xyxy[second]
        shares = iou_matrix(a, b)
        if by_distance:
            shares = shares - _distances(a, b)
        close: Flags = (shares > most_shared) & (of[first][:, None] == of[second])
        return close

    kept: Places = np.zeros(0, np.int64)
    for start in range(0, len(xyxy), BLOCK):
        if len(kept) >= most:
            break
        block = np.arange(start, min(start + BLOCK, len(xyxy)))
        block = block[~too_close(block, kept).any(axis=1)]
        kept = np.concatenate([kept, block[_first_come(too_close(block, block))]])
    return kept[:most]


def _first_come(close: Flags) -> Flags:
    """Of a symmetric relation (k, k) of those in order: which are kept, where each drops all later
    ones that are close to it, unless it is dropped itself.

    Each round is right for one more link of every chain (Cluster-NMS, Zheng et al., 2021): it ends
    where a round changes nothing, after at most k of them and usually after two or three.
    """
    above = np.triu(close, 1)
    kept: Flags = np.ones(len(close), np.bool_)
    while True:
        again: Flags = np.logical_not(above[kept].any(axis=0))
        if np.array_equal(again, kept):
            return kept
        kept = again


def _distances(first: Boxes, second: Boxes) -> Boxes:
    """Squared distance of the centres of (n, 4) and (m, 4) over the squared diagonal of the box
    around both: (n, m)."""
    apart: Boxes = np.zeros((len(first), len(second)), np.float32)
    diagonal: Boxes = np.zeros_like(apart)
    for axis in (0, 1):
        low, high = first[:, None, axis], first[:, None, axis + 2]
        other_low, other_high = second[None, :, axis], second[None, :, axis + 2]
        apart += np.square((low + high - other_low - other_high) / 2)
        diagonal += np.square(np.maximum(high, other_high) - np.minimum(low, other_low))
    distances: Boxes = np.divide(apart, diagonal, out=np.zeros_like(apart), where=diagonal > 0)
    return distances


def _least(confidence: float | Sequence[float], of: Places) -> npt.NDArray[np.float32]:
    """The least score of each candidate, of the classes `of`."""
    asked = np.asarray(confidence, np.float32)
    return np.broadcast_to(asked, of.shape) if asked.ndim == 0 else asked[of]


def _soft(
    able: Candidates, least: npt.NDArray[np.float32], most: int, *, class_wise: bool, sigma: float
) -> Candidates:
    score, left = able.score.astype(np.float64), np.arange(len(able))
    kept: list[int] = []
    while len(kept) < most and len(left):
        best = int(left[score[left].argmax()])
        kept.append(best)
        left = left[left != best]
        shares = iou_matrix(able.xyxy[[best]], able.xyxy[left])[0].astype(np.float64)
        if class_wise:
            shares[able.of[left] != able.of[best]] = 0
        score[left] *= np.exp(-np.square(shares) / sigma)
        left = left[score[left] >= least[left]]
    picked = np.array(kept, np.int64)
    return Candidates(
        able.xyxy[picked], score[picked].astype(np.float32), able.of[picked], able.size
    )
