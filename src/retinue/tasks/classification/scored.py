"""What a run's predictions hold, read once for all sections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.page.pictures import overlay, thumbnail
from retinue.page.record import RunRecord
from retinue.text import shorten


@dataclass(frozen=True, eq=False)
class Scored:
    """What a classifier said of labelled images; unlabelled rows are left out."""

    paths: list[str]
    labels: npt.NDArray[np.int64]
    """(n,) indices into the classes."""
    scores: npt.NDArray[np.float32]
    """(n, classes) probabilities."""
    predicted: npt.NDArray[np.int64]
    """(n,) the class with the highest score."""


def scored(record: RunRecord) -> Scored | None:
    """`predictions.parquet`, read once; None without it, or where no row has a label."""
    return record.derived(_scored)


def names_of(record: RunRecord, count: int) -> list[str]:
    """The names of the first `count` classes; what has none is numbered."""
    known = list(record.classes[:count])
    return known + [f"class {k}" for k in range(len(known), count)]


def card(
    record: RunRecord, rows: Scored, row: int, *, side: int = 240, why: bool = False
) -> dict[str, Any]:
    """What `cards.html` shows of an image: its picture, the answer and the truth; `why`: also what
    the answer rests on, if that was kept."""
    names = names_of(record, rows.scores.shape[1])
    path, said, truth = rows.paths[row], int(rows.predicted[row]), int(rows.labels[row])
    data, problem = thumbnail(path, record, side)
    return {
        "path": path,
        "file": shorten(Path(path).name or path, 27),
        "true": names[truth],
        "said": names[said],
        "score": float(rows.scores[row, said]),
        "true_score": float(rows.scores[row, truth]),
        "data": data,
        "overlay": overlay(path, names[said], record) if why else None,
        "problem": problem,
    }


def _scored(record: RunRecord) -> Scored | None:
    table = record.table("predictions.parquet")
    if table is None or not {"path", "label", "scores"} <= set(table.column_names):
        return None  # absent, damaged, or another task's
    if not table.num_rows:
        return None
    labels = table["label"].to_numpy().astype(np.int64)
    flat = table["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    scores = flat.reshape(table.num_rows, -1)
    known = (labels >= 0) & (labels < scores.shape[1]) & np.isfinite(scores).all(axis=1)
    if not known.any():
        return None
    paths = [str(p) for p, keep in zip(table["path"].to_pylist(), known, strict=True) if keep]
    kept = scores if known.all() else scores[known]
    return Scored(paths, labels[known], kept, kept.argmax(axis=1).astype(np.int64))
