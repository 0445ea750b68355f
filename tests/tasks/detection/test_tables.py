"""The tables that an evaluation of a detector leaves, and how they are read."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from found import NAMES, SIZE, candidates, meter_of, split

from retinue.data.targets.boxes import Boxes
from retinue.evaluation.detection import figures
from retinue.evaluation.detections import Found
from retinue.sample import Sample
from retinue.tasks.detection.meter import DetectionMeter, truth_of
from retinue.tasks.detection.tables import predictions_table, seen_in


def test_the_table_holds_what_the_figures_are_made_of() -> None:
    rows = split(12)
    meter = meter_of(rows)
    table = meter.tables()["predictions"]
    assert json.loads(table.schema.metadata[b"classes"]) == NAMES
    founds, truths = [], []
    for row, (_, sample) in zip(table.to_pylist(), rows, strict=True):
        assert row["path"] == sample.key
        assert (row["width"], row["height"]) == SIZE
        boxes = np.array(row["boxes"], np.float32).reshape(-1, 4)
        founds.append(
            Found(boxes, np.array(row["scores"], np.float32), np.array(row["labels"], np.int64))
        )
        assert isinstance(sample.target, Boxes)
        assert row["true_boxes"] == sample.target.xyxy.tolist()
        assert row["difficult"] == sample.target.difficult.tolist()
        assert row["crowd"] == sample.target.crowd.tolist()
        assert tuple(row["not_exhaustive"]) == sample.target.not_exhaustive
        truths.append(truth_of(sample))
    assert figures(founds, [t for t in truths if t], NAMES) == meter.compute()
    assert isinstance(table, pa.Table)


def test_names_that_are_no_text_are_escaped_in_the_table() -> None:
    meter = meter_of([(candidates(), Sample("\udce9.jpg", None, Boxes.made([], [])))])
    (row,) = meter.tables()["predictions"].to_pylist()
    assert row["path"] == "\\udce9.jpg"


def test_a_table_is_read_as_what_it_was_made_from() -> None:
    meter = meter_of([*split(6), (candidates(), Sample("z.jpg"))])
    table = meter.tables()["predictions"]
    rows, names = seen_in(table)
    assert names == tuple(NAMES)
    assert rows[-1].truth is None
    assert predictions_table(rows, names).equals(table)
    again = DetectionMeter(NAMES)
    again.extend(rows)
    assert again.compute() == meter.compute()
    with pytest.raises(ValueError, match="not the predictions of a detector"):
        seen_in(pa.table({"path": ["a"]}))
