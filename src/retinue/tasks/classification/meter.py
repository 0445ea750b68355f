"""Collects a classifier's answers, and tells how good they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retinue.data.targets.one_class import UNKNOWN, OneClass
from retinue.evaluation.classification import (
    HEADS,
    Confusion,
    best_blend,
    blended,
    chunks,
    confusion_of,
    confusion_table,
    figures,
    top_k_accuracy,
)
from retinue.sample import Sample
from retinue.tasks.task import Meter
from retinue.text import utf8

Scores = npt.NDArray[np.float32]

HOTTEST = 20.0
"""The highest temperature; its inverse is the lowest."""
FITTED_ON = 20_000
"""A temperature, and a blend, is one number: so many images, drawn evenly, say it as well as
all."""
PRIOR = 10
"""A cautious fit believes that the network was right about itself as if so many more images had
said so: that a few images were all recognised does not make it certain of everything."""
LIKELY = 1.92
"""By so many nats, in sum, the labels have to become more likely before a cautious fit takes a
temperature: half the 95 % quantile of χ² with one degree of freedom (likelihood-ratio test)."""
_TOLERANCE = 1e-4
"""Of a temperature's logarithm."""


def answered(finding: Scores) -> Scores:
    """What a finding of the task's answers, log-probabilities (classes,): of two classifiers the
    first row, before what they say by themselves."""
    return finding if finding.ndim == 1 else finding[0]


class ClassificationMeter(Meter):
    """Keeps float32 log-probabilities, and those of two classifiers beside what they answer
    together. Images without a label are in the table only."""

    def __init__(
        self, classes: Sequence[str], top_k: int, old: Sequence[str] | None = None
    ) -> None:
        """`old`: those of the classes that others are told apart from, if any are."""
        self._classes = tuple(classes)
        self._old = None if old is None else np.isin(np.array(self._classes), np.array(old))
        self._top_k = top_k
        self._logs: list[Scores] = []
        self._heads: list[Scores] = []
        self._labels: list[int] = []
        self._paths: list[str] = []
        self._confusion: Confusion | None = None

    def update(self, findings: Sequence[Scores], samples: Sequence[Sample]) -> None:
        """`findings`: of each image log-probabilities (classes,), or (3, classes), see
        `answered`."""
        if not findings:
            return
        self._confusion = None
        self._logs.append(np.stack([answered(finding) for finding in findings]))
        if findings[0].ndim > 1:
            self._heads.append(np.stack([finding[1:] for finding in findings]))
        for sample in samples:
            target = sample.target
            known = isinstance(target, OneClass)
            self._labels.append(int(target.of) if known else UNKNOWN)  # type: ignore[union-attr]
            self._paths.append(sample.key)

    def rows(self) -> Any:
        """See `Meter`."""
        return self._logs, self._heads, self._labels, self._paths

    def extend(self, rows: Any) -> None:
        """See `Meter`."""
        self._confusion = None
        logs, heads, labels, paths = rows
        self._logs.extend(logs)
        self._heads.extend(heads)
        self._labels.extend(labels)
        self._paths.extend(paths)

    def reread(self, tables: Mapping[str, pa.Table]) -> None:
        """See `Meter`; of several heads only what they answer together is there."""
        table = tables["predictions"]
        flat = table["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        scores = flat.reshape(table.num_rows, len(self._classes))
        logs = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
        self.extend(([logs], [], table["label"].to_pylist(), table["path"].to_pylist()))

    def compute(self) -> dict[str, Any]:
        """See `retinue.evaluation.classification.figures`; over the images that have a label."""
        labels, scores = self._known()
        confusion = self._counted(labels, scores)
        found = figures(labels, scores, self._classes, top_k=self._top_k, confusion=confusion)
        if self._heads:
            known = np.array(self._labels) != UNKNOWN
            each = np.concatenate(self._heads)[known]
            for place, name in enumerate(HEADS):
                found[f"top1_{name}"] = top_k_accuracy(labels, each[:, place], 1)
        if self._old is not None:
            for name, of in (("top1_old", self._old[labels]), ("top1_new", ~self._old[labels])):
                found[name] = top_k_accuracy(labels[of], scores[of], 1)
        return found

    def tables(self) -> dict[str, pa.Table]:
        """`predictions`: path (string), label (int32, −1: unknown), scores (list of float32);
        `confusion`: see `retinue.evaluation.classification.confusion_table`."""
        scores = np.exp(self._all())
        # In 64 bits: 100,000 images of 21,843 classes are more scores than 32 bits count.
        offsets = np.arange(len(self._paths) + 1, dtype=np.int64) * len(self._classes)
        predictions = pa.table(
            {
                # File names need not be valid text; what is not is escaped, as in the writers.
                "path": pa.array([utf8(path) for path in self._paths], pa.string()),
                "label": pa.array(self._labels, pa.int32()),
                "scores": pa.LargeListArray.from_arrays(
                    pa.array(offsets), pa.array(scores.reshape(-1), pa.float32())
                ),
            }
        )
        counted = self._confusion or self._counted(*self._known())
        return {
            "predictions": predictions,
            "confusion": confusion_table(counted, self._classes),
        }

    def blend(self, so_far: float, temperature: float) -> float:
        """The share of the first of two classifiers that recognises most, see `best_blend`; what
        was collected becomes what they answer with it, its logits divided by `temperature`.
        `so_far` where nothing is known."""
        labels, known = self._to_fit_on()
        if not self._heads or len(known) == 0:
            return so_far
        both = np.concatenate(self._heads)
        share = best_blend(labels[known], both[known, 0], both[known, 1])
        self._logs = [sharpened(blended(both[:, 0], both[:, 1], share), 1 / temperature)]
        self._confusion = None
        return share

    def calibrate(self, so_far: float = 1.0, *, cautious: bool = False) -> float:
        """The temperature, between 1/20 and 20, that makes the labels most likely; what was
        collected, and divided by `so_far` already, is rescaled by it. `so_far` where nothing is
        known, or no other helps.

        `cautious`: only as far from 1 as the images bear out (`PRIOR`, `LIKELY`). What was
        collected is then left as it is at 1, so that epochs compare, whichever took one.
        """
        if cautious and so_far != 1.0:
            self._rescale(so_far)
            so_far = 1.0
        labels, known = self._to_fit_on()
        if len(known) == 0:
            return so_far
        logs = self._all()
        low, high = so_far / HOTTEST, so_far * HOTTEST
        chosen, of = logs[known], labels[known]
        sharpness = _best_sharpness(chosen, of, low, high, prior=PRIOR if cautious else 0)
        if sharpness == 1.0 or (cautious and not _gain(chosen, of, sharpness) > LIKELY):
            return so_far
        if not cautious:
            self._rescale(sharpness)
        return so_far / sharpness

    def _to_fit_on(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """All labels, and which of the images that have one a number is fitted on."""
        labels = np.array(self._labels, dtype=np.int64)
        known = np.flatnonzero(labels != UNKNOWN)
        if len(known) > FITTED_ON:
            known = known[np.linspace(0, len(known) - 1, FITTED_ON).round().astype(np.int64)]
        return labels, known

    def _rescale(self, sharpness: float) -> None:
        """Multiply all logits by `sharpness`."""
        self._logs = [sharpened(self._all(), sharpness)]
        self._confusion = None

    def _all(self) -> Scores:
        if not self._logs:
            return np.zeros((0, len(self._classes)), dtype=np.float32)
        if len(self._logs) > 1:
            self._logs = [np.concatenate(self._logs)]
        return self._logs[0]

    def _counted(self, labels: npt.NDArray[np.int64], scores: Scores) -> Confusion:
        """Once, whether figures or tables ask first."""
        if self._confusion is None:
            self._confusion = confusion_of(labels, scores)
        return self._confusion

    def _known(self) -> tuple[npt.NDArray[np.int64], Scores]:
        labels = np.array(self._labels, dtype=np.int64)
        known = labels != UNKNOWN
        return labels[known], np.exp(self._all()[known])


def _gain(logs: Scores, labels: npt.NDArray[np.int64], by: float) -> float:
    """How much more likely, in nats, `logs` times `by` make all the labels."""
    rows = np.arange(len(labels))
    before, after = (sharpened(logs, by)[rows, labels].astype(np.float64) for by in (1.0, by))
    return float((after - before).sum())


def _best_sharpness(
    logs: Scores, labels: npt.NDArray[np.int64], low: float, high: float, prior: float = 0.0
) -> float:
    """What to multiply `logs` by, between `low` and `high`, so that the labels become most likely;
    1.0 if that is no better. `prior`: so many further images are believed in, labelled as often as
    `logs` as they are expect it.

    The negative log-likelihood is convex in it: Newton's method finds where its slope is 0, within
    a bracket. The slope tells the place of a minimum far better than the loss does, which is flat
    there, so float32 is enough.
    """
    logs = logs - logs.max(axis=1, keepdims=True)
    np.maximum(logs, -1e4, out=logs)  # of what is impossible, 0 × −inf would be no number
    own = logs[np.arange(len(labels)), labels]
    if prior:
        share = prior / (prior + len(labels))
        for rows in chunks(logs):
            p = np.exp(logs[rows])
            expected = (p * logs[rows]).sum(axis=1) / p.sum(axis=1)
            own[rows] = (1 - share) * own[rows] + share * expected

    def slopes(at: float) -> tuple[float, float]:
        """The mean loss's first and second derivative."""
        first = second = 0.0
        for rows in chunks(logs):
            z = logs[rows]
            p = np.exp(z * np.float32(at))
            total = p.sum(axis=1)
            p *= z
            mean = p.sum(axis=1) / total
            p *= z
            first += float((mean - own[rows]).sum(dtype=np.float64))
            second += float((p.sum(axis=1) / total - mean**2).sum(dtype=np.float64))
        return first / len(logs), second / len(logs)

    start = found = min(max(1.0, low), high)
    slope, curvature = begun = slopes(start)
    end = high if slope < 0 else low
    if not slopes(end)[0] * slope < 0:  # it is beyond the bound; or nothing tells where
        found = end if abs(slope) > 0 else start
    else:
        left, right = sorted((start, end))
        for _ in range(60):
            step = found - slope / curvature if curvature > 0 else right
            if not left < step < right:
                step = math.sqrt(left * right)
            moved, found = abs(math.log(step / found)), step
            if moved < _TOLERANCE:
                break
            slope, curvature = slopes(found)
            left, right = (left, found) if slope > 0 else (found, right)
    # By convexity, no more than this is won: if it is only rounding, all stays as it was.
    return found if abs(begun[0] * (found - 1)) > 1e-9 else 1.0


def sharpened(logs: Scores, by: float) -> Scores:
    """Log-probabilities of `logs` times `by`."""
    if by == 1.0:
        return logs
    made = logs * np.float32(by)
    for rows in chunks(made):
        made[rows] -= made[rows].max(axis=1, keepdims=True)
        made[rows] -= np.log(np.exp(made[rows]).sum(axis=1, keepdims=True))
    return made
