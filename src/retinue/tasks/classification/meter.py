"""Collects a classifier's answers, and tells how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retinue.data.targets.one_class import UNKNOWN, OneClass
from retinue.evaluation.classification import confusion_counts, confusion_table, figures
from retinue.sample import Sample
from retinue.tasks.task import Meter

Scores = npt.NDArray[np.float32]

HOTTEST = 20.0
"""The highest temperature; its inverse is the lowest."""


class ClassificationMeter(Meter):
    """Keeps float32 log-probabilities. Images without a label are in the table only."""

    def __init__(self, classes: Sequence[str], top_k: int) -> None:
        self._classes = tuple(classes)
        self._top_k = top_k
        self._logs: list[Scores] = []
        self._labels: list[int] = []
        self._paths: list[str] = []

    def update(self, findings: Sequence[Scores], samples: Sequence[Sample]) -> None:
        """`findings`: log-probabilities (classes,) of each image."""
        if not findings:
            return
        self._logs.append(np.stack(findings))
        for sample in samples:
            target = sample.target
            known = isinstance(target, OneClass)
            self._labels.append(int(target.of) if known else UNKNOWN)  # type: ignore[union-attr]
            self._paths.append(sample.key)

    def rows(self) -> Any:
        """See `Meter`."""
        return self._logs, self._labels, self._paths

    def extend(self, rows: Any) -> None:
        """See `Meter`."""
        logs, labels, paths = rows
        self._logs.extend(logs)
        self._labels.extend(labels)
        self._paths.extend(paths)

    def compute(self) -> dict[str, Any]:
        """See `retinue.evaluation.classification.figures`; over the images that have a label."""
        labels, scores = self._known()
        return figures(labels, scores, self._classes, top_k=self._top_k)

    def tables(self) -> dict[str, pa.Table]:
        """`predictions`: path (string), label (int32, −1: unknown), scores (list of float32);
        `confusion`: see `retinue.evaluation.classification.confusion_table`."""
        scores = np.exp(self._all())
        # In 64 bits: 100,000 images of 21,843 classes are more scores than 32 bits count.
        offsets = np.arange(len(self._paths) + 1, dtype=np.int64) * len(self._classes)
        predictions = pa.table(
            {
                # File names need not be valid text; what is not is escaped, as in the writers.
                "path": pa.array([_text(path) for path in self._paths], pa.string()),
                "label": pa.array(self._labels, pa.int32()),
                "scores": pa.LargeListArray.from_arrays(
                    pa.array(offsets), pa.array(scores.reshape(-1), pa.float32())
                ),
            }
        )
        labels, known = self._known()
        predicted = known.argmax(axis=1).astype(np.int64)
        confusion = confusion_table(confusion_counts(labels, predicted), self._classes)
        return {"predictions": predictions, "confusion": confusion}

    def calibrate(self, so_far: float = 1.0) -> float:
        """The temperature, between 1/20 and 20, that makes the labels most likely; what was
        collected, and divided by `so_far` already, is rescaled by it. `so_far` where nothing is
        known, or no other helps."""
        logs, labels = self._all().astype(np.float64), np.array(self._labels, dtype=np.int64)
        known = labels != UNKNOWN
        if not known.any():
            return so_far
        temperature = _best_temperature(logs[known] * so_far, labels[known], so_far)
        scaled = logs * (so_far / temperature)
        scaled -= np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        self._logs = [scaled.astype(np.float32)]
        return temperature

    def _all(self) -> Scores:
        if not self._logs:
            return np.zeros((0, len(self._classes)), dtype=np.float32)
        return np.concatenate(self._logs)

    def _known(self) -> tuple[npt.NDArray[np.int64], Scores]:
        labels = np.array(self._labels, dtype=np.int64)
        known = labels != UNKNOWN
        return labels[known], np.exp(self._all()[known])


def _best_temperature(
    logs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], otherwise: float
) -> float:
    """By golden-section search over the logarithm: the negative log-likelihood is convex in 1 / T,
    so it has one minimum. `otherwise` if that is no better."""
    rows = np.arange(len(labels))

    def loss(log_t: float) -> float:
        scaled = logs * np.exp(-log_t)
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[rows, labels]).mean())

    low, high = np.log(1 / HOTTEST), np.log(HOTTEST)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    found = (low + high) / 2
    better = loss(found) < loss(np.log(otherwise)) - 1e-9  # more than rounding
    return float(np.exp(found)) if better else otherwise


def _text(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
