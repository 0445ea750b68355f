"""Collects a detector's boxes, and tells how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retinue.arrays import Read
from retinue.data.box_sizes import MAX_BOXES
from retinue.data.targets.boxes import Boxes
from retinue.evaluation.classification import confusion_table
from retinue.evaluation.detection import Found, Truth, figures_of
from retinue.evaluation.detection_diagnosis import ABOUT_NOTHING, diagnose
from retinue.evaluation.detection_errors import confusion
from retinue.evaluation.precision_recall import best_f1, curves
from retinue.page.pictures import pictures_table
from retinue.sample import Sample
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.examples import shown
from retinue.tasks.detection.judged import Judged, judge
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
    """Keeps the boxes that suppression leaves: those that average precision and recall are of, and
    those that answers would have, of which F1, mistakes and the confidence to answer from are.
    Images without a target are in the table only.

    The figures do not depend on the order in which images come, nor on batches or processes: they
    are worked out in the order of the paths.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        confidence: float = 0.001,
        iou: float = 0.65,
        max_boxes: int = MAX_BOXES,
        class_wise: bool = True,
        kind: Kind = "greedy",
        answer_iou: float | None = None,
        answer_boxes: int | None = None,
        thresholds: float | Sequence[float] | None = None,
        tables: bool = False,
    ) -> None:
        """`confidence`, `iou`, `max_boxes`, `class_wise`, `kind`: of the suppression; the best
        `max_boxes` of an image count. `answer_iou`, `answer_boxes`: in place of `iou` and
        `max_boxes` where answers are suppressed otherwise than what is judged. `thresholds`: the
        confidence from which on an answer is given, or one a class, at which mistakes are counted;
        None: where F1 is highest here.
        `tables`: mistakes and, where mAP50 is about 0, why, belong to the figures, too."""
        self._classes = tuple(classes)
        self._suppression: dict[str, Any] = {
            "confidence": confidence,
            "iou": iou,
            "max_boxes": max_boxes,
            "class_wise": class_wise,
            "kind": kind,
        }
        self._answering = {
            **self._suppression,
            "iou": iou if answer_iou is None else answer_iou,
            "max_boxes": max_boxes if answer_boxes is None else answer_boxes,
        }
        self._thresholds = thresholds
        self._in_full = tables
        self._seen: list[Seen] = []
        self._reads: dict[str, Read] = {}
        self._judged: Judged | None = None

    def update(self, findings: Sequence[Candidates], samples: Sequence[Sample]) -> None:
        """`findings`: the candidates of each image, before suppression."""
        self._judged = None
        same = self._answering == self._suppression
        for candidates, sample in zip(findings, samples, strict=True):
            found = _left(candidates, self._suppression)
            answers = found if same else _left(candidates, self._answering)
            self._seen.append(Seen(sample.key, candidates.size, found, answers, truth_of(sample)))
            if self._in_full and sample.read is not None:
                self._reads[sample.key] = sample.read

    def rows(self) -> Any:
        """See `Meter`."""
        return self._seen

    def extend(self, rows: Any) -> None:
        """See `Meter`."""
        self._judged = None
        self._seen.extend(rows)

    def compute(self) -> dict[str, Any]:
        """See `retinue.evaluation.detection.figures`; over the images that have a target. With
        `tables` also `errors` (how many mistakes of each kind, see
        `retinue.evaluation.detection_errors`, and the `confidence` that boxes were taken from), and
        `diagnosis`, sentences, where mAP50 is about 0."""
        told = self._all()
        most = self._suppression["max_boxes"]
        found = figures_of(
            told.ranked.of,
            self._classes,
            max_boxes=most,
            matches=told.ranked.matches,
            answers=told.answers,
        )
        if self._in_full:
            found["errors"] = {"confidence": told.confidence, **told.errors.counts()}
            if found["map50"] is not None and found["map50"] < ABOUT_NOTHING:
                found["diagnosis"] = diagnose(told.ranked.of, told.sizes, self._classes)
        return found

    def best_thresholds(self, *, fewest: int = 1) -> Thresholds:
        """The confidences that maximise F1 of the answers; of a class by itself where it has
        `fewest` objects or more."""
        told = self._all()
        each = curves(*told.answers)
        own = [best_f1(curve) if curve.objects >= fewest else None for curve in each]
        return Thresholds(
            None if told.best is None else told.best.threshold,
            [None if one is None else one.threshold for one in own],
        )

    def tables(self) -> dict[str, pa.Table]:
        """`predictions` and `boxes`: see `retinue.tasks.detection.tables`; `confusion`: see
        `retinue.evaluation.classification.confusion_table`, the last class being the background;
        `pictures`, where images lie in no files: those that the page shows."""
        told = self._all()
        names = [*self._classes, BACKGROUND]
        found = {
            "predictions": predictions_table(self._sorted(), self._classes),
            "boxes": boxes_table(
                told.answers.of, told.errors, [row.path for row in told.rows], self._classes
            ),
            "confusion": confusion_table(confusion(*told.answers, told.chosen), names),
        }
        if self._reads:
            reads = {path: self._reads[path] for path in shown(told) if path in self._reads}
            found["pictures"] = pictures_table(reads)
        return found

    def _sorted(self) -> list[Seen]:
        """By path; of one image that came twice, by what was found."""
        return sorted(self._seen, key=lambda seen: (seen.path, seen.found.score.tobytes()))

    def _all(self) -> Judged:
        """Once, whether figures, thresholds or tables ask first."""
        if self._judged is None:
            given = self._thresholds
            if given is not None and not isinstance(given, int | float):
                given = list(given)
            self._judged = judge(self._sorted(), self._classes, given)
        return self._judged


def _left(candidates: Candidates, how: dict[str, Any]) -> Found:
    kept = suppress(candidates, **how)
    return Found(kept.xyxy, kept.score, kept.of)


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
