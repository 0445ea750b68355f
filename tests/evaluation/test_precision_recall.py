"""VOC's average precision, the best threshold and the miss rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from detections import NO_BOXES, found, plain_voc, scene, truth
from hypothesis import given
from hypothesis import strategies as st

from retinue.evaluation.detections import Found, Truth, gathered
from retinue.evaluation.matching import match
from retinue.evaluation.precision_recall import (
    Curve,
    at,
    average_precision,
    average_precision_07,
    best_f1,
    curves,
    log_average_miss_rate,
    pooled,
)


def curve(scores: list[float], right: list[bool], objects: int) -> Curve:
    hits = np.array(right, dtype=bool)
    return Curve(np.array(scores), np.cumsum(hits), np.cumsum(~hits), objects)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_average_precision_is_the_devkits(seed: int, iou: float) -> None:
    """Whole pixels, difficult objects, equal scores; its boxes count from 1 and end with a pixel
    of their own."""
    founds, truths = scene(30, 4, seed=seed, whole=True)
    plain = [Truth(t.xyxy, t.of, t.difficult) for t in truths]
    of = gathered(founds, plain, 4)
    ours = curves(of, match(of, iou))
    theirs = plain_voc(founds, plain, 4, iou)
    assert theirs[-1] is None
    assert any(pair is not None and 0 < pair[0] < 1 for pair in theirs)
    for one, pair in zip(ours, theirs, strict=True):
        if pair is None:
            assert average_precision(one) is average_precision_07(one) is None
        else:
            assert average_precision(one) == pytest.approx(pair[0], abs=1e-12)
            assert average_precision_07(one) == pytest.approx(pair[1], abs=1e-12)


def test_areas_worked_out_by_hand() -> None:
    """Right, wrong, right of 2 objects: precisions 1, 1/2, 2/3 at recalls 1/2, 1/2, 1."""
    of = curve([0.9, 0.8, 0.7], [True, False, True], 2)
    assert average_precision(of) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # At 0, 0.1 … 0.5 the best precision is 1; at 0.6 … 1 it is 2/3.
    assert average_precision_07(of) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    # The recall stops at 1/4 of the objects.
    of = curve([0.9], [True], 4)
    assert average_precision(of) == pytest.approx(0.25)
    assert average_precision_07(of) == pytest.approx(3 / 11)


def test_a_recall_of_three_tenths_misses_the_devkits_0_3_by_a_rounding() -> None:
    assert average_precision_07(curve([0.9] * 3, [True] * 3, 10)) == pytest.approx(3 / 11)
    assert average_precision_07(curve([0.9] * 6, [True] * 6, 10)) == pytest.approx(7 / 11)
    assert average_precision_07(curve([0.9] * 7, [True] * 7, 10)) == pytest.approx(8 / 11)


def test_the_threshold_of_the_best_f1_lies_between_two_boxes() -> None:
    """F1: 2/3, 1/2 · …: right, wrong, right, wrong of 2 objects."""
    of = curve([0.9, 0.8, 0.6, 0.2], [True, False, True, False], 2)
    best = best_f1(of)
    assert best is not None
    assert best.threshold == pytest.approx(0.4)
    assert (best.precision, best.recall) == (pytest.approx(2 / 3), 1.0)
    assert best.f1 == pytest.approx(0.8)
    assert best == at(of, 0.4)
    # Nothing lies below the last one.
    assert best_f1(curve([0.6], [True], 1)).threshold == pytest.approx(0.3)  # type: ignore[union-attr]


def test_a_threshold_never_parts_equal_scores() -> None:
    """A cut between the two of 0.5 would give F1 = 1."""
    of = curve([0.5, 0.5, 0.1], [True, False, False], 1)
    best = best_f1(of)
    assert best is not None
    assert best.threshold == pytest.approx(0.3)
    assert best.precision == 0.5
    # … also not where the first run of equal ones is all there is.
    told = at(of, 0.5)
    assert told is not None
    assert told.precision == 0.5


def test_nothing_found_and_nothing_there() -> None:
    nothing, absent = curve([], [], 3), curve([0.9], [False], 0)
    assert average_precision(nothing) == average_precision_07(nothing) == 0
    assert best_f1(nothing) == at(nothing, 0.5).__class__(None, None, 0.0, 0.0)
    assert log_average_miss_rate(nothing, 5) == pytest.approx(1)
    assert best_f1(absent) is at(absent, 0.5) is log_average_miss_rate(absent, 5) is None


def test_the_miss_rate_worked_out_by_hand() -> None:
    """10 images, 4 objects: found 2; after one false box (0.1 an image) a third."""
    of = curve([0.9, 0.8, 0.7, 0.6], [True, True, False, True], 4)
    # Of the 9 reference points 10^(-2 + i/4), five lie at 0.1 or above: there 1/4 is missed.
    assert log_average_miss_rate(of, 10) == pytest.approx(0.5 ** (4 / 9) * 0.25 ** (5 / 9))


def test_of_all_classes_together_those_without_objects_are_left_out() -> None:
    of = gathered(
        [found((0, 0.9, 0, 0, 9, 9), (1, 0.95, 0, 0, 9, 9), (1, 0.2, 0, 0, 5, 5))],
        [truth((0, 0, 0, 9, 9))], 2,
    )  # fmt: skip
    together = pooled(of, match(of))
    assert together.score.tolist() == [0.9]
    assert together.objects == 1


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=30), st.integers(1, 12))
def test_the_best_threshold_is_the_best_of_all(boxes: list[tuple[int, bool]], more: int) -> None:
    """Against trying every score as a threshold."""
    boxes = sorted(boxes, reverse=True, key=lambda box: box[0])
    scores, right = [s / 20 for s, _ in boxes], [r for _, r in boxes]
    objects = sum(right) + more
    best = best_f1(curve(scores, right, objects))
    assert best is not None
    every = []
    for threshold in {*scores, 2.0}:
        taken = [r for s, r in zip(scores, right, strict=True) if s >= threshold]
        every.append(2 * sum(taken) / (len(taken) + objects))
    assert best.f1 == pytest.approx(max(every), abs=1e-12)
    if best.threshold is not None:
        taken = [r for s, r in zip(scores, right, strict=True) if s >= best.threshold]
        assert best.f1 == pytest.approx(2 * sum(taken) / (len(taken) + objects))
        assert best.recall == pytest.approx(sum(taken) / objects)


@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_images_matters_only_between_equal_scores(seed: int, random: object) -> None:
    founds, truths = scene(6, 3, seed=seed, digits=9)
    order = list(range(6))
    random.shuffle(order)  # type: ignore[attr-defined]
    told = []
    for rows in (range(6), order):
        of = gathered([founds[i] for i in rows], [truths[i] for i in rows], 3)
        told.append([average_precision(one) for one in curves(of, match(of))])
    for one, other in zip(*told, strict=True):
        assert one == other or math.isclose(one, other, abs_tol=1e-12)  # type: ignore[arg-type]


@given(st.integers(0, 1000))
def test_a_perfect_detector_has_1(seed: int) -> None:
    _, truths = scene(5, 3, seed=seed)
    founds = [Found(t.xyxy, np.linspace(1, 0.5, len(t.of)), t.of) for t in truths]
    of = gathered(founds, truths, 3)
    for one in curves(of, match(of)):
        # Two objects of a class may lie so close that a box looks at the other one: not these.
        assert average_precision(one) in (None, pytest.approx(1))
        assert average_precision_07(one) in (None, pytest.approx(1))
        assert log_average_miss_rate(one, 5) in (None, pytest.approx(1e-10))


def test_no_images_at_all() -> None:
    of = gathered([], [], 2)
    assert [average_precision(one) for one in curves(of, match(of))] == [None, None]
    of = gathered([NO_BOXES], [truth((1, 0, 0, 5, 5))], 2)
    assert [average_precision(one) for one in curves(of, match(of))] == [None, 0.0]
