"""The tables that an evaluation of a detector leaves, and how a report reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retinue.documents import json_text, parse_json
from retinue.evaluation.detection_errors import Errors, Kind
from retinue.evaluation.detections import Detections, Found, Truth
from retinue.evaluation.matching import NOBODY
from retinue.sample import ImageSize
from retinue.text import utf8

BACKGROUND = "background"
"""What `confusion.parquet` calls the class of what is no object."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One image that was looked at."""

    path: str
    size: ImageSize
    """Width and height of the original."""
    found: Found
    """The boxes that are judged by their ranks."""
    answers: Found
    """Those that the suppression of answers leaves, whatever they score; may be `found` itself."""
    truth: Truth | None
    """None: nothing is known of it."""


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
        "areas": pa.list_(pa.float64()),
        "answer_labels": pa.list_(pa.int32()),
        "answer_scores": pa.list_(pa.float32()),
        "answer_boxes": pa.list_(_BOX),
    }
)
"""Of `predictions.parquet`, a row an image. `labels` are indices of classes, the best box first;
boxes are x1, y1, x2, y2 in pixels of the original; `known`: whether there is a target, whose
objects the columns from `true_labels` to `areas` hold (`areas`: null where the boxes' own are
meant). The last three: the boxes that the suppression of answers leaves; null where these are the
same."""
_ANSWERS = ("answer_labels", "answer_scores", "answer_boxes")


def predictions_table(rows: Sequence[Seen], classes: Sequence[str]) -> pa.Table:
    """By `PREDICTIONS`; the names of the classes stand in the schema's metadata, a JSON list under
    `classes`."""
    nothing = Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    truths = [nothing if row.truth is None else row.truth for row in rows]
    answers = [None if row.answers is row.found else row.answers for row in rows]
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
        "areas": [t.area for t in truths],
        "answer_labels": [None if a is None else a.of for a in answers],
        "answer_scores": [None if a is None else a.score for a in answers],
        "answer_boxes": [None if a is None else list(a.xyxy) for a in answers],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in PREDICTIONS]
    table = pa.Table.from_arrays(arrays, schema=PREDICTIONS)
    return table.replace_schema_metadata({"classes": json_text(list(classes))})


def _flags(given: Any, truth: Truth) -> Any:
    return np.zeros(len(truth.of), bool) if given is None else given


def seen_in(table: pa.Table) -> tuple[list[Seen], tuple[str, ...]]:
    """The rows that `predictions_table` was made from, and the classes. Raises ValueError for a
    table of another kind."""
    if not set(PREDICTIONS.names) - set(_ANSWERS) <= set(table.column_names):
        raise ValueError("not the predictions of a detector")
    names = parse_json((table.schema.metadata or {}).get(b"classes", b"[]"))
    columns: dict[str, Any] = {name: [None] * table.num_rows for name in _ANSWERS}
    columns |= {n: table[n].to_pylist() for n in PREDICTIONS.names if n in table.column_names}
    rows = []
    for k, path in enumerate(columns["path"]):
        found = _found(columns["labels"][k], columns["scores"][k], columns["boxes"][k])
        answers = found
        if columns[_ANSWERS[0]][k] is not None:
            answers = _found(*(columns[name][k] for name in _ANSWERS))
        truth = Truth(
            _boxes(columns["true_boxes"][k]),
            np.array(columns["true_labels"][k], np.int64),
            np.array(columns["difficult"][k], np.bool_),
            np.array(columns["crowd"][k], np.bool_),
            columns["not_exhaustive"][k],
            None if columns["areas"][k] is None else np.array(columns["areas"][k], np.float64),
        )
        size = columns["width"][k], columns["height"][k]
        rows.append(Seen(path, size, found, answers, truth if columns["known"][k] else None))
    return rows, tuple(map(str, names))


def _found(labels: Any, scores: Any, boxes: Any) -> Found:
    return Found(_boxes(boxes), np.array(scores, np.float32), np.array(labels, np.int64))


def _boxes(given: Any) -> Any:
    return np.array(given, np.float32).reshape(-1, 4)


def boxes_table(
    of: Detections, told: Errors, paths: Sequence[str], classes: Sequence[str]
) -> pa.Table:
    """`boxes.parquet`: a row a box that is taken, and a row a missed object. `path`; `kind`
    (`right`, `localisation`, `class`, `both`, `duplicate`, `background`, `ignored`, `missed`);
    `label` and `true_label` (int32 indices of classes, null where there is none); `score` and `iou`
    (float32); `x1, y1, x2, y2` (float32, pixels of the original). Names of the classes as in
    `predictions`."""
    rows = np.flatnonzero(told.kind != Kind.LEFT_OUT)
    missed = np.flatnonzero(told.missed)
    thing = told.object[rows]
    known = thing != NOBODY
    nothing = np.zeros(len(missed), np.float32)
    labels = np.concatenate([of.of[rows], np.zeros(len(missed), np.int64)])
    true = np.concatenate([_at(of.true_of, thing), of.true_of[missed]])
    absent = np.concatenate([np.zeros(len(rows), bool), np.ones(len(missed), bool)])
    image = np.concatenate([of.image[rows], of.true_image[missed]])
    kinds = [Kind(kind).name.lower() for kind in told.kind[rows].tolist()] + ["missed"] * len(
        missed
    )
    corners = np.concatenate([of.xyxy[rows], of.true_xyxy[missed]]).astype(np.float32)
    table = {
        "path": pa.array([utf8(paths[k]) for k in image.tolist()], pa.string()),
        "kind": pa.array(kinds, pa.string()),
        "label": pa.array(labels, pa.int32(), mask=absent),
        "true_label": pa.array(
            true, pa.int32(), mask=np.concatenate([~known, np.zeros(len(missed), bool)])
        ),
        "score": pa.array(
            np.concatenate([of.score[rows].astype(np.float32), nothing]), mask=absent
        ),
        "iou": pa.array(np.concatenate([told.overlap[rows].astype(np.float32), nothing])),
        **{name: pa.array(corners[:, k]) for k, name in enumerate(("x1", "y1", "x2", "y2"))},
    }
    return pa.table(table).replace_schema_metadata({"classes": json_text(list(classes))})


def _at(values: Any, places: Any) -> Any:
    """Those at `places`; 0 where that is `NOBODY`."""
    if not len(values):
        return np.zeros(len(places), dtype=np.int64)
    return np.where(places != NOBODY, values[places], 0)
