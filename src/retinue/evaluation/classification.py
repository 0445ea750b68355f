"""Figures of a classifier: pure functions on arrays.

Everywhere `labels` is int64 (n,), the index of the true class, and `scores` is float (n, classes),
each row a probability distribution. Rows with equal scores are ranked by class index, as a stable
sort does. A figure that is not defined (no image of a class, say) is None, never NaN, so that it
survives JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retinue.documents import json_text, parse_json
from retinue.evaluation import calibration, intervals
from retinue.evaluation.remarks import class_rows, of_absent, of_never
from retinue.figures import Figure

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating[Any]]

_CURVE_POINTS = 200
_CHUNK = 1 << 20


def declared(classes: Sequence[str], top_k: int = 5) -> list[Figure]:
    """What `figures` measures and a training can watch, the most telling first.

    `topK` is left out where K is the number of classes: the right one is always among them all.
    """
    found = [
        Figure("top1", "Top-1 accuracy", "fraction", of="images",
               note="images whose best answer is right"),
    ]  # fmt: skip
    if 1 < top_k < len(classes):
        note = f"images whose class is among the best {top_k} answers"
        found.append(
            Figure(f"top{top_k}", f"Top-{top_k} accuracy", "fraction", of="images", note=note)
        )
    found += [
        Figure("loss", "Loss", "nats", less_is_better=True, note="mean cross-entropy"),
        Figure("ece", "Calibration error", less_is_better=True,
               note="mean gap between confidence and accuracy"),
        Figure("balanced_accuracy", "Balanced accuracy", "fraction",
               note="mean recall of the classes that have images"),
        Figure("f1_macro", "F1, mean of the classes", "fraction",
               note="of those that have images"),
    ]  # fmt: skip
    if len(classes) == 2:
        found.append(Figure("auc", "AUC", note="chance that a positive ranks above a negative"))
    return found


OF_CLASSES = (
    Figure("f1", "F1", "fraction"),
    Figure("precision", "Precision", "fraction"),
    Figure("recall", "Recall", "fraction"),
    Figure("specificity", "Specificity", "fraction"),
)
"""What judges a class in a row of `per_class`, the most telling first."""

HEADS = ("main", "auxiliary")
"""What two classifiers that answer together are called, the first one first."""
OF_HEADS = tuple(
    Figure(f"top1_{name}", f"Top-1 of the {which} classifier", "fraction", of="images")
    for name, which in zip(HEADS, ("first", "second"), strict=True)
)
"""What is measured, too, where two classifiers answer together."""


OF_AGE = (
    Figure("top1_old", "Top-1 of the old classes", "fraction",
           note="images of the classes that the teacher knows"),
    Figure("top1_new", "Top-1 of the new classes", "fraction",
           note="images of the classes that it does not know"),
)  # fmt: skip
"""What is measured, too, where classes were added to those of a teacher."""


def blended(first: Scores, second: Scores, share: float) -> npt.NDArray[np.float32]:
    """Log-probabilities of `share` of the one and the rest of the other, themselves given as
    log-probabilities, of any one shape."""
    if share in (0.0, 1.0):
        return np.asarray(first if share else second, dtype=np.float32)
    mixed: npt.NDArray[np.float32] = np.logaddexp(
        first + math.log(share), second + math.log1p(-share)
    ).astype(np.float32)
    return mixed


def best_blend(labels: Labels, first: Scores, second: Scores) -> float:
    """The share of `first`, log-probabilities (n, classes) as `second`, in hundredths, with which
    most rows are right; of equally good ones that which makes the labels most likely, then the
    largest. There must be rows."""
    right, own = np.zeros(101, np.int64), np.zeros(101)
    hundredths = np.arange(101) / 100
    for rows in chunks(first):
        label, of = labels[rows], np.arange(len(labels[rows]))
        rest = np.exp(second[rows])
        gap = np.exp(first[rows]) - rest
        for k, share in enumerate(hundredths.astype(gap.dtype)):
            right[k] += ((share * gap + rest).argmax(1) == label).sum()
        mixed = hundredths[:, None] * gap[of, label] + rest[of, label]
        own += np.log(np.maximum(mixed, np.finfo(np.float32).tiny)).sum(1, dtype=np.float64)
    best: int = np.lexsort((hundredths, own, right))[-1]
    return best / 100


def declared_among(names: Sequence[str], classes: Sequence[str]) -> list[Figure]:
    """`declared`, for the figures `names` that were measured: they tell the K of `topK` and, where
    `classes` is empty because no file names them, whether there are two."""
    k = max((int(name[3:]) for name in names if re.fullmatch(r"top[1-9]\d*", name)), default=1)
    own = declared(classes or ["?"] * (2 if "auc" in names else k + 2), k)
    return own + [figure for figure in (*OF_HEADS, *OF_AGE) if figure.name in names]


def top_k_accuracy(labels: Labels, scores: Scores, k: int) -> float | None:
    """Fraction of rows whose true class is among the k best; None without rows."""
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k is {k}, of {scores.shape[1]} classes")
    if len(labels) == 0:
        return None
    hits = 0
    for rows in chunks(scores):
        label, score = labels[rows], scores[rows]
        own = score[np.arange(len(label)), label][:, None]
        earlier = np.arange(score.shape[1]) < label[:, None]
        # Not `score > own`: a score that is no number must not put the right class first.
        rank = (~(score <= own) | ((score == own) & earlier)).sum(axis=1)
        hits += int((rank < k).sum())
    return hits / len(labels)


def log_loss(labels: Labels, scores: Scores) -> float | None:
    """Mean −log of the true class's score, in nats; a score of 0 counts as float32's smallest."""
    if len(labels) == 0:
        return None
    return float(_losses(labels, scores).mean())


def calibration_bins(labels: Labels, scores: Scores) -> list[dict[str, Any]]:
    """`calibration.binned` of each row's best score, which is right where its class is."""
    if not len(labels):
        return calibration.binned(np.zeros(0), np.zeros(0, bool))
    return calibration.binned(
        scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == labels
    )


def expected_calibration_error(labels: Labels, scores: Scores) -> float | None:
    """Mean distance between confidence and accuracy over `calibration_bins`, by their images."""
    return calibration.mean_gap(calibration_bins(labels, scores))


def at_temperature(scores: Scores, temperature: float) -> npt.NDArray[np.float64]:
    """What `scores` would be if their logits were divided by `temperature`."""
    logs = np.log(np.maximum(scores, np.finfo(np.float32).tiny).astype(np.float64)) / temperature
    made = np.exp(logs - logs.max(axis=1, keepdims=True))
    warmed: npt.NDArray[np.float64] = made / made.sum(axis=1, keepdims=True)
    return warmed


@dataclass(frozen=True, eq=False)
class Confusion:
    """A confusion matrix without its zeros: its size follows the images, not the classes.

    int64 (cells,) each, in order of the true class, then of the predicted one.
    """

    true: Labels
    predicted: Labels
    count: Labels
    """At least 1."""


def confusion_counts(labels: Labels, predicted: Labels) -> Confusion:
    """How often each class was taken for which; `labels` and `predicted` are int64 (n,) ≥ 0."""
    width = int(predicted.max(initial=0)) + 1
    cells, count = np.unique(labels.astype(np.int64) * width + predicted, return_counts=True)
    return Confusion(cells // width, cells % width, count.astype(np.int64))


def confusion_of(labels: Labels, scores: Scores) -> Confusion:
    """`confusion_counts` of each row's best class."""
    return confusion_counts(labels, scores.argmax(axis=1).astype(np.int64))


def confusion_table(confusion: Confusion, names: Sequence[str]) -> pa.Table:
    """`confusion.parquet`: columns true, predicted (int32, indices of `names`) and count (int64).

    The names stand in the schema's metadata, a JSON list under `classes`.
    """
    columns = {
        "true": pa.array(confusion.true, pa.int32()),
        "predicted": pa.array(confusion.predicted, pa.int32()),
        "count": pa.array(confusion.count, pa.int64()),
    }
    return pa.table(columns).replace_schema_metadata({"classes": json_text(list(names))})


def confusion_in(table: pa.Table) -> tuple[Confusion, tuple[str, ...]]:
    """What `confusion_table` was made from."""
    columns = (table[name].to_numpy().astype(np.int64) for name in ("true", "predicted", "count"))
    names = parse_json((table.schema.metadata or {}).get(b"classes", b"[]"))
    return Confusion(*columns), tuple(map(str, names))


def per_class(confusion: Confusion, names: Sequence[str]) -> list[dict[str, Any]]:
    """`name, precision, recall, specificity, f1, support` of each class.

    Precision is None for a class that was never predicted. Recall and F1 are None for one without
    images: nothing was there to be found, however often it was answered. Specificity, the share of
    the images of other classes that did not get this answer, is None where there are none.
    """
    hits, predicted, support = tallies(confusion, len(names))
    total = int(support.sum())
    return [
        {
            "name": name,
            "precision": _ratio(hit, answers),
            "recall": _ratio(hit, images),
            "specificity": _ratio(total - images - (answers - hit), total - images),
            "f1": _ratio(2 * hit, answers + images) if images else None,
            "support": images,
        }
        for name, hit, answers, images in zip(
            names, hits.tolist(), predicted.tolist(), support.tolist(), strict=True
        )
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


def chunks(scores: Scores) -> Iterator[slice]:
    """Slices of rows that have about a million scores each: what is worked out beside them stays
    small."""
    rows = max(1, _CHUNK // max(1, scores.shape[1]))
    return (slice(i, i + rows) for i in range(0, len(scores), rows))


def figures(
    labels: Labels,
    scores: Scores,
    names: Sequence[str],
    *,
    top_k: int = 5,
    confusion: Confusion | None = None,
) -> dict[str, Any]:
    """All figures, as `metrics.json` has them: plain JSON values, fractions between 0 and 1.

    `topK` is named by its K, which is `top_k` or, where there are fewer, the number of classes.
    With two classes there are also `positive` (the name of the second class) and `auc`. Macro
    figures are means over the classes that have images. `intervals` has the 95 % interval of each
    figure that has one and is no plain share. What grows with the square of the classes is not
    here: see `confusion_table`. `confusion`: `confusion_of` the two, where it is counted already.
    """
    k = min(top_k, len(names))
    counts = confusion or confusion_of(labels, scores)
    classes = per_class(counts, names)
    found: dict[str, Any] = {"images": len(labels), "top1": top_k_accuracy(labels, scores, 1)}
    if k > 1:
        found[f"top{k}"] = top_k_accuracy(labels, scores, k)
    found["loss"] = log_loss(labels, scores)
    found["ece"] = expected_calibration_error(labels, scores)
    found["balanced_accuracy"] = _mean([c["recall"] for c in classes])
    found["f1_macro"] = _mean([c["f1"] for c in classes])
    if len(names) == 2:
        found["positive"] = names[1]
        found["auc"] = area_under_roc(labels == 1, scores[:, 1])
    found["per_class"] = classes
    found["intervals"] = _intervals(labels, scores, counts, len(names), found.get("auc"))
    return found


def remark(values: Mapping[str, Any]) -> str:
    """Which classes the figures `values` (of `metrics.json`) say nothing of, and why, in sentences;
    empty where there are none."""
    rows = class_rows(values)
    both = "; AUC needs both" if len(rows) == 2 else ""
    never = [row for row in rows if row.get("support") and row.get("precision") is None]
    said = of_absent(rows, "support", ("has no images", "have no images"), both)
    return " ".join([*said, *of_never(never, "the answer")])


def _intervals(
    labels: Labels, scores: Scores, counts: Confusion, classes: int, auc: float | None
) -> dict[str, list[float]]:
    hits, answers, images = (column.tolist() for column in tallies(counts, classes))
    found = {
        "loss": intervals.of_mean(_losses(labels, scores)),
        "balanced_accuracy": intervals.of_mean_share(list(zip(hits, images, strict=True))),
        "f1_macro": intervals.of_mean_f1(list(zip(hits, answers, images, strict=True))),
    }
    if auc is not None:
        positives = int((labels == 1).sum())
        found["auc"] = intervals.of_auc(auc, positives, len(labels) - positives)
    return {name: list(interval) for name, interval in found.items() if interval is not None}


def _losses(labels: Labels, scores: Scores) -> npt.NDArray[np.float64]:
    own = scores[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(own, np.finfo(np.float32).tiny))


def tallies(confusion: Confusion, classes: int) -> tuple[Labels, Labels, Labels]:
    """int64 (classes,) each: right answers, answers, images of each class."""
    right = confusion.true == confusion.predicted
    return (
        _summed(confusion.true[right], confusion.count[right], classes),
        _summed(confusion.predicted, confusion.count, classes),
        _summed(confusion.true, confusion.count, classes),
    )


def _summed(index: Labels, count: Labels, length: int) -> Labels:
    """int64 (length,): the counts of each index. Exact, as floats are up to 2^53."""
    return np.bincount(index, weights=count, minlength=length).astype(np.int64)


def _ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return float(np.mean(defined)) if defined else None
