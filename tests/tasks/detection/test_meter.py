"""What a detector's boxes come to: figures, thresholds and tables, whatever the order."""

from __future__ import annotations

import json
import pickle

import pytest
from found import NAMES, candidates, meter_of, split

from retinue.data.targets.boxes import Boxes
from retinue.evaluation.classification import confusion_in
from retinue.evaluation.detection import declared
from retinue.sample import Sample
from retinue.tasks.detection.meter import DetectionMeter
from retinue.tasks.detection.tables import seen_in


def test_figures_are_those_of_what_suppression_leaves() -> None:
    target = Boxes.made([[0, 0, 10, 10]], [0])
    meter = DetectionMeter(NAMES, confidence=0.2, iou=0.5, max_boxes=2)
    boxes = candidates(
        (0, 0.9, 0, 0, 10, 10), (0, 0.8, 0, 0, 10, 9), (1, 0.7, 0, 0, 10, 10),
        (0, 0.3, 50, 50, 60, 60), (0, 0.1, 80, 80, 90, 90),
    )  # fmt: skip
    meter.update([boxes], [Sample("a.jpg", None, target)])
    (row,) = meter.tables()["predictions"].to_pylist()
    # The second overlaps the first, the last scores too little, of the others two are kept.
    assert row["labels"] == [0, 1]
    assert row["scores"] == pytest.approx([0.9, 0.7])
    told = meter.compute()
    assert told["voc_ap50"] == 1
    assert told["max_boxes"] == 2
    assert "ar2" in told


@pytest.mark.parametrize("batch", [1, 7, 30])
def test_neither_batches_nor_order_nor_processes_change_a_figure(batch: int) -> None:
    rows = split()
    expected = meter_of(rows).compute()
    assert expected["map50"] > 0.1
    assert meter_of(rows, batch).compute() == expected
    assert meter_of(rows[::-1], batch).compute() == expected
    parts = [meter_of(rows[start::2], batch) for start in (1, 0)]
    joined = DetectionMeter(NAMES)
    for part in parts:
        joined.extend(pickle.loads(pickle.dumps(part.rows())))
    assert joined.compute() == expected
    assert joined.tables()["predictions"].equals(meter_of(rows).tables()["predictions"])


def test_equal_scores_of_different_images_stand_in_the_order_of_paths() -> None:
    """A right and a wrong one of the same score: which is first changes the area."""
    there = Boxes.made([[0, 0, 10, 10]], [0])
    right = (candidates((0, 0.5, 0, 0, 10, 10)), Sample("b.jpg", None, there))
    wrong = (candidates((0, 0.5, 50, 50, 60, 60)), Sample("a.jpg", None, there))
    told = [meter_of(rows).compute()["voc_ap50"] for rows in ([right, wrong], [wrong, right])]
    assert told == [0.25, 0.25]


def test_figures_are_computed_anew_after_more_has_come() -> None:
    rows = split(8)
    meter = meter_of(rows[:4])
    first = meter.compute()
    meter.update([rows[4][0]], [rows[4][1]])
    assert meter.compute()["images"] == first["images"] + 1
    meter.extend(meter_of(rows[5:]).rows())
    assert meter.compute() == meter_of(rows).compute()


def test_images_of_which_nothing_is_known_are_in_the_table_alone() -> None:
    meter = meter_of([(candidates((0, 0.9, 0, 0, 5, 5)), Sample("a.jpg"))])
    assert meter.compute()["images"] == 0
    (row,) = meter.tables()["predictions"].to_pylist()
    assert row["known"] is False
    assert row["true_labels"] == []
    assert len(row["boxes"]) == 1


def test_areas_that_the_data_gives_tell_small_from_large() -> None:
    boxes, place = candidates((0, 0.9, 0, 0, 100, 100)), [[0, 0, 100, 100]]
    given = Boxes.made(place, [0], area=[900.0])
    meter = meter_of([(boxes, Sample("a.jpg", None, given))])
    told = meter.compute()
    assert (told["map_small"], told["map_large"]) == (1, None)
    rows, _ = seen_in(meter.tables()["predictions"])
    again = DetectionMeter(NAMES)
    again.extend(rows)
    assert again.compute() == told
    without = meter_of([(boxes, Sample("a.jpg", None, Boxes.made(place, [0])))]).compute()
    assert (without["map_small"], without["map_large"]) == (None, 1)


def test_an_image_without_objects_or_boxes_counts() -> None:
    meter = meter_of([(candidates(), Sample("a.jpg", None, Boxes.made([], [])))])
    assert meter.compute()["images"] == 1
    (row,) = meter.tables()["predictions"].to_pylist()
    assert (row["known"], row["boxes"], row["true_boxes"]) == (True, [], [])


def test_an_empty_meter_has_figures_and_tables() -> None:
    meter = DetectionMeter(NAMES)
    told = meter.compute()
    assert {told[figure.name] for figure in declared(NAMES)} == {None}
    assert json.loads(json.dumps(told)) == told
    assert meter.tables()["predictions"].num_rows == 0
    assert meter.best_thresholds().overall is None


def test_thresholds_are_those_of_the_best_f1() -> None:
    """Cats: right at 0.9 and 0.6, wrong at 0.3; dogs: wrong at 0.8, right at 0.7."""
    target = Boxes.made([[0, 0, 9, 9], [20, 0, 29, 9], [0, 20, 9, 29]], [0, 0, 1])
    boxes = candidates(
        (0, 0.9, 0, 0, 9, 9), (0, 0.6, 20, 0, 29, 9), (0, 0.3, 90, 0, 99, 9),
        (1, 0.8, 90, 20, 99, 29), (1, 0.7, 0, 20, 9, 29),
    )  # fmt: skip
    meter = meter_of([(boxes, Sample("a.jpg", None, target))])
    told = meter.best_thresholds()
    # Together: of the five, the best four give 2·3/(4 + 3).
    assert told.overall == pytest.approx(0.45)
    assert told.per_class == [pytest.approx(0.45), pytest.approx(0.35), None, None]
    assert told.overall == pytest.approx(meter.compute()["confidence"])
    rows = meter.compute()["per_class"]
    assert [row["threshold"] for row in rows] == told.per_class
    assert meter.best_thresholds(fewest=2).per_class == [pytest.approx(0.45), None, None, None]


def test_mistakes_belong_to_the_figures_in_full_and_to_two_tables() -> None:
    """Right at 0.9, nothing there at 0.7 and 0.2, one missed; F1 is best with the first alone."""
    target = Boxes.made([[0, 0, 9, 9], [40, 0, 49, 9]], [0, 1])
    boxes = candidates((0, 0.9, 0, 0, 9, 9), (1, 0.7, 90, 0, 99, 9), (2, 0.2, 90, 50, 99, 59))
    rows = [(boxes, Sample("a.jpg", None, target))]
    assert "errors" not in meter_of(rows).compute()
    full = meter_of(rows, tables=True).compute()
    assert full["errors"] == {
        "confidence": pytest.approx(0.8), "localisation": 0, "class": 0, "both": 0, "duplicate": 0,
        "background": 0, "missed": 1,
    }  # fmt: skip
    meter = meter_of(rows, tables=True, thresholds=[0.5, 0.5, 0.5, 0.5])
    assert meter.compute()["errors"]["confidence"] == [0.5] * 4
    assert meter.compute()["errors"]["background"] == 1
    assert json.loads(json.dumps(meter.compute())) == meter.compute()
    tables = meter.tables()
    right, false, missed = tables["boxes"].to_pylist()
    assert [right["kind"], false["kind"], missed["kind"]] == ["right", "background", "missed"]
    assert (right["label"], right["true_label"], right["path"]) == (0, 0, "a.jpg")
    assert (false["label"], false["true_label"], false["x1"]) == (1, None, 90)
    assert (missed["label"], missed["true_label"], missed["score"]) == (None, 1, None)
    assert missed["x2"] == 49
    counts, names = confusion_in(tables["confusion"])
    assert names == (*NAMES, "background")
    cells = list(zip(counts.true.tolist(), counts.predicted.tolist(), strict=True))
    assert cells == [(0, 0), (1, 4), (4, 1)]


def test_why_nothing_is_found_is_told_in_full() -> None:
    rows = split()
    assert "diagnosis" not in meter_of(rows, tables=True).compute()
    empty = [(candidates(), sample) for _, sample in rows]
    (said,) = meter_of(empty, tables=True).compute()["diagnosis"]
    assert "No box at all" in said
    meter = meter_of(empty, tables=True)
    assert meter.tables()["boxes"].column("kind").unique().to_pylist() == ["missed"]


@pytest.mark.parametrize("tables", [False, True])
def test_an_empty_meter_in_full(tables: bool) -> None:
    meter = DetectionMeter(NAMES, tables=tables)
    assert meter.compute()["objects"] == 0
    assert {table.num_rows for table in meter.tables().values()} == {0}
    assert seen_in(meter.tables()["predictions"]) == ([], tuple(NAMES))
