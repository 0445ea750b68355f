"""Reads a run folder, finished or not, whole or partly damaged, into one `RunRecord`.

Nothing here knows the trainer: what is not in the folder is simply absent from the record, and
what cannot be read is named in `RunRecord.notes`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from retinue.errors import UsageError
from retinue.files import nearest

_SIGNS = ("metrics.json", "metrics.csv", "recipe.yaml", "predictions.parquet")
T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """What a classifier said of labelled images; unlabelled rows are left out."""

    paths: list[str]
    labels: npt.NDArray[np.int64]
    """(n,) indices into the classes."""
    scores: npt.NDArray[np.float64]
    """(n, classes) probabilities."""

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """(n,) the class with the highest score."""
        return np.asarray(self.scores.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class RunRecord:
    """A run folder as plain values."""

    folder: Path
    recipe_text: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """The rows of `metrics.csv`, numbers as float; what was not measured is left out."""
    metrics: dict[str, Any] = field(default_factory=dict)
    scored: Scored | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    batches: list[tuple[str, Path]] = field(default_factory=list)
    """(stage, picture) of example training batches."""
    notes: list[str] = field(default_factory=list)
    """What could not be read, and why."""

    @property
    def task(self) -> str:
        """The task's name, `classification` unless the folder says otherwise."""
        return str(self.metrics.get("task") or self.recipe.get("task") or "classification")

    @property
    def data_roots(self) -> list[Path]:
        """Folders against which relative image paths may be meant."""
        data = self.recipe.get("data")
        given = [data.get("images"), data.get("path")] if isinstance(data, dict) else []
        roots = [Path(str(root)) for root in given if root]
        return [*roots, *(root.parent for root in roots), self.folder, Path()]


def read_run(folder: Path) -> RunRecord:
    """The record of the run in `folder`; `UsageError` if that is no run folder."""
    if not folder.is_dir():
        raise UsageError(
            "there is no such run folder", where=repr(str(folder)), mend=nearest(folder)
        )
    if not any((folder / name).exists() for name in _SIGNS):
        raise UsageError(
            "this is not a run folder",
            where=repr(str(folder)),
            mend=f"a run holds at least one of {', '.join(_SIGNS)}",
        )
    notes: list[str] = []

    def attempt(name: str, read: Callable[[Path], T], default: T) -> T:
        path = folder / name
        if not path.exists():
            return default
        try:
            return read(path)
        except Exception as error:  # a report of a damaged run still shows the rest of it
            notes.append(f"{name} cannot be read: {type(error).__name__}: {error}")
            return default

    metrics: dict[str, Any] = attempt("metrics.json", _read_object, {})
    classes: tuple[str, ...] = attempt("classes.json", _read_classes, ())
    recipe_text = attempt("recipe.yaml", lambda p: p.read_text(encoding="utf-8"), "")
    return RunRecord(
        folder=folder,
        recipe_text=recipe_text,
        recipe=attempt("recipe.yaml", _read_yaml, {}),
        classes=classes or _classes_of(metrics),
        epochs=attempt("metrics.csv", _read_epochs, []),
        metrics=metrics,
        scored=attempt("predictions.parquet", _read_predictions, None),
        environment=attempt("environment.json", _read_object, {}),
        batches=[
            (path.stem.removeprefix("batch_"), path)
            for path in sorted((folder / "plots").glob("batch_*.png"))
        ],
        notes=notes,
    )


def number(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def _read_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML

    value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _read_classes(path: Path) -> tuple[str, ...]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict):
        value = value.get("classes", [])
    return tuple(str(name) for name in value)


def _classes_of(metrics: dict[str, Any]) -> tuple[str, ...]:
    """A folder that an evaluation wrote has the names only here."""
    rows = metrics.get("per_class")
    named = isinstance(rows, list) and all(isinstance(r, dict) and "name" in r for r in rows)
    return tuple(str(row["name"]) for row in rows) if named and rows else ()


def _read_epochs(path: Path) -> list[dict[str, Any]]:
    by_epoch: dict[str, dict[str, Any]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for index, row in enumerate(csv.DictReader(stream)):
            values: dict[str, Any] = {}
            for key, text in row.items():
                if key == "stage":
                    values[key] = text
                elif key and (value := number(text)) is not None:
                    values[key] = value
            by_epoch[row.get("epoch") or f"row {index}"] = values  # of a repeated epoch, the last
    rows = list(by_epoch.values())
    return [{"epoch": float(i + 1), **row} for i, row in enumerate(rows)]


def _read_predictions(path: Path) -> Scored | None:
    """None for the table of a task that leaves other columns."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if not {"path", "label", "scores"} <= set(table.column_names) or not table.num_rows:
        return None
    labels = table["label"].to_numpy().astype(np.int64)
    flat = table["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    scores = flat.astype(np.float64).reshape(table.num_rows, -1)
    known = (labels >= 0) & (labels < scores.shape[1]) & np.isfinite(scores).all(axis=1)
    if not known.any():
        return None
    paths = [str(p) for p, keep in zip(table["path"].to_pylist(), known, strict=True) if keep]
    return Scored(paths, labels[known], scores[known])
