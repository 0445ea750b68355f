"""Reads a run folder, finished or not, whole or partly damaged, into one `RunRecord`.

Nothing here knows the trainer: what is not in the folder is simply absent from the record, and
what cannot be read is named in `RunRecord.notes`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from retinue.documents import load_yaml, read_json
from retinue.errors import UsageError
from retinue.files import nearest_run, read_text
from retinue.page.text import words
from retinue.page.written import checked

if TYPE_CHECKING:
    import pyarrow as pa

_SIGNS = ("metrics.json", "metrics.csv", "recipe.yaml", "predictions.parquet", "study.json")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run folder as plain values; its Parquet tables are read when they are asked for."""

    folder: Path
    recipe_text: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """The rows of `metrics.csv`, numbers as float; what was not measured is left out."""
    metrics: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    batches: list[tuple[str, Path]] = field(default_factory=list)
    """(stage, picture) of example training batches."""
    notes: list[str] = field(default_factory=list)
    """What could not be read, and why."""
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def table(self, name: str) -> pa.Table | None:
        """The Parquet file `name`; None where it is not there, or damaged, which is then noted."""

        def read(record: RunRecord) -> Any:
            import pyarrow.parquet as pq

            return _attempt(record.folder / name, pq.read_table, None, record.notes)

        return self._once(("table", name), read)

    def derived(self, make: Callable[[RunRecord], T]) -> T:
        """`make(record)`, worked out once: for what several sections need."""
        return self._once(make, make)

    def _once(self, key: Any, make: Callable[[RunRecord], T]) -> T:
        if key not in self._made:
            self._made[key] = make(self)
        value: T = self._made[key]
        return value

    @property
    def task(self) -> str:
        """The task's name; empty where the folder does not say it."""
        return str(self.metrics.get("task") or self.recipe.get("task") or "")

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
            "there is no such run folder",
            where=repr(str(folder)),
            mend=nearest_run(folder, _SIGNS),
        )
    if not any((folder / name).exists() for name in _SIGNS):
        raise UsageError(
            "this is not a run folder",
            where=repr(str(folder)),
            mend=f"a run holds at least one of {', '.join(_SIGNS)}",
        )
    notes: list[str] = []

    def attempt(name: str, read: Callable[[Path], T], default: T) -> T:
        return _attempt(folder / name, read, default, notes)

    metrics: dict[str, Any] = attempt("metrics.json", _read_object, {})
    classes: tuple[str, ...] = attempt("classes.json", _read_classes, ())
    recipe_text = attempt("recipe.yaml", read_text, "")
    # Of a search only the study says what is trained.
    study: dict[str, Any] = {} if recipe_text else attempt("study.json", _read_object, {})
    return RunRecord(
        folder=folder,
        recipe_text=recipe_text,
        recipe=attempt("recipe.yaml", _read_yaml, {}) or dict(study.get("recipe") or {}),
        classes=classes or _classes_of(metrics),
        epochs=attempt("metrics.csv", _read_epochs, []),
        metrics=metrics,
        environment=attempt("environment.json", _read_object, {}),
        batches=[
            (path.stem.removeprefix("batch_"), path)
            for path in sorted((folder / "plots").glob("batch_*.png"))
        ],
        notes=notes,
    )


def of_metrics(metrics: Mapping[str, Any]) -> RunRecord:
    """What `metrics.json` alone tells of a run."""
    return RunRecord(Path(), classes=_classes_of(metrics), metrics=dict(metrics))


def reservation(
    metrics: Mapping[str, Any], *, own: bool, picked: Sequence[str] | None = None
) -> str:
    """Why the figures in `metrics.json` are no fair judgement, in a sentence; empty where nothing
    speaks against them. `own`: the split is one of the training itself, not of other data.
    `picked`: what a validation split has chosen; None: as the figures say."""
    split = metrics.get("split") if own else None
    learnt, images = metrics.get("learnt_from"), metrics.get("images")
    if isinstance(learnt, int) and isinstance(images, int) and learnt < images:
        return (
            f"The network was trained on {learnt:,} of these {images:,} images: the figures are"
            " too good for new ones."
        )
    if learnt or metrics.get("trained_on_this_split") or split == "train":
        return "The network was trained on these images: the figures say nothing about new ones."
    if metrics.get("transductive"):
        return (
            "The network learnt from these images, too, by labels of its own (transductive): it may"
            " do worse on new ones."
        )
    fitted = metrics.get("fitted_on_this_split")
    if picked is None:
        # Older runs do not say; then it is the usual thing.
        picked = [] if metrics.get("epoch_chosen_on_this_split") is False else ["the best epoch"]
    chosen = list(picked) if split in ("val", "valid", "validation") else []
    chosen += [f"the {words(str(name))}" for name in fitted] if isinstance(fitted, list) else []
    if not chosen:
        return ""
    *others, last = chosen
    return (
        f"This split also chose {', '.join(others)}{' and ' if others else ''}{last},"
        " so the figures are somewhat too good; a test split is the fair judge."
    )


def picks(record: RunRecord) -> bool:
    """Whether the validation split chose the epoch that was kept."""
    evaluation = record.recipe.get("evaluation")
    keep = evaluation.get("keep") if isinstance(evaluation, dict) else None
    return keep != "last"


def number(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def _attempt(path: Path, read: Callable[[Path], T], default: T, notes: list[str]) -> T:
    if not path.exists():
        return default
    try:
        return read(path)
    except Exception as error:  # a report of a damaged run still shows the rest of it
        notes.append(f"{path.name} cannot be read: {type(error).__name__}: {error}")
        return default


def _read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    checked(path.name, value, path.name)
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    value = load_yaml(read_text(path))
    if not isinstance(value, dict):
        raise ValueError("not a mapping of keys to values")
    return value


def _read_classes(path: Path) -> tuple[str, ...]:
    value = read_json(path)
    if isinstance(value, dict):
        value = value.get("classes", [])
    return tuple(str(name) for name in value)


def _classes_of(metrics: Mapping[str, Any]) -> tuple[str, ...]:
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
