"""Labels that look wrong."""

from __future__ import annotations

import numpy as np
from detections import found, judged, truth

from retinue.evaluation.detections import Found, Truth, gathered
from retinue.evaluation.label_suspects import Suspect, suspects
from retinue.evaluation.matching import NOBODY


def told(founds: list[Found], truths: list[Truth], confidence: float = 0.3) -> list[Suspect]:
    of = gathered(founds, truths, 3)
    return suspects(of, judged(of, confidence)[1])


GOOD = [found((0, 0.9, 0, 0, 10, 10), (1, 0.9, 20, 0, 30, 10)) for _ in range(4)]
TRUE = [truth((0, 0, 0, 10, 10), (1, 20, 0, 30, 10)) for _ in range(4)]


def test_a_good_detector_and_good_labels_raise_no_suspicion() -> None:
    assert told(GOOD, TRUE) == []


def test_an_object_that_is_not_labelled() -> None:
    boxes = found((0, 0.8, 50, 50, 60, 60), (1, 0.7, 50, 50, 60, 61), (0, 0.4, 80, 80, 90, 90))
    (one,) = told([boxes, *GOOD], [truth(), *TRUE])
    # The second is of the same place, the third is not sure.
    assert one == Suspect("missing", 0, NOBODY, 0.8)


def test_what_touches_an_object_of_any_kind_is_not_missing() -> None:
    boxes = found((0, 0.9, 0, 0, 10, 10), (0, 0.9, 50, 50, 56, 56))
    there = truth((1, 0, 0, 10, 5), (0, 40, 40, 90, 90), crowd=(1,))
    assert "missing" not in {one.kind for one in told([boxes, *GOOD], [there, *TRUE])}


def test_a_class_that_is_swapped() -> None:
    boxes = found((0, 0.9, 0, 0, 10, 9), (2, 0.8, 0, 0, 10, 8))
    (one,) = told([boxes, *GOOD], [truth((1, 0, 0, 10, 10)), *TRUE])
    assert (one.kind, one.box, one.object) == ("swapped", 0, 0)
    assert np.isclose(one.strength, 0.81)
    # Where a box of its own class finds it, the label is borne out.
    boxes = found((0, 0.9, 0, 0, 10, 9), (1, 0.8, 0, 0, 10, 10))
    assert told([boxes, *GOOD], [truth((1, 0, 0, 10, 10)), *TRUE]) == []


def test_a_label_that_is_loose() -> None:
    boxes, there = found((0, 0.9, 0, 0, 10, 10)), truth((0, 0, 0, 10, 18))
    (one,) = told([boxes, *GOOD], [there, *TRUE])
    assert (one.kind, one.object) == ("loose", 0)
    assert np.isclose(one.strength, 0.9 * (1 - 10 / 18))
    there = truth((0, 0, 0, 10, 40))
    assert [one.kind for one in told([boxes, *GOOD], [there, *TRUE])] == ["loose"]
    # Where most boxes fit as badly, it is not the labels.
    assert told([boxes] * 4, [truth((0, 0, 0, 10, 18))] * 4) == []


def test_the_most_suspicious_come_first() -> None:
    boxes = found((0, 0.6, 50, 50, 60, 60), (1, 0.95, 70, 50, 80, 60))
    assert [one.strength for one in told([boxes, *GOOD], [truth(), *TRUE])] == [0.95, 0.6]


def test_nothing_found_is_no_suspicion() -> None:
    assert told([found()], [truth((0, 0, 0, 5, 5))]) == []
    assert told([], []) == []
