"""The sections of a classification run, from its predictions (or, without them, its figures)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retinue.evaluation import classification as figures
from retinue.report import plots, statistics
from retinue.report.general import data_address, draw
from retinue.report.html import Builder, Section
from retinue.report.record import RunRecord
from retinue.text import shorten

_MOST_IN_TABLE = 30
"""Up to that many classes, the confusion matrix is a table with names."""
_MISTAKES = 24


def _names(record: RunRecord, count: int) -> list[str]:
    known = list(record.classes[:count])
    return known + [f"class {k}" for k in range(len(known), count)]


def _matrix(record: RunRecord) -> statistics.Ints | None:
    if record.scored is not None:
        scored = record.scored
        return figures.confusion_matrix(scored.labels, scored.predicted, scored.scores.shape[1])
    given = record.metrics.get("confusion")
    if not given:
        return None
    matrix = np.asarray(given, dtype=np.int64)
    return matrix if matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] else None


def confusion(record: RunRecord) -> Section | None:
    """Which class was taken for which."""
    matrix = _matrix(record)
    if matrix is None:
        return None
    names = _names(record, len(matrix))
    picture = draw(record, "confusion", plots.confusion(matrix, names), "Confusion matrix")
    totals = matrix.sum(axis=1)
    pairs = [
        {"true": names[i], "predicted": names[j], "count": n, "share": n / max(1, totals[i])}
        for i, j, n in statistics.confused_pairs(matrix)
    ]
    rows = []
    if len(names) <= _MOST_IN_TABLE:
        for i, name in enumerate(names):
            shares = matrix[i] / max(1, totals[i])
            cells = [
                {"count": int(n), "tint": round(float(np.sqrt(share)) * 100), "right": i == j}
                for j, (n, share) in enumerate(zip(matrix[i], shares, strict=True))
            ]
            rows.append({"name": name, "cells": cells, "total": int(totals[i])})
    return Section(
        "confusion",
        "What was taken for what",
        "confusion.html",
        {
            "names": names,
            "rows": rows,
            "picture": picture,
            "pairs": pairs[: 10 if rows else None] if len(names) > 2 else [],
            "classes": len(names),
        },
    )


def classes(record: RunRecord) -> Section | None:
    """Precision, recall and F1 of each class."""
    matrix = _matrix(record)
    if matrix is None:
        return None
    rows = figures.per_class(matrix, _names(record, len(matrix)))
    predicted = matrix.sum(axis=0)
    for k, row in enumerate(rows):
        row["interval"] = statistics.wilson(matrix[k, k], row["support"])
        row["predicted"] = int(predicted[k])
    return Section(
        "classes",
        "Class by class",
        "classes.html",
        {"rows": rows, "long": len(rows) > 25},
    )


def calibration(record: RunRecord) -> Section | None:
    """Whether a score of 0.8 is right in 8 of 10 cases."""
    if record.scored is None:
        return None
    labels, scores = record.scored.labels, record.scored.scores
    bins = figures.calibration_bins(labels, scores)
    return Section(
        "calibration",
        "Can the scores be believed?",
        "calibration.html",
        {
            "plot": draw(record, "calibration", plots.calibration(bins), "Calibration plot"),
            "ece": figures.expected_calibration_error(labels, scores),
            "confidence": float(scores.max(axis=1).mean()),
            "accuracy": float((record.scored.predicted == labels).mean()),
        },
    )


def threshold(record: RunRecord) -> Section | None:
    """For two classes: the ROC, and what other thresholds than ½ would give."""
    if record.scored is None or record.scored.scores.shape[1] != 2:
        return None
    positive, score = record.scored.labels == 1, record.scored.scores[:, 1]
    auc = figures.area_under_roc(positive, score)
    if auc is None:
        return None
    curve = figures.threshold_curve(positive, score)
    share = float(positive.mean())
    for row in curve:
        tpr, fpr = row["tpr"] or 0.0, row["fpr"] or 0.0
        row["accuracy"] = share * tpr + (1 - share) * (1 - fpr)
    drawn = [
        draw(record, "roc", plots.roc(curve, auc), f"ROC curve, area {auc:.3f}"),
        draw(record, "threshold", plots.threshold(curve), "Precision and recall by threshold"),
    ]
    best = max(curve, key=lambda row: row["accuracy"] or 0.0)
    return Section(
        "threshold",
        "Where to draw the line",
        "threshold.html",
        {"plots": drawn, "auc": auc, "positive": _names(record, 2)[1], "best": best},
    )


def mistakes(record: RunRecord) -> Section | None:
    """The wrong answers with the highest scores, as pictures."""
    if record.scored is None:
        return None
    scored = record.scored
    wrong = int((scored.predicted != scored.labels).sum())
    names = _names(record, scored.scores.shape[1])
    cards = []
    for row in statistics.confident_mistakes(scored.labels, scored.scores, _MISTAKES):
        path = scored.paths[row]
        said, truth = int(scored.predicted[row]), int(scored.labels[row])
        data, problem = _thumbnail(path, record)
        cards.append(
            {
                "path": path,
                "file": shorten(Path(path).name or path, 27),
                "true": names[truth],
                "said": names[said],
                "score": float(scored.scores[row, said]),
                "true_score": float(scored.scores[row, truth]),
                "data": data,
                "problem": problem,
            }
        )
    return Section(
        "mistakes",
        "The most confident mistakes",
        "mistakes.html",
        {"cards": cards, "wrong": wrong, "images": len(scored.labels)},
    )


SECTIONS: tuple[Builder, ...] = (confusion, classes, calibration, threshold, mistakes)


def _thumbnail(path: str, record: RunRecord, side: int = 240) -> tuple[str | None, str]:
    """(`data:` address, "") or (None, why there is no picture)."""
    found = _find(path, record)
    if found is None:
        return None, "file not found"
    try:
        return data_address(_small(found, side)), ""
    except Exception as error:  # a picture is a comfort: the page goes on without it
        return None, f"cannot be read: {error}"


def _find(path: str, record: RunRecord) -> Path | None:
    for root in (Path(), *record.data_roots):
        try:
            candidate = root / path
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):  # too long a name, a zero byte
            return None
    return None


def _small(path: Path, side: int) -> Any:
    """A Pillow image, upright, whose longer side is at most `side` pixels."""
    from PIL import Image

    from retinue.data import decode, geometry

    encoded = decode.Encoded(decode.read_bytes(str(path)), path=str(path))
    width, height = encoded.size
    ratio = min(1.0, side / max(width, height))
    size = max(1, round(height * ratio)), max(1, round(width * ratio))
    decoded = encoded.decode(at_least=size)
    matrix = geometry.scale(size[1] / width, size[0] / height) @ decoded.to_original
    entry = geometry.Entry(decoded.image, matrix)
    return Image.fromarray(geometry.render([entry], size, border="reflect"))
