"""What a run's predictions hold, read and matched once for all sections of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retinue.evaluation.detection_errors import Errors, errors, taken
from retinue.evaluation.detections import Detections, Flags, Found, gathered
from retinue.evaluation.matching import Matches, match
from retinue.evaluation.precision_recall import Point, best_f1, pooled
from retinue.page.record import RunRecord, number
from retinue.tasks.detection.tables import Seen, seen_in

Confidence = float | list[float]


class Matched(NamedTuple):
    """Boxes in the images of which something is known, and what each of them did."""

    of: Detections
    matches: Matches


@dataclass(frozen=True, eq=False)
class Judged:
    """Images of which something is known, and what was found in them."""

    rows: list[Seen]
    names: list[str]
    ranked: Matched
    """What average precision and recall are of, whose suppression is a mild one."""
    answers: Matched
    """What the model would answer if each confidence did: all below is of these."""
    best: Point | None
    """Where F1 is highest, of all classes together; None without objects."""
    confidence: Confidence
    """From where on boxes are taken: one number, or one a class."""
    chosen: Flags
    """(d,): the boxes that are taken."""
    errors: Errors
    """Of those."""

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(images, 2): width and height of each."""
        return np.array([row.size for row in self.rows], dtype=np.int64).reshape(-1, 2)


def judged(record: RunRecord) -> Judged | None:
    """`predictions.parquet`, read once; None without it, or where no image has a target."""
    return record.derived(_judged)


def told_confidence(metrics: Mapping[str, Any], classes: int) -> Confidence | None:
    """The one that the mistakes in `metrics.json` were counted at; None where it has none."""
    told = metrics.get("errors")
    given = told.get("confidence") if isinstance(told, dict) else None
    if isinstance(given, list):
        values = [number(one) for one in given]
        known = [one for one in values if one is not None]
        return known if len(known) == classes else None
    return number(given)


def _judged(record: RunRecord) -> Judged | None:
    table = record.table("predictions.parquet")
    if table is None:
        return None
    try:
        rows, names = seen_in(table)
    except ValueError:
        return None  # another task's
    if all(row.truth is None for row in rows):
        return None
    return judge(rows, names, told_confidence(record.metrics, len(names)))


def judge(rows: Sequence[Seen], names: Sequence[str], confidence: Confidence | None) -> Judged:
    """What was seen, judged from `confidence` on; None: from where F1 is highest, or, where nothing
    tells that, all boxes."""
    rows = [row for row in rows if row.truth is not None]
    ranked = _matched([row.found for row in rows], rows, len(names))
    same = all(row.answers is row.found for row in rows)
    answers = ranked if same else _matched([row.answers for row in rows], rows, len(names))
    best = best_f1(pooled(*answers))
    if confidence is None:
        confidence = 0.0 if best is None or best.threshold is None else best.threshold
    chosen = taken(answers.of, confidence)
    told = errors(*answers, chosen)
    return Judged(rows, list(names), ranked, answers, best, confidence, chosen, told)


def _matched(found: Sequence[Found], rows: Sequence[Seen], classes: int) -> Matched:
    of = gathered(found, [row.truth for row in rows if row.truth is not None], classes)
    return Matched(of, match(of))
