"""Collects a detector's boxes, and tells how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retinue.data.targets.boxes import Boxes
from retinue.evaluation.classification import confusion_table
from retinue.evaluation.detection import Found, Truth, figures_of
from retinue.evaluation.detection_diagnosis import ABOUT_NOTHING, diagnose
from retinue.evaluation.detection_errors import confusion, errors, taken
from retinue.evaluation.detections import Detections, Ints, gathered
from retinue.evaluation.matching import Matches, match
from retinue.evaluation.precision_recall import best_f1, curves, pooled
from retinue.sample import Sample
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.suppression import Kind, suppress
from retinue.tasks.detection.tables import BACKGROUND, Seen, boxes_table, predictions_table
from retinue.tasks.task import Meter


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
        thresholds: float | Sequence[float] | None = None,
        tables: bool = False,
    ) -> None:
        """`confidence`, `iou`, `max_boxes`, `class_wise`, `kind`: of the suppression; the best
        `max_boxes` of an image count. `thresholds`: the confidence from which on an answer is
        given, or one a class, at which mistakes are counted; None: where F1 is highest here.
        `tables`: mistakes and, where mAP50 is about 0, why, belong to the figures, too."""
        self._classes = tuple(classes)
        self._suppression: dict[str, Any] = {
            "confidence": confidence,
            "iou": iou,
            "max_boxes": max_boxes,
            "class_wise": class_wise,
            "kind": kind,
        }
        self._thresholds = thresholds
        self._in_full = tables
        self._seen: list[Seen] = []
        self._gathered: tuple[Detections, Matches] | None = None

    def update(self, findings: Sequence[Candidates], samples: Sequence[Sample]) -> None:
        """`findings`: the candidates of each image, before suppression."""
        self._gathered = None
        for candidates, sample in zip(findings, samples, strict=True):
            kept = suppress(candidates, **self._suppression)
            found = Found(kept.xyxy, kept.score, kept.of)
            self._seen.append(Seen(sample.key, kept.size, found, truth_of(sample)))

    def rows(self) -> Any:
        """See `Meter`."""
        return self._seen

    def extend(self, rows: Any) -> None:
        """See `Meter`."""
        self._gathered = None
        self._seen.extend(rows)

    def compute(self) -> dict[str, Any]:
        """See `retinue.evaluation.detection.figures`; over the images that have a target. With
        `tables` also `errors` (how many mistakes of each kind, see
        `retinue.evaluation.detection_errors`, and the `confidence` that boxes were taken from), and
        `diagnosis`, sentences, where mAP50 is about 0."""
        of, matches = self._all()
        most = self._suppression["max_boxes"]
        found = figures_of(of, self._classes, max_boxes=most, matches=matches)
        if self._in_full:
            confidence = self._confidence()
            counts = errors(of, matches, taken(of, confidence)).counts()
            found["errors"] = {"confidence": confidence, **counts}
            if found["map50"] is not None and found["map50"] < ABOUT_NOTHING:
                found["diagnosis"] = diagnose(of, self._sizes(), self._classes)
        return found

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
        """`predictions` and `boxes`: see `retinue.tasks.detection.tables`; `confusion`: see
        `retinue.evaluation.classification.confusion_table`, the last class being the background."""
        of, matches = self._all()
        chosen = taken(of, self._confidence())
        paths = [seen.path for seen in self._known()]
        return {
            "predictions": predictions_table(self._sorted(), self._classes),
            "boxes": boxes_table(of, errors(of, matches, chosen), paths, self._classes),
            "confusion": confusion_table(
                confusion(of, matches, chosen), [*self._classes, BACKGROUND]
            ),
        }

    def _confidence(self) -> float | list[float]:
        """From where on boxes are taken; where nothing tells it, all are."""
        given = self._thresholds
        if given is None:
            return self.best_thresholds().overall or 0.0
        return float(given) if isinstance(given, int | float) else [float(one) for one in given]

    def _sorted(self) -> list[Seen]:
        """By path; of one image that came twice, by what was found."""
        return sorted(self._seen, key=lambda seen: (seen.path, seen.found.score.tobytes()))

    def _known(self) -> list[Seen]:
        return [seen for seen in self._sorted() if seen.truth is not None]

    def _sizes(self) -> Ints:
        """(images, 2) widths and heights of those of which something is known."""
        return np.array([seen.size for seen in self._known()], dtype=np.int64).reshape(-1, 2)

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
