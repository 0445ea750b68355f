"""95 % intervals of figures that are no plain share; of those, `retinue.figures.wilson` knows.

None of them collapses where all answers are right or all are wrong: two images say little, whatever
they say. An interval that is not defined is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.figures import Z, wilson

Interval = tuple[float, float]

_FEWEST = 10
"""So many values tell how far they spread; of fewer, a few of them do."""


def of_mean(values: npt.NDArray[np.floating[Any]]) -> Interval | None:
    """Of the mean of `values` (n,), by Student's t; None for fewer than 10. Where none of them is
    below 0, as no loss is, it does not reach below that."""
    n = len(values)
    if n < _FEWEST:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(n)
    # Student's quantile out of the normal one (Abramowitz and Stegun, 26.7.5), good for so many.
    z, v = Z, n - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    low = mean - t * error
    return (low if values.min() < 0 else max(low, 0.0)), mean + t * error


def of_mean_share(counted: Sequence[tuple[float, float]]) -> Interval | None:
    """Of the mean of independent shares, each (successes, of so many): the squares of their Wilson
    intervals' arms add up (Zou and Donner, 2008)."""
    rows = [(hits / n, *wilson(hits, n)) for hits, n in counted if n > 0]
    return _of_mean_of(rows)


def of_mean_f1(counted: Sequence[tuple[float, float, float]]) -> Interval | None:
    """Of the mean F1 of classes, each (right, answers, images), over those that have images.

    Of what is in a class or is said to be, the share that is both is J, and F1 is 2J / (1 + J). A
    mistake counts in two classes, so that their arms do not quite add up like independent ones:
    they are taken √2 as long.
    """
    rows = []
    for right, answers, images in counted:
        if images > 0:
            n = answers + images - right
            low, high = (2 * j / (1 + j) for j in wilson(right, n))
            rows.append((2 * right / (answers + images), low, high))
    return _of_mean_of(rows, stretched=math.sqrt(2))


def of_mean_ap(counted: Sequence[tuple[float | None, float]]) -> Interval | None:
    """Of the mean over classes of their average precisions, each (AP, objects), those that have
    objects.

    An AP is the mean over the objects of a number between 0 and 1, none of which varies more than
    a share does. But false boxes come by chance, too, and what is in one image is alike: their arms
    are taken √2 as long, which is about what drawing the images anew gives.
    """
    rows = [(ap, *wilson(ap * n, n)) for ap, n in counted if ap is not None and n > 0]
    return _of_mean_of(rows, stretched=math.sqrt(2))


def of_auc(auc: float, positives: int, negatives: int) -> Interval | None:
    """Of the area under a ROC curve: the areas of which `auc` is no surprise, with Hanley and
    McNeil's variance (1982) at each of them (Newcombe, 2006, method 5)."""
    if positives < 1 or negatives < 1:
        return None
    half = (positives + negatives) / 2 - 1

    def surprise(area: float) -> float:
        spread = half * ((1 - area) / (2 - area) + area / (1 + area))
        variance = area * (1 - area) * (1 + spread) / (positives * negatives)
        return abs(auc - area) - Z * math.sqrt(variance)

    def edge(outside: float) -> float:
        """Between the end of the scale, which is a surprise, and the area itself, which is not."""
        inside = auc
        if surprise(outside) <= 0:
            return outside
        for _ in range(50):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if surprise(middle) <= 0 else (inside, middle)
        return inside

    return edge(0.0), edge(1.0)


def _of_mean_of(
    rows: Sequence[tuple[float, float, float]], stretched: float = 1.0
) -> Interval | None:
    """Of the mean of values, each with its interval."""
    if not rows:
        return None
    value, low, high = (np.array(column) for column in zip(*rows, strict=True))
    mean = float(value.mean())
    down, up = (stretched * math.sqrt(((a - b) ** 2).sum()) / len(rows) for a, b in
                ((value, low), (high, value)))  # fmt: skip
    return max(0.0, mean - down), min(1.0, mean + up)
