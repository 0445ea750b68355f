"""Collects a detector's boxes, and tells how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retinue.data.targets.boxes import Boxes
from retinue.documents import json_text
from retinue.evaluation.detection import Found, Truth, figures_of
from retinue.evaluation.detections import Detections, gathered
from retinue.evaluation.matching import Matches, match
from retinue.evaluation.precision_recall import best_f1, curves, pooled
from retinue.sample import ImageSize, Sample
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.suppression import Kind, suppress
from retinue.tasks.task import Meter
from retinue.text import utf8


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """One image."""

    path: str
    size: ImageSize
    found: Found
    truth: Truth | None
    """None: nothing is known of it."""


@dataclass(frozen=True)
class Thresholds:
    """The confidences that maximise F1."""

    overall: float | None
    """Of all boxes together; None where nothing was found, or there is nothing to be found."""
    per_class: list[float | None]
    """Of each class by itself; None where its objects are too few to tell, or none was found."""


class DetectionMeter(Meter):
    """Keeps the boxes that suppression leaves. Images without a target are in the table only.

    The figures do not depend on the order in which images come, nor on batches or processes: they
    are worked out in the order of the paths.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        confidence: float = 0.001,
        iou: float = 0.65,
        max_boxes: int = 100,
        class_wise: bool = True,
        kind: Kind = "greedy",
    ) -> None:
        """`confidence`, `iou`, `max_boxes`, `class_wise`, `kind`: of the suppression; the best
        `max_boxes` of an image count."""
        self._classes = tuple(classes)
        self._suppression: dict[str, Any] = {
            "confidence": confidence,
            "iou": iou,
            "max_boxes": max_boxes,
            "class_wise": class_wise,
            "kind": kind,
        }
        self._seen: list[_Seen] = []
        self._gathered: tuple[Detections, Matches] | None = None

    def update(self, findings: Sequence[Candidates], samples: Sequence[Sample]) -> None:
        """`findings`: the candidates of each image, before suppression."""
        self._gathered = None
        for candidates, sample in zip(findings, samples, strict=True):
            kept = suppress(candidates, **self._suppression)
            found = Found(kept.xyxy, kept.score, kept.of)
            self._seen.append(_Seen(sample.key, kept.size, found, truth_of(sample)))

    def rows(self) -> Any:
        """See `Meter`."""
        return self._seen

    def extend(self, rows: Any) -> None:
        """See `Meter`."""
        self._gathered = None
        self._seen.extend(rows)

    def compute(self) -> dict[str, Any]:
        """See `retinue.evaluation.detection.figures`; over the images that have a target."""
        of, matches = self._all()
        most = self._suppression["max_boxes"]
        return figures_of(of, self._classes, max_boxes=most, matches=matches)

    def best_thresholds(self, *, fewest: int = 1) -> Thresholds:
        """The confidences that maximise F1 on what was collected; of a class by itself where it has
        `fewest` objects or more."""
        of, matches = self._all()
        best = best_f1(pooled(of, matches))
        each = [best_f1(c) if c.objects >= fewest else None for c in curves(of, matches)]
        return Thresholds(
            None if best is None else best.threshold,
            [None if one is None else one.threshold for one in each],
        )

    def tables(self) -> dict[str, pa.Table]:
        """`predictions`: see `predictions_table`."""
        return {"predictions": predictions_table(self._sorted(), self._classes)}

    def _sorted(self) -> list[_Seen]:
        """By path; of one image that came twice, by what was found."""
        return sorted(self._seen, key=lambda seen: (seen.path, seen.found.score.tobytes()))

    def _all(self) -> tuple[Detections, Matches]:
        """Once, whether figures, thresholds or tables ask first."""
        if self._gathered is None:
            known = [(seen.found, seen.truth) for seen in self._sorted() if seen.truth is not None]
            of = gathered([f for f, _ in known], [t for _, t in known], len(self._classes))
            self._gathered = of, match(of)
        return self._gathered


def truth_of(sample: Sample) -> Truth | None:
    """What is known of the image of `sample`; None where nothing is."""
    target = sample.target
    if not isinstance(target, Boxes):
        return None
    return Truth(
        target.xyxy,
        np.array(target.of, dtype=np.int64),
        target.difficult,
        target.crowd,
        tuple(int(k) for k in target.not_exhaustive),
        target.area,
    )


_BOX = pa.list_(pa.float32(), 4)
PREDICTIONS = pa.schema(
    {
        "path": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "labels": pa.list_(pa.int32()),
        "scores": pa.list_(pa.float32()),
        "boxes": pa.list_(_BOX),
        "known": pa.bool_(),
        "true_labels": pa.list_(pa.int32()),
        "true_boxes": pa.list_(_BOX),
        "difficult": pa.list_(pa.bool_()),
        "crowd": pa.list_(pa.bool_()),
        "not_exhaustive": pa.list_(pa.int32()),
    }
)
"""Of `predictions.parquet`, a row an image. `labels` are indices of classes, the best box first;
boxes are x1, y1, x2, y2 in pixels of the original; `known`: whether there is a target, whose
objects the columns from `true_labels` on hold."""


def predictions_table(rows: Sequence[_Seen], classes: Sequence[str]) -> pa.Table:
    """By `PREDICTIONS`; the names of the classes stand in the schema's metadata, a JSON list under
    `classes`."""
    nothing = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    truths = [nothing if row.truth is None else row.truth for row in rows]
    columns = {
        # File names need not be valid text; what is not is escaped, as in the writers.
        "path": [utf8(row.path) for row in rows],
        "width": [row.size[0] for row in rows],
        "height": [row.size[1] for row in rows],
        "labels": [row.found.of for row in rows],
        "scores": [row.found.score for row in rows],
        "boxes": [list(row.found.xyxy) for row in rows],
        "known": [row.truth is not None for row in rows],
        "true_labels": [t.of for t in truths],
        "true_boxes": [list(t.xyxy) for t in truths],
        "difficult": [_flags(t.difficult, t) for t in truths],
        "crowd": [_flags(t.crowd, t) for t in truths],
        "not_exhaustive": [list(t.not_exhaustive) for t in truths],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in PREDICTIONS]
    table = pa.Table.from_arrays(arrays, schema=PREDICTIONS)
    return table.replace_schema_metadata({"classes": json_text(list(classes))})


def _flags(given: Any, truth: Truth) -> Any:
    return np.zeros(len(truth.of), bool) if given is None else given
