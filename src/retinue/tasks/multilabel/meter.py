"""Collects which labels were given, and tells how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retinue.data.targets.several_labels import SeveralLabels
from retinue.evaluation.multilabel import (
    Labelled,
    best_threshold,
    best_thresholds,
    figures,
    held_back,
)
from retinue.sample import Sample
from retinue.tasks.task import Meter
from retinue.text import utf8

Logits = npt.NDArray[np.float32]
NO, YES, OPEN = 0, 1, -1
"""What is known of a class."""


def probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    """Of logits of any shape: in float64, where no two logits come to one probability."""
    wide = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(wide))
    made: npt.NDArray[np.float64] = np.where(wide >= 0, 1 / (1 + small), small / (1 + small))
    return made


class MultilabelMeter(Meter):
    """Keeps the logits of all classes. Images of which nothing is known are in the table only."""

    def __init__(self, classes: Sequence[str], thresholds: Sequence[float]) -> None:
        """`thresholds`: from which probability on the label of each class is given."""
        self._classes = tuple(classes)
        self.thresholds = np.array(thresholds, dtype=np.float64)
        self._logits: list[Logits] = []
        self._said: list[npt.NDArray[np.int8]] = []
        self._paths: list[str] = []

    def update(self, findings: Sequence[Logits], samples: Sequence[Sample]) -> None:
        """`findings`: logits (classes,) of each image."""
        if not findings:
            return
        self._logits.append(np.stack(list(findings)))
        self._said.append(np.stack([self._known_of(sample) for sample in samples]))
        self._paths += [sample.key for sample in samples]

    def _known_of(self, sample: Sample) -> npt.NDArray[np.int8]:
        target = sample.target
        if not isinstance(target, SeveralLabels):
            return np.full(len(self._classes), OPEN, np.int8)
        said = np.full(len(self._classes), NO, np.int8)
        said[[int(k) for k in target.unknown]] = OPEN
        said[[int(k) for k in target.of]] = YES
        return said

    def rows(self) -> Any:
        """See `Meter`."""
        return self._logits, self._said, self._paths

    def extend(self, rows: Any) -> None:
        """See `Meter`."""
        logits, said, paths = rows
        self._logits.extend(logits)
        self._said.extend(said)
        self._paths.extend(paths)

    def compute(self) -> dict[str, Any]:
        """See `retinue.evaluation.multilabel.figures`; over the images of which any label is
        known."""
        return figures(self._told(), self._classes, self.thresholds)

    def best_threshold(self) -> float | None:
        """See `retinue.evaluation.multilabel.best_threshold`."""
        return best_threshold(self._told())

    def best_thresholds(self) -> list[float] | None:
        """See `retinue.evaluation.multilabel.best_thresholds`."""
        return best_thresholds(self._told())

    def held_back(self, thresholds: Sequence[float], start: float) -> list[float]:
        """See `retinue.evaluation.multilabel.held_back`."""
        return held_back(thresholds, self._told(), start)

    def tables(self) -> dict[str, pa.Table]:
        """`predictions`: path (string), labels and unknown (lists of int32: the classes that are in
        the image, and those of which nobody knows), scores (list of float32)."""
        logits, said = self._all()
        scores = probabilities(logits).astype(np.float32)
        offsets = np.arange(len(self._paths) + 1, dtype=np.int64) * len(self._classes)
        return {
            "predictions": pa.table(
                {
                    "path": pa.array([utf8(path) for path in self._paths], pa.string()),
                    "labels": _lists(said == YES),
                    "unknown": _lists(said == OPEN),
                    "scores": pa.LargeListArray.from_arrays(
                        pa.array(offsets), pa.array(scores.reshape(-1), pa.float32())
                    ),
                }
            )
        }

    def _all(self) -> tuple[Logits, npt.NDArray[np.int8]]:
        if not self._logits:
            none = (0, len(self._classes))
            return np.zeros(none, np.float32), np.zeros(none, np.int8)
        if len(self._logits) > 1:
            self._logits = [np.concatenate(self._logits)]
            self._said = [np.concatenate(self._said)]
        return self._logits[0], self._said[0]

    def _told(self) -> Labelled:
        logits, said = self._all()
        kept = (said != OPEN).any(axis=1)
        said = said[kept]
        return Labelled(said == YES, said != OPEN, probabilities(logits[kept]))


def _lists(flags: npt.NDArray[np.bool_]) -> pa.Array:
    """The columns that are set in each row."""
    offsets = np.concatenate([[0], np.cumsum(flags.sum(axis=1))]).astype(np.int64)
    columns = np.nonzero(flags)[1].astype(np.int32)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(columns))
