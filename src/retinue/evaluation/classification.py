"""Figures of a classifier: pure functions on arrays.

Everywhere `labels` is int64 (n,), the index of the true class, and `scores` is float (n, classes),
each row a probability distribution. Rows with equal scores are ranked by class index, as a stable
sort does. A figure that is not defined (no image of a class, say) is None, never NaN, so that it
survives JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating[Any]]

CALIBRATION_BINS = 15
"""Guo et al., On Calibration of Modern Neural Networks, 2017, section 3."""
_CURVE_POINTS = 200


def top_k_accuracy(labels: Labels, scores: Scores, k: int) -> float | None:
    """Fraction of rows whose true class is among the k best; None without rows."""
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k is {k}, of {scores.shape[1]} classes")
    if len(labels) == 0:
        return None
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return float((rank < k).mean())


def log_loss(labels: Labels, scores: Scores) -> float | None:
    """Mean −log of the true class's score, in nats; a score of 0 counts as float32's smallest."""
    if len(labels) == 0:
        return None
    own = scores[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())


def calibration_bins(
    labels: Labels, scores: Scores, bins: int = CALIBRATION_BINS
) -> list[dict[str, Any]]:
    """Bins of equal width over the best score, `(low, high]`, empty ones included.

    Each has `low`, `high`, `images`, and `confidence` and `accuracy` (means; None when empty).
    """
    confidence = scores.max(axis=1).astype(np.float64) if len(labels) else np.zeros(0)
    right = scores.argmax(axis=1) == labels if len(labels) else np.zeros(0, dtype=bool)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found = []
    for i in range(bins):
        inside = place == i
        count = int(inside.sum())
        found.append(
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "images": count,
                "confidence": float(confidence[inside].mean()) if count else None,
                "accuracy": float(right[inside].mean()) if count else None,
            }
        )
    return found


def expected_calibration_error(
    labels: Labels, scores: Scores, bins: int = CALIBRATION_BINS
) -> float | None:
    """Mean distance between confidence and accuracy over `calibration_bins`, by their images."""
    if len(labels) == 0:
        return None
    filled = [b for b in calibration_bins(labels, scores, bins) if b["images"]]
    gaps = sum(b["images"] * abs(b["confidence"] - b["accuracy"]) for b in filled)
    return float(gaps / len(labels))


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> npt.NDArray[np.int64]:
    """int64 (classes, classes): rows are the true class, columns the predicted one."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class(confusion: npt.NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """`name, precision, recall, f1, support` of each class, from its confusion matrix.

    Precision is None for a class that was never predicted, recall for one without images, F1 for
    one with neither.
    """
    hits = np.diag(confusion)
    predicted = confusion.sum(axis=0)
    support = confusion.sum(axis=1)
    return [
        {
            "name": name,
            "precision": _ratio(hits[i], predicted[i]),
            "recall": _ratio(hits[i], support[i]),
            "f1": _ratio(2 * hits[i], predicted[i] + support[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    ]


def area_under_roc(positive: npt.NDArray[np.bool_], score: Scores) -> float | None:
    """Probability that a positive scores above a negative, a tie counting half (Hanley and
    McNeil, 1982). None unless there are both. `positive` and `score` are (n,)."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return None
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    ranks = mean_rank[place][positive].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def threshold_curve(
    positive: npt.NDArray[np.bool_], score: Scores, points: int = _CURVE_POINTS
) -> list[dict[str, float | None]]:
    """What "positive where score ≥ threshold" would give, from the highest threshold down.

    A row has `threshold, precision, recall, f1, tpr, fpr`. There is a row for each distinct score,
    thinned evenly to at most `points`; the first and the last are always there.
    """
    if len(score) == 0:
        return []
    order = np.argsort(-score, kind="stable")
    sorted_score, sorted_positive = score[order], positive[order]
    last_of_tie = np.append(sorted_score[1:] != sorted_score[:-1], True)
    hits = np.cumsum(sorted_positive)[last_of_tie]
    alarms = np.cumsum(~sorted_positive)[last_of_tie]
    thresholds = sorted_score[last_of_tie]
    if len(thresholds) > points:
        kept = np.unique(np.linspace(0, len(thresholds) - 1, points).round().astype(int))
        thresholds, hits, alarms = thresholds[kept], hits[kept], alarms[kept]
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return [
        {
            "threshold": float(threshold),
            "precision": _ratio(hit, hit + alarm),
            "recall": _ratio(hit, positives),
            "f1": _ratio(2 * hit, hit + alarm + positives),
            "tpr": _ratio(hit, positives),
            "fpr": _ratio(alarm, negatives),
        }
        for threshold, hit, alarm in zip(thresholds, hits, alarms, strict=True)
    ]


def figures(
    labels: Labels, scores: Scores, names: Sequence[str], *, top_k: int = 5
) -> dict[str, Any]:
    """All figures, as `metrics.json` has them: plain JSON values, fractions between 0 and 1.

    `topK` is named by its K, which is `top_k` or, where there are fewer, the number of classes.
    With two classes there are also `positive` (the name of the second class), `auc` and
    `threshold_curve`. Macro figures are means over the classes for which they are defined.
    """
    k = min(top_k, len(names))
    predicted = scores.argmax(axis=1).astype(np.int64)
    confusion = confusion_matrix(labels, predicted, len(names))
    classes = per_class(confusion, names)
    found: dict[str, Any] = {"images": len(labels), "top1": top_k_accuracy(labels, scores, 1)}
    if k > 1:
        found[f"top{k}"] = top_k_accuracy(labels, scores, k)
    found["loss"] = log_loss(labels, scores)
    found["ece"] = expected_calibration_error(labels, scores)
    found["balanced_accuracy"] = _mean([c["recall"] for c in classes])
    found["f1_macro"] = _mean([c["f1"] for c in classes])
    if len(names) == 2:
        positive = labels == 1
        found["positive"] = names[1]
        found["auc"] = area_under_roc(positive, scores[:, 1])
        found["threshold_curve"] = threshold_curve(positive, scores[:, 1])
    found["per_class"] = classes
    found["confusion"] = confusion.tolist()
    return found


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return float(np.mean(defined)) if defined else None
