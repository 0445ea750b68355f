"""Whether two sets of images can be told apart by what a network makes of them: a classifier of the
two, judged on images that it has not learnt from (a two-sample test; Lopez-Paz and Oquab, 2017)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.evaluation.classification import area_under_roc
from retinue.evaluation.drift import MUCH, NOTABLE
from retinue.figures import Z

Features = npt.NDArray[np.float64]

_SURE = 3.29
"""Standard errors from chance that no more than one case in a thousand reaches."""


@dataclass(frozen=True)
class Separation:
    """How well known and new images are told apart."""

    auc: float
    """How often a new image is taken for newer than a known one: 0.5 by chance, 1 always."""
    low: float
    high: float
    """Its 95 % interval."""
    verdict: str
    """`same`, `other` or `far off`."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def told(self) -> str:
        """In a sentence. Less often than by chance is no drift, and not nothing: it comes of
        pictures that are in both sets, or nearly."""
        if self.high < 0.5:
            return (
                f"features: new images are taken for known ones in {100 * (1 - self.auc):.0f} % of"
                f" pairs ({100 * (1 - self.high):.0f}–{100 * (1 - self.low):.0f} %; by chance"
                " 50 %), as where some are nearly the same pictures"
            )
        return (
            f"features: new images are told from known ones in {100 * self.auc:.0f} % of pairs"
            f" ({100 * self.low:.0f}–{100 * self.high:.0f} %; by chance 50 %)"
        )


def separation(known: Features, new: Features) -> Separation:
    """Of features (n, d) and (m, d), two rows each or more. The classifier is a ridge regression on
    standardised features, the two sets weighing alike, of one half of each; the area under its ROC
    curve is that on the other halves, which it has not seen, so that the interval of Hanley and
    McNeil (1982) holds: averaged over folds, which share what they learn from, it is too narrow."""
    x = np.concatenate([known, new]).astype(np.float64)
    fresh = np.arange(len(x)) >= len(known)
    draws = np.random.default_rng(0)
    held = np.concatenate([draws.permutation(len(one)) % 2 == 0 for one in (known, new)])
    there = area_under_roc(fresh[held], _scores(x[~held], fresh[~held], x[held]))
    assert there is not None
    auc, counts = there, (int(fresh[held].sum()), int((~fresh[held]).sum()))
    edge = 0.5 / min(counts)  # by so few images nothing is known to be without an exception
    error = _standard_error(min(max(auc, edge), 1 - edge), *counts)
    apart = 2 * auc - 1
    verdict = "same"
    if apart >= NOTABLE and auc - _SURE * _standard_error(0.5, *counts) > 0.5:
        verdict = "far off" if apart >= MUCH else "other"
    return Separation(auc, max(auc - Z * error, 0.0), min(auc + Z * error, 1.0), verdict)


def _scores(x: Features, fresh: npt.NDArray[np.bool_], other: Features) -> Features:
    """How new the rows of `other` look to a classifier of the rows of `x`."""
    weights = np.where(fresh, 0.5 / fresh.mean(), 0.5 / (~fresh).mean())
    centre = np.average(x, axis=0, weights=weights)
    spread = x.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0) * math.sqrt(x.shape[1])
    seen, asked = (x - centre) / scale, (other - centre) / scale
    # In the dual form: as many unknowns as images, however many features there are.
    kernel = seen @ seen.T
    target = np.where(fresh, 1.0, -1.0)
    solved = np.linalg.solve(kernel + np.diag(1.0 / weights), target)
    return np.asarray(asked @ (seen.T @ solved), np.float64)


def _standard_error(auc: float, new: int, known: int) -> float:
    """Hanley and McNeil's."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (new - 1) * (q1 - auc**2) + (known - 1) * (q2 - auc**2)
    return math.sqrt(max(variance, 0.0) / (new * known))
