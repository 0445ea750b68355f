"""The section with labels that are probably wrong, by confident learning (Northcutt et al.,
"Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021), as `cleanlab` has it."""

from __future__ import annotations

import csv
import importlib.util
import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.files import write_text
from retinue.page.record import RunRecord
from retinue.page.section import Section
from retinue.tasks.classification.counts import TEMPLATES
from retinue.tasks.classification.scored import Scored, card, names_of, scored

_SUSPECTS = 48
"""So many are shown as pictures."""
FILE = "suspects.csv"
"""All of them, in the run's folder."""


def available() -> bool:
    """Whether the extra `labels` is installed."""
    return importlib.util.find_spec("cleanlab") is not None


def suspects(record: RunRecord) -> Section | None:
    """The labels that the model speaks against, the least credible first. None without the extra,
    without predictions, and where the model has learnt from these labels themselves."""
    rows = scored(record)
    if rows is None or not available() or _learnt(record):
        return None
    found = record.derived(_found)
    names = names_of(record, rows.scores.shape[1])
    _write(record, rows, found, names)
    if not len(found):
        return None
    return Section("suspects", "Labels to look at again", TEMPLATES / "suspects.html", {
        "cards": [card(record, rows, int(k), side=200) for k in found[:_SUSPECTS]],
        "count": len(found),
        "images": len(rows.labels),
        "share": len(found) / len(rows.labels),
        "split": str(record.metrics.get("split") or ""),
        "folds": isinstance(record.metrics.get("folds"), list),
        "file": FILE,
    })  # fmt: skip


def find(labels: npt.NDArray[np.int64], scores: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Rows whose label is probably wrong, the least credible first. `labels`: int64 (n,); `scores`:
    (n, classes) probabilities of a model that has not learnt from these rows."""
    from cleanlab.filter import find_label_issues

    there = np.unique(labels)  # of a class without a row nothing is to be learnt
    if len(there) < 2:
        return np.zeros(0, np.int64)
    among = scores[:, there].astype(np.float64)
    among /= np.maximum(among.sum(axis=1, keepdims=True), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with few rows: nothing is lost
        rows = find_label_issues(
            np.searchsorted(there, labels),
            among,
            return_indices_ranked_by="self_confidence",
            n_jobs=1,  # no processes: threads of torch have run in this one
        )
    return np.asarray(rows, dtype=np.int64)


def _found(record: RunRecord) -> npt.NDArray[np.int64]:
    rows = scored(record)
    assert rows is not None
    return find(rows.labels, rows.scores)


def _learnt(record: RunRecord) -> bool:
    metrics = record.metrics
    return bool(metrics.get("trained_on_this_split") or metrics.get("split") == "train")


def _write(record: RunRecord, rows: Scored, found: npt.NDArray[np.int64], names: list[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "label_score", "answer", "answer_score"])
    for k in found.tolist():
        label, said = int(rows.labels[k]), int(rows.predicted[k])
        scores = [f"{float(rows.scores[k, one]):.6f}" for one in (label, said)]
        writer.writerow([rows.paths[k], names[label], scores[0], names[said], scores[1]])
    write_text(record.folder / FILE, text.getvalue())
