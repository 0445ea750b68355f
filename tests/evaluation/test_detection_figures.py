"""The figures of a detector, as `metrics.json` has them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from detections import NO_BOXES, found, scene, truth
from hypothesis import given
from hypothesis import strategies as st

from retinue.evaluation.detection import (
    Found,
    declared,
    declared_among,
    figures,
    remark,
    undefined,
)
from retinue.evaluation.detections import gathered
from retinue.evaluation.matching import match
from retinue.evaluation.precision_recall import average_precision, curves
from retinue.figures import refuse_not_finite, wilson

NAMES = ["cat", "dog", "人"]


def flat(values: dict[str, Any]) -> dict[str, float | None]:
    """Every number, those of the classes under `class.figure`."""
    rows = {f"{row['name']}.{k}": v for row in values["per_class"] for k, v in row.items()}
    plain = {k: v for k, v in values.items() if k not in ("per_class", "intervals")}
    told = {**plain, **rows}
    return {k: v for k, v in told.items() if not isinstance(v, str)}


def test_what_is_found_of_two_cats_and_a_dog() -> None:
    """Cat: right at 0.9, wrong at 0.8, right at 0.7 with an IoU of 0.6. Dog: nothing."""
    told = figures(
        [found((0, 0.9, 0, 0, 10, 10), (0, 0.8, 50, 50, 60, 60)), found((0, 0.7, 0, 0, 10, 6))],
        [truth((0, 0, 0, 10, 10)), truth((0, 0, 0, 10, 10), (1, 20, 20, 40, 40))],
        NAMES,
    )
    cat = 0.5 + 0.5 * 2 / 3
    assert told["images"] == 2
    assert told["objects"] == 3
    assert told["voc_ap50"] == pytest.approx(cat / 2)
    assert told["voc07_ap50"] == pytest.approx((6 + 5 * 2 / 3) / 11 / 2)
    # COCO reads the precision at 0, 0.01 … 1: 51 of 1 and 50 of 2/3.
    assert told["map50"] == pytest.approx((51 + 50 * 2 / 3) / 101 / 2)
    assert told["map75"] == pytest.approx(51 / 101 / 2)
    # At 0.5, 0.55 and 0.6 as at 0.5; at seven IoUs above as at 0.75.
    expected = (3 * (51 + 50 * 2 / 3) + 7 * 51) / 101 / 10 / 2
    assert told["map50_95"] == pytest.approx(expected)
    assert told["map_small"] == pytest.approx(expected)
    assert told["map_medium"] is told["map_large"] is None
    # Recall: cat 1 and ½, dog 0.
    assert told["ar100"] == pytest.approx((3 * 1 + 7 * 0.5) / 10 / 2)
    assert told["ar1"] == told["ar10"] == told["ar100"]
    # All three boxes, of three objects: F1 = 2·2/(3 + 3).
    assert told["f1"] == pytest.approx(2 / 3)
    assert told["precision"] == told["recall"] == pytest.approx(2 / 3)
    assert told["confidence"] == pytest.approx(0.35)
    rows = {row["name"]: row for row in told["per_class"]}
    assert rows["cat"]["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert (rows["cat"]["objects"], rows["cat"]["found"]) == (2, 3)
    assert (rows["dog"]["ap50"], rows["dog"]["recall"], rows["dog"]["threshold"]) == (0, 0, None)
    assert told["miss_rate"] == pytest.approx((rows["cat"]["miss_rate"] + 1) / 2)


def test_a_class_without_objects_is_none_and_pulls_no_mean() -> None:
    boxes, there = found((0, 0.9, 0, 0, 10, 10), (2, 0.9, 0, 0, 5, 5)), truth((0, 0, 0, 10, 10))
    told = figures([boxes], [there], NAMES)
    assert told["map50"] == told["voc_ap50"] == pytest.approx(1)
    absent = told["per_class"][2]
    assert {k for k, v in absent.items() if v is None} == {
        "ap50", "ap50_95", "voc_ap50", "precision", "recall", "f1", "threshold", "miss_rate",
    }  # fmt: skip
    assert (absent["objects"], absent["found"]) == (0, 1)
    assert "“dog” and “人” have no objects here" in remark(told)


@pytest.mark.parametrize("max_boxes", [1, 5, 10, 100, 300])
def test_every_declared_figure_is_computed(max_boxes: int) -> None:
    founds, truths = scene(8, 3)
    told = figures(founds, truths, NAMES, max_boxes=max_boxes)
    names = [figure.name for figure in declared(NAMES, max_boxes)]
    assert len(set(names)) == len(names)
    assert set(names) <= set(told)
    assert f"ar{max_boxes}" in names
    again = json.loads(json.dumps(told))
    assert again == told
    assert [figure.name for figure in declared_among(list(again), NAMES)] == names
    refuse_not_finite(told, "test", mend="")


def test_150_objects_of_which_100_boxes_count() -> None:
    corners = [(0, 20 * (k % 15), 20 * (k // 15)) for k in range(150)]
    there = truth(*((k, x, y, x + 15, y + 15) for k, x, y in corners))
    boxes = found(*((k, 1 - i / 200, x, y, x + 15, y + 15) for i, (k, x, y) in enumerate(corners)))
    told = figures([boxes], [there], ["cell"])
    assert told["ar100"] == pytest.approx(2 / 3)
    assert told["map50"] == pytest.approx(67 / 101)
    assert "An image has 150 objects" in remark(told)
    assert "judged_boxes=150" in remark(told)
    told = figures([boxes], [there], ["cell"], max_boxes=150)
    assert told["ar150"] == told["map50"] == pytest.approx(1)
    assert remark(told) == ""


def test_what_was_never_found_is_named() -> None:
    told = figures([found((0, 0.9, 0, 0, 5, 5))], [truth((0, 0, 0, 5, 5), (1, 0, 0, 5, 5))], NAMES)
    assert "“dog” was never found" in remark(told)
    assert remark({}) == remark({"per_class": 3, "most_objects": "many", "diagnosis": 1}) == ""
    assert remark({"diagnosis": ["A.", "B."]}) == "Why mAP50 is about 0: A."


def test_without_any_object_nothing_is_defined() -> None:
    hard = truth((0, 0, 0, 9, 9), difficult=(0,))
    for truths in ([], [truth()], [hard]):
        told = figures([NO_BOXES] * len(truths), truths, NAMES)
        assert told["objects"] == 0
        names = {figure.name for figure in declared(NAMES)}
        assert {name for name in names if told[name] is None} == names
        assert set(undefined(truths, NAMES)) == names


@given(st.integers(0, 1000))
def test_what_is_undefined_is_known_before_anything_is_found(seed: int) -> None:
    founds, truths = scene(2, 3, seed=seed)
    told = figures(founds, truths, NAMES)
    names = {figure.name for figure in declared(NAMES)}
    if any(len(f.of) for f in founds):
        # Precision needs boxes, which is no matter of the split.
        names -= {"precision"}
        assert set(undefined(truths, NAMES)) - {"precision"} == {
            name for name in names if told[name] is None
        }


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_scores_matter_only_by_their_order(seed: int, shift: int) -> None:
    founds, truths = scene(5, 3, seed=seed)
    squeezed = [Found(f.xyxy, np.square(f.score.astype(float)) / 2, f.of) for f in founds]
    one, two = (flat(figures(boxes, truths, NAMES)) for boxes in (founds, squeezed))
    for name, value in one.items():
        if "threshold" not in name and name != "confidence":
            assert two[name] == (None if value is None else pytest.approx(value)), name


@given(st.integers(0, 1000))
def test_a_perfect_detector_has_1(seed: int) -> None:
    _, truths = scene(4, 3, seed=seed, flags=False)
    founds = [Found(t.xyxy, np.full(len(t.of), 0.8), t.of) for t in truths]
    told = figures(founds, truths, NAMES)
    for name in ("map50", "map50_95", "voc_ap50", "voc07_ap50", "f1", "precision", "recall"):
        assert told[name] in (None, pytest.approx(1)), name
    assert told["miss_rate"] in (None, pytest.approx(1e-10))


def test_intervals_are_about_those_of_images_drawn_anew() -> None:
    """Against a bootstrap over images: neither much narrower nor twice as wide."""
    founds, truths = scene(60, 3, seed=3, digits=6, clutter=4)
    low, high = figures(founds, truths, NAMES)["intervals"]["voc_ap50"]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(60):
        of = gathered(
            *zip(*((founds[i], truths[i]) for i in rng.integers(0, 60, 60)), strict=True), 3
        )
        aps = [average_precision(curve) for curve in curves(of, match(of))]
        drawn.append(np.mean([ap for ap in aps if ap is not None]))
    spread = np.std(drawn) * 2 * 1.96
    assert 0.8 * spread < high - low < 2 * spread
    assert low < np.mean(drawn) < high


def test_an_interval_does_not_close_up_where_all_is_found() -> None:
    boxes, there = found((0, 0.9, 0, 0, 10, 10)), truth((0, 0, 0, 10, 10))
    told = figures([boxes] * 4, [there] * 4, NAMES)
    assert told["intervals"]["map50"][0] < 0.6
    assert told["intervals"]["map50"][1] == 1
    (recall,) = (figure for figure in declared(NAMES) if figure.name == "recall")
    assert recall.interval(told) == pytest.approx(wilson(4, 4))
    assert figures([NO_BOXES], [truth()], NAMES)["intervals"] == {}
