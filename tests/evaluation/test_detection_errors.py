"""What goes wrong, worked out by hand and by loops over boxes."""

from __future__ import annotations

import numpy as np
import pytest
from detections import NO_BOXES, found, judged, scene, truth
from hypothesis import given
from hypothesis import strategies as st

from retinue.evaluation.boxes import iou
from retinue.evaluation.detection_errors import (
    MISTAKES,
    Kind,
    confusion,
    costs,
    errors,
    taken,
)
from retinue.evaluation.detections import Found, Truth, gathered
from retinue.evaluation.matching import NOBODY, match

OBJECTS = truth((0, 0, 0, 10, 10), (1, 40, 0, 50, 10), (0, 80, 0, 90, 10), (1, 0, 40, 10, 50))
BOXES = found(
    (0, 0.95, 0, 0, 10, 10),  # right
    (0, 0.90, 0, 0, 10, 9),  # again
    (0, 0.85, 40, 0, 50, 9),  # a 1 taken for a 0
    (0, 0.80, 80, 0, 86, 6),  # too small: 36 of 100
    (1, 0.75, 80, 0, 84, 9),  # touches a 0: 36 of 100
    (1, 0.70, 60, 60, 70, 70),  # nothing there
    (1, 0.10, 0, 40, 10, 50),  # right, but below the confidence
)


def test_each_kind_worked_out_by_hand() -> None:
    of = gathered([BOXES], [OBJECTS], 2)
    _, told = judged(of, 0.5)
    kinds = ["RIGHT", "DUPLICATE", "CLASS", "LOCALISATION", "BOTH", "BACKGROUND", "LEFT_OUT"]
    assert [Kind(k).name for k in told.kind] == kinds
    assert told.object.tolist() == [0, 0, 1, 2, 2, NOBODY, NOBODY]
    assert told.overlap.tolist() == pytest.approx([1, 0.9, 0.9, 0.36, 0.36, 0, 0])
    assert told.found.tolist() == [True, False, False, False]
    assert told.missed.tolist() == [False, False, False, True]
    assert told.counts() == {
        "localisation": 1, "class": 1, "both": 1, "duplicate": 1, "background": 1, "missed": 1,
    }  # fmt: skip
    # By class: 0.1 is enough for class 1, and nothing is for class 0.
    _, told = judged(of, [None, 0.1])
    assert told.found.tolist() == [False, False, False, True]
    assert (told.kind == Kind.LEFT_OUT).sum() == 4


def test_what_counts_neither_way_is_no_mistake() -> None:
    there = truth((0, 0, 0, 10, 10), (0, 20, 0, 60, 40), difficult=(0,), crowd=(1,))
    of = gathered([found((0, 0.9, 0, 0, 10, 10), (0, 0.8, 30, 10, 35, 15))], [there], 1)
    _, told = judged(of, 0.5)
    assert [Kind(k) for k in told.kind] == [Kind.IGNORED, Kind.IGNORED]
    assert set(told.counts().values()) == {0}


def test_confusion_worked_out_by_hand() -> None:
    of = gathered([BOXES], [OBJECTS], 2)
    matches = match(of)
    told = confusion(of, matches, taken(of, 0.5))
    cells = dict(zip(zip(told.true.tolist(), told.predicted.tolist(), strict=True),
                     told.count.tolist(), strict=True))  # fmt: skip
    # False: the duplicate and the one that is too small (0), the touching one and the far one (1).
    assert cells == {(0, 0): 1, (1, 0): 1, (0, 2): 1, (1, 2): 1, (2, 0): 2, (2, 1): 2}


def test_an_object_has_one_box_in_the_confusion_the_best_fitting() -> None:
    of = gathered(
        [found((1, 0.9, 0, 0, 10, 6), (2, 0.8, 0, 0, 10, 9))], [truth((0, 0, 0, 10, 10))], 3
    )
    told = confusion(of, match(of), taken(of, 0.0))
    assert (told.true.tolist(), told.predicted.tolist()) == ([0, 3], [2, 1])


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_kinds_and_sums_against_a_loop(seed: int, confidence: float) -> None:
    founds, truths = scene(4, 3, seed=seed)
    of = gathered(founds, truths, 3)
    matches = match(of)
    chosen = taken(of, confidence)
    told = errors(of, matches, chosen)
    for b in range(len(of.score)):
        own = other = 0.0
        for g in range(len(of.true_of)):
            if of.true_image[g] == of.image[b] and not of.crowd[g]:
                share = float(iou(of.xyxy[b], of.true_xyxy[g]))
                if of.true_of[g] == of.of[b]:
                    own = max(own, share)
                else:
                    other = max(other, share)
        expected = Kind.BACKGROUND
        if not chosen[b]:
            expected = Kind.LEFT_OUT
        elif matches.ignored[b]:
            expected = Kind.IGNORED
        elif matches.right[b]:
            expected = Kind.RIGHT
        elif own >= 0.5:
            expected = Kind.DUPLICATE
        elif other >= 0.5:
            expected = Kind.CLASS
        elif own >= 0.1:
            expected = Kind.LOCALISATION
        elif other >= 0.1:
            expected = Kind.BOTH
        assert Kind(told.kind[b]) == expected
        if told.object[b] != NOBODY:
            assert told.overlap[b] == pytest.approx(iou(of.xyxy[b], of.true_xyxy[told.object[b]]))
    cells = confusion(of, matches, chosen)
    named = cells.true < 3
    # Every object once, every box that counts once.
    assert np.array_equal(
        np.bincount(cells.true[named], weights=cells.count[named], minlength=3), of.objects
    )
    said = cells.predicted < 3
    assert cells.count[said].sum() == (chosen & ~matches.ignored).sum()
    right = cells.true == cells.predicted
    assert cells.count[right].sum() >= (told.kind == Kind.RIGHT).sum()
    assert not (cells.true + cells.predicted == 6).any()


def test_costs_worked_out_by_hand() -> None:
    """Class 0 has 2 objects, found one; class 1 has 2, found the last of 3 boxes (AP ½·⅓)."""
    of = gathered([BOXES], [OBJECTS], 2)
    matches, told = judged(of, 0.0)
    before = (0.5 + 0.5 / 3) / 2
    cost = costs(of, matches, told)
    # The loose box fits: right, again, (class), loose → 1·½ + ½·2/4 of class 0.
    assert cost["localisation"] == pytest.approx((0.5 + 0.25 + 0.5 / 3) / 2 - before)
    # The third box is a 1 of 0.85: right first, then 2 of 4.
    assert cost["class"] == pytest.approx((0.5 + 0.5 + 0.25) / 2 - before)
    assert cost["duplicate"] == pytest.approx(0)
    assert cost["background"] == pytest.approx((0.5 + 0.25) / 2 - before)
    assert cost["both"] == pytest.approx((0.5 + 0.25) / 2 - before)
    # Nothing is missed: all objects are spoken of by some box.
    assert cost["missed"] == pytest.approx(0)
    _, strict = judged(of, 0.5)
    assert costs(of, matches, strict)["missed"] == pytest.approx((0.5 + 1 / 3) / 2 - before)


@given(st.integers(0, 10_000))
def test_mending_never_costs(seed: int) -> None:
    founds, truths = scene(4, 3, seed=seed)
    of = gathered(founds, truths, 3)
    matches, told = judged(of, 0.0)
    cost = costs(of, matches, told)
    assert set(cost) == {kind.name.lower() for kind in MISTAKES} | {"missed"}
    for name, value in cost.items():
        if name != "missed":
            assert value is None or value >= -1e-12, name


def test_nothing_found_and_nothing_there() -> None:
    for founds, truths in (([], []), ([NO_BOXES], [truth((0, 0, 0, 5, 5))]),
                           ([found((0, 0.9, 0, 0, 5, 5))], [truth()])):  # fmt: skip
        _check(founds, truths)


def _check(founds: list[Found], truths: list[Truth]) -> None:
    of = gathered(founds, truths, 2)
    matches, told = judged(of, 0.5)
    cells = confusion(of, matches, taken(of, 0.5))
    assert told.counts()["background"] == len(of.score)
    assert told.counts()["missed"] == len(of.true_of)
    assert cells.count.sum() == len(of.score) + len(of.true_of)
    assert set(costs(of, matches, told)) == set(told.counts())
