"""Figures of a classifier that gives any number of labels: pure functions on arrays.

Everywhere `labels` and `known` are bool (n, classes): whether a class is in the image, and whether
anybody has said so; `scores` is float64 (n, classes), the probability of each. What is not known
counts nowhere. A figure that is not defined (a class without an image, say) is None, never NaN and
never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.evaluation import calibration, intervals
from retinue.evaluation.precision_recall import Curve, best_f1, mean
from retinue.evaluation.remarks import class_rows, of_absent, of_never
from retinue.figures import Figure, wilson

Flags = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]


def declared() -> list[Figure]:
    """What `figures` measures and a training can watch, the most telling first."""
    return [
        Figure("map", "Mean average precision", "fraction",
               note="mean over the classes that have images"),
        Figure("f1_macro", "F1, mean of the classes", "fraction",
               note="of those that have images, at their thresholds"),
        Figure("f1_micro", "F1 of all labels", "fraction", note="of all classes together"),
        Figure("precision", "Precision", "fraction", note="labels given that are right"),
        Figure("recall", "Recall", "fraction", note="labels there that were given"),
        Figure("exact", "All labels right", "fraction", note="images without any mistake"),
        Figure("loss", "Loss", "nats", less_is_better=True, note="mean binary cross-entropy"),
        Figure("ece", "Calibration error", less_is_better=True,
               note="mean gap between probability and frequency"),
    ]  # fmt: skip


OF_CLASSES = (
    Figure("ap", "Average precision (AP)", "fraction"),
    Figure("f1", "F1", "fraction"),
    Figure("precision", "Precision", "fraction"),
    Figure("recall", "Recall", "fraction"),
)
"""What judges a class in a row of `per_class`, the most telling first."""


def declared_among(names: Sequence[str], classes: Sequence[str]) -> list[Figure]:
    """Those of `declared` that `names` holds."""
    return [figure for figure in declared() if figure.name in names]


@dataclass(frozen=True, eq=False)
class Labelled:
    """What was said of images, and what is in them."""

    labels: Flags
    known: Flags
    scores: Scores

    @cached_property
    def curves(self) -> list[Curve]:
        """One a class, over the images of which it is known."""
        return [
            _curve(self.labels[rows, k], self.scores[rows, k])
            for k, rows in enumerate(self.known.T)
        ]

    @cached_property
    def pooled(self) -> Curve:
        """Of all that is known, together."""
        return _curve(self.labels[self.known], self.scores[self.known])


def _curve(positive: Flags, score: Scores) -> Curve:
    order = np.argsort(-score, kind="stable")
    right = positive[order]
    return Curve(score[order], np.cumsum(right), np.cumsum(~right), int(right.sum()))


def average_precision(curve: Curve) -> float | None:
    """Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores: the mean, over what is to be found, of the
    precision at its score, without any interpolation; None where there is nothing."""
    if not curve.objects:
        return None
    ends = curve.ends
    gained = np.diff(curve.recall[ends], prepend=0.0)
    return float((gained * curve.precision[ends]).sum())


PRIOR = 50
"""A class's own threshold is chosen as if so many labels that are there, of all classes together,
had been seen as well: a few images of its own do not decide. On composites of five flowers, chosen
on half of 200 images and judged on the others, F1 was 0.800 without, 0.805 with, 0.806 at 0.5."""
_CANDIDATES = 2_000
"""So many thresholds are compared at most."""


def best_threshold(told: Labelled) -> float | None:
    """The score from which on F1 of all labels together is highest; None where there are none."""
    best = best_f1(told.pooled)
    return None if best is None else best.threshold


def best_thresholds(told: Labelled, *, prior: float = PRIOR) -> list[float] | None:
    """The same of each class by itself, with the labels of all classes counted along as if `prior`
    of those that are there had been seen; of equally good ones the highest. None where there are
    none at all."""
    together = told.pooled
    if not together.objects:
        return None
    scores = np.unique(together.score)
    # Halfway to the next one, so that a rounding changes nothing.
    between = np.append(scores[0] / 2, (scores[1:] + scores[:-1]) / 2)[::-1]
    if len(between) > _CANDIDATES:
        between = between[np.linspace(0, len(between) - 1, _CANDIDATES).round().astype(int)]
    share = prior / together.objects
    right, answers = (share * counts for counts in _counts_above(together, between))
    found = []
    for curve in told.curves:
        own_right, own_answers = _counts_above(curve, between)
        there = own_answers + curve.objects + answers + share * together.objects
        f1 = 2 * (own_right + right) / np.maximum(there, np.finfo(np.float64).tiny)
        found.append(float(between[f1.argmax()]))
    return found


DOUBT = 5
"""What is chosen on so many labels, of all classes together, goes half the way from the threshold
nobody chose. By `python benchmarks/thresholds.py`, F1 with 6 images of validation rose by 0.03
where probabilities are calibrated and fell by 0.03 where 0.5 is far from what is best; with 60
images it moved by 0.006 at most, with 200 by 0.002."""
_SUREST = 1e-6


def held_back(
    thresholds: Sequence[float], told: Labelled, start: float, *, doubt: float = DOUBT
) -> list[float]:
    """Thresholds that were chosen on `told`, drawn towards `start` the more, in logits, the fewer
    labels that rests on: those that are there or those that are not, whichever are fewer. None of
    them has been seen: `start`."""
    there = int((told.labels & told.known).sum())
    few = min(there, int(told.known.sum()) - there)
    if not few or not doubt:
        return [float(one) if few else start for one in thresholds]
    share = few / (few + doubt)
    kept = np.clip([*thresholds, start], _SUREST, 1 - _SUREST)
    logits = np.log(kept) - np.log1p(-kept)
    mixed = share * logits[:-1] + (1 - share) * logits[-1]
    return (1 / (1 + np.exp(-mixed))).tolist()  # type: ignore[no-any-return]


def _counts_above(
    curve: Curve, thresholds: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """At each of the `thresholds`: labels given that are right, labels given."""
    answers = np.searchsorted(-curve.score, -thresholds, side="right")
    right = np.concatenate([[0], curve.right])[answers]
    return right.astype(np.float64), answers.astype(np.float64)


def per_class(
    told: Labelled, names: Sequence[str], thresholds: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """`name, ap, precision, recall, f1, threshold, support, predicted, images` of each class:
    `support` images that show it, of `images` of which that is known. Precision is None for a class
    that was never given; AP, recall and F1 for one that no image shows."""
    right, answers, support = _counts(told, thresholds)
    images = told.known.sum(axis=0).tolist()
    return [
        {
            "name": name,
            "ap": average_precision(told.curves[k]),
            "precision": _ratio(right[k], answers[k]),
            "recall": _ratio(right[k], support[k]),
            "f1": _ratio(2 * right[k], answers[k] + support[k]) if support[k] else None,
            "threshold": float(thresholds[k]),
            "support": support[k],
            "predicted": answers[k],
            "images": images[k],
        }
        for k, name in enumerate(names)
    ]


def figures(
    told: Labelled, names: Sequence[str], thresholds: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """All figures, as `metrics.json` has them: plain JSON values, fractions between 0 and 1.
    `thresholds` (classes,): from which score on a label is given. `labels`: how many are there."""
    rows, counts = per_class(told, names, thresholds), _counts(told, thresholds)
    right, answers, there = map(sum, counts)
    whole = told.known.all(axis=1) & (told.known.shape[1] > 0)
    same = ((told.scores >= thresholds) == told.labels).all(axis=1)
    exact, of = int((same & whole).sum()), int(whole.sum())
    found: dict[str, Any] = {
        "images": len(told.labels),
        "labels": there,
        "map": mean([row["ap"] for row in rows]),
        "f1_macro": mean([row["f1"] for row in rows]),
        "f1_micro": _ratio(2 * right, answers + there) if there else None,
        "precision": _ratio(right, answers),
        "recall": _ratio(right, there),
        "exact": _ratio(exact, of),
        "loss": log_loss(told),
        "ece": expected_calibration_error(told),
        "per_class": rows,
    }
    shares = {"precision": (right, answers), "recall": (right, there), "exact": (exact, of)}
    known = {
        "map": intervals.of_mean_ap([(row["ap"], row["support"]) for row in rows]),
        "f1_macro": intervals.of_mean_f1(list(zip(*counts, strict=True))),
        "f1_micro": intervals.of_mean_f1([(right, answers, there)]),
        **{name: wilson(*counted) for name, counted in shares.items() if counted[1]},
    }
    found["intervals"] = {name: list(span) for name, span in known.items() if span is not None}
    return found


def _counts(
    told: Labelled, thresholds: npt.NDArray[np.float64]
) -> tuple[list[int], list[int], list[int]]:
    """Of each class: labels given that are right, labels given, labels that are there."""
    given = told.known & (told.scores >= thresholds)
    each = (given & told.labels, given, told.known & told.labels)
    right, answers, there = (flags.sum(axis=0).tolist() for flags in each)
    return right, answers, there


def log_loss(told: Labelled) -> float | None:
    """Mean binary cross-entropy of what is known, in nats; a probability of 0 counts as float32's
    smallest."""
    if not told.known.any():
        return None
    own = np.where(told.labels, told.scores, 1 - told.scores)[told.known]
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())


def calibration_bins(told: Labelled) -> list[dict[str, Any]]:
    """`calibration.binned` of all that is known, pairs of image and class, which is right where the
    class is there."""
    return calibration.binned(told.scores[told.known], told.labels[told.known])


def expected_calibration_error(told: Labelled) -> float | None:
    """Mean distance between probability and frequency over `calibration_bins`, by their labels."""
    return calibration.mean_gap(calibration_bins(told))


def remark(values: Mapping[str, Any]) -> str:
    """Which classes the figures `values` (of `metrics.json`) say nothing of, and why, in sentences;
    empty where there are none."""
    rows = class_rows(values)
    never = [row for row in rows if row.get("support") and row.get("precision") is None]
    said = of_absent(rows, "support", ("is in no image", "are in no image"))
    return " ".join([*said, *of_never(never, "given")])


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
