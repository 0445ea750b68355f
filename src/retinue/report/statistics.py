"""What only the report computes from labels and scores; the figures are `retinue.evaluation`'s.

Pure functions on arrays: labels int64 (n,), scores float (n, classes), confusion matrices with a
row for each true class and a column for each predicted one.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_FRACTIONS = ("top", "f1", "map", "voc_ap")
_FRACTION_WORDS = ("accuracy", "precision", "recall")


def wilson(successes: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson, 1927); (0, 1) when nothing was counted."""
    if n <= 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def confused_pairs(confusion: Ints, most: int = 20) -> list[tuple[int, int, int]]:
    """(truth, prediction, count) of the most frequent confusions, most frequent first."""
    off = confusion.copy()
    np.fill_diagonal(off, 0)
    k = off.shape[1]
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    return [(int(i // k), int(i % k), int(off.flat[i])) for i in order if off.flat[i] > 0]


def confident_mistakes(labels: Ints, scores: Floats, most: int = 24) -> Ints:
    """Rows where the prediction is wrong, the highest score first."""
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    order = np.argsort(-scores[wrong].max(axis=1), kind="stable")
    return np.asarray(wrong[order][:most], dtype=np.int64)


def coarse(confusion: Ints, side: int) -> Floats:
    """Row-normalised, at most (side, side): each cell the largest share that it stands for, so
    that a rare confusion does not vanish when 1,000 classes shrink to a small picture."""
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    k = len(shares)
    if k <= side:
        return np.asarray(shares, dtype=np.float64)
    starts = np.unique(np.linspace(0, k, side, endpoint=False).astype(np.int64))
    rows = np.maximum.reduceat(shares, starts, axis=0)
    return np.asarray(np.maximum.reduceat(rows, starts, axis=1), dtype=np.float64)


def is_fraction(name: str) -> bool:
    """Whether a figure of that name lies between 0 and 1 and is read as a percentage."""
    return name.startswith(_FRACTIONS) or any(word in name for word in _FRACTION_WORDS)
