"""What a run's predictions hold, read once for all sections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retinue.evaluation.multilabel import Labelled
from retinue.page.record import RunRecord, number


@dataclass(frozen=True, eq=False)
class Judged:
    """What was said of images of which any label is known."""

    paths: list[str]
    told: Labelled
    names: list[str]
    thresholds: npt.NDArray[np.float64]
    """(classes,) from which probability on a label was given."""

    @property
    def given(self) -> npt.NDArray[np.bool_]:
        """bool (n, classes)"""
        flags: npt.NDArray[np.bool_] = self.told.scores >= self.thresholds
        return flags


def judged(record: RunRecord) -> Judged | None:
    """`predictions.parquet`, read once; None without it."""
    return record.derived(_judged)


def _judged(record: RunRecord) -> Judged | None:
    table = record.table("predictions.parquet")
    if table is None or not {"path", "labels", "unknown", "scores"} <= set(table.column_names):
        return None  # absent, damaged, or another task's
    if not table.num_rows:
        return None
    flat = table["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    scores = flat.reshape(table.num_rows, -1).astype(np.float64)
    labels, unknown = (_flags(table[name], scores.shape) for name in ("labels", "unknown"))
    if labels is None or unknown is None:
        return None
    kept = ~unknown.all(axis=1) & np.isfinite(scores).all(axis=1)
    if not kept.any():
        return None
    paths = [str(p) for p, keep in zip(table["path"].to_pylist(), kept, strict=True) if keep]
    told = Labelled(labels[kept], ~unknown[kept], scores[kept])
    classes = scores.shape[1]
    names = list(record.classes[:classes])
    names += [f"class {k}" for k in range(len(names), classes)]
    return Judged(paths, told, names, _thresholds(record, names))


def _flags(column: pa.ChunkedArray, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """bool of `shape`: which columns each row of the list names; None where it names others."""
    whole = column.combine_chunks()
    rows = np.repeat(np.arange(len(whole)), whole.value_lengths().to_numpy(zero_copy_only=False))
    columns = whole.flatten().to_numpy(zero_copy_only=False)
    if len(columns) and not (columns.min() >= 0 and columns.max() < shape[1]):
        return None
    flags = np.zeros(shape, bool)
    flags[rows, columns] = True
    return flags


def _thresholds(record: RunRecord, names: list[str]) -> npt.NDArray[np.float64]:
    """Those of `metrics.json`."""
    rows = record.metrics.get("per_class")
    known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    told = {str(row.get("name")): row for row in known}
    found = [number(told.get(name, {}).get("threshold")) for name in names]
    return np.array([0.5 if value is None else value for value in found])
