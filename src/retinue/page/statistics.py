"""What only a report computes from labels and scores; the figures are `retinue.evaluation`'s.

Pure functions on arrays: labels int64 (n,), scores float (n, classes), and the sparse confusion
matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.evaluation.classification import Confusion

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


def confused_pairs(counts: Confusion, most: int = 20) -> list[tuple[int, int, int]]:
    """(truth, prediction, count) of the most frequent confusions, most frequent first."""
    off = counts.true != counts.predicted
    true, predicted, count = counts.true[off], counts.predicted[off], counts.count[off]
    order = np.argsort(-count, kind="stable")[:most]
    return [(int(true[i]), int(predicted[i]), int(count[i])) for i in order]


def confident_mistakes(labels: Ints, scores: Floats, most: int = 24) -> Ints:
    """Rows where the prediction is wrong, the highest score first."""
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    order = np.argsort(-scores.max(axis=1)[wrong], kind="stable")
    return np.asarray(wrong[order][:most], dtype=np.int64)


def dense(counts: Confusion, classes: int) -> Ints:
    """int64 (classes, classes): rows are the true class, columns the predicted one. For few
    classes only."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    matrix[counts.true, counts.predicted] = counts.count
    return matrix


def coarse(counts: Confusion, classes: int, side: int) -> Floats:
    """Shares of the rows, at most (side, side): each cell the largest share that it stands for, so
    that a rare confusion does not vanish when 1,000 classes shrink to a small picture."""
    totals = np.bincount(counts.true, weights=counts.count, minlength=classes)
    shares = counts.count / totals[counts.true]
    side = min(side, classes)
    starts = np.linspace(0, classes, side, endpoint=False).astype(np.int64)
    rows, columns = (
        np.searchsorted(starts, of, side="right") - 1 for of in (counts.true, counts.predicted)
    )
    picture = np.zeros((side, side))
    np.maximum.at(picture, (rows, columns), shares)
    return picture
