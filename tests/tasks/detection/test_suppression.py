"""Suppression, against the plain loop and by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.evaluation.boxes import iou
from retinue.tasks.detection import suppression
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.suppression import Kind, suppress

SIZE = (640, 480)


def _made(xyxy: list[list[float]], score: list[float], of: list[int] | None = None) -> Candidates:
    return Candidates(
        np.array(xyxy, np.float32).reshape(-1, 4),
        np.array(score, np.float32),
        np.array([0] * len(score) if of is None else of, np.int64),
        SIZE,
    )


def _share(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], kind: Kind) -> float:
    share = float(iou(a, b))
    if kind == "diou":
        apart = math.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
        hull = math.hypot(max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1]))
        share -= apart**2 / hull**2
    return share


def _plainly(
    candidates: Candidates,
    confidence: float,
    most_shared: float,
    most: int,
    *,
    class_wise: bool,
    kind: Kind,
) -> list[int]:
    """The places of those kept: class by class, then the best of all."""
    classes = sorted(set(candidates.of.tolist())) if class_wise else [None]
    kept: list[int] = []
    for one in classes:
        left = [
            k
            for k in range(len(candidates))
            if (one is None or candidates.of[k] == one) and candidates.score[k] >= confidence
        ]
        left.sort(key=lambda k: (-candidates.score[k], k))
        while left:
            kept.append(left[0])
            best = candidates.xyxy[left[0]]
            left = [k for k in left[1:] if not _share(best, candidates.xyxy[k], kind) > most_shared]
    return sorted(kept, key=lambda k: (-candidates.score[k], k))[:most]


_CORNER = st.integers(0, 30)
_BOX = st.tuples(_CORNER, _CORNER, st.integers(1, 12), st.integers(1, 12)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
_CANDIDATE = st.tuples(_BOX, st.integers(0, 8).map(lambda k: k / 8), st.integers(0, 2))


@given(
    rows=st.lists(_CANDIDATE, max_size=30),
    # None of them is the quotient of two such areas: nothing depends on the last digit.
    iou=st.sampled_from([0.013, 0.257, 0.511, 1.0]),
    most=st.sampled_from([1, 3, 100]),
    confidence=st.sampled_from([0.0, 0.3]),
    class_wise=st.booleans(),
    kind=st.sampled_from(["greedy", "diou"]),
    block=st.sampled_from([1, 3, 256]),
)
def test_it_keeps_what_the_plain_loop_keeps(
    rows: list[tuple[list[float], float, int]],
    iou: float,
    most: int,
    confidence: float,
    class_wise: bool,
    kind: Kind,
    block: int,
) -> None:
    candidates = _made([b for b, _, _ in rows], [s for _, s, _ in rows], [c for _, _, c in rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression, "BLOCK", block)
        found = suppress(
            candidates,
            confidence=confidence,
            iou=iou,
            max_boxes=most,
            class_wise=class_wise,
            kind=kind,
        )
    wanted = candidates[
        np.array(
            _plainly(candidates, confidence, iou, most, class_wise=class_wise, kind=kind), np.int64
        )
    ]
    assert found.xyxy.tolist() == wanted.xyxy.tolist()
    assert found.score.tolist() == wanted.score.tolist()
    assert found.of.tolist() == wanted.of.tolist()
    assert found.size == SIZE


def test_a_box_is_dropped_by_those_kept_alone() -> None:
    """The second goes for the first, so that the third, close to the second alone, stays."""
    row = _made([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], [0.9, 0.8, 0.7])
    kept = suppress(row, confidence=0.1, iou=0.3, max_boxes=10)
    assert kept.xyxy[:, 0].tolist() == [0, 8]


def test_each_class_has_a_confidence_of_its_own() -> None:
    row = _made([[0, 0, 9, 9]] * 2 + [[20, 20, 29, 29]] * 2, [0.6, 0.6, 0.3, 0.3], [0, 1, 0, 1])
    kept = suppress(row, confidence=[0.5, 0.25], iou=0.5, max_boxes=10)
    assert kept.of.tolist() == [0, 1, 1]


def test_neighbours_with_centres_of_their_own_stay_by_distance() -> None:
    """IoU 60/100 = 0.6; centres 4 of 14.14…² apart: 0.6 − 16/(14² + 6²) = 0.53."""
    row = _made([[0, 0, 10, 8], [2.5, 0, 12.5, 8]], [0.9, 0.8])
    assert _share(row.xyxy[0], row.xyxy[1], "greedy") == pytest.approx(0.6)
    assert _share(row.xyxy[0], row.xyxy[1], "diou") < 0.58
    assert len(suppress(row, confidence=0, iou=0.58, max_boxes=9)) == 1
    assert len(suppress(row, confidence=0, iou=0.58, max_boxes=9, kind="diou")) == 2


def test_soft_suppression_lowers_scores_by_hand() -> None:
    """IoU 1/3 with the best: 0.8·exp(−(1/3)²/0.5) = 0.64…, so that the third comes before it."""
    row = _made(
        [[0, 0, 10, 10], [5, 0, 15, 10], [40, 40, 50, 50], [0, 0, 10, 10]],
        [0.9, 0.8, 0.7, 0.1],
    )
    kept = suppress(row, confidence=0.05, iou=0.5, max_boxes=10, kind="soft")
    assert kept.xyxy[:, 0].tolist() == [0, 40, 5]
    assert kept.score.tolist() == pytest.approx([0.9, 0.7, 0.8 * math.exp(-2 / 9)])
    # 0.1·exp(−2) < 0.05: gone.
    lower = suppress(row, confidence=0.001, iou=0.5, max_boxes=10, kind="soft")
    # What is left of the last one after the first (IoU 1) and the second (IoU 1/3).
    assert lower.score[-1] == pytest.approx(0.1 * math.exp(-2 - 2 / 9))
    assert len(suppress(row, confidence=0.001, iou=0.5, max_boxes=2, kind="soft")) == 2


@given(rows=st.lists(_CANDIDATE, max_size=20), class_wise=st.booleans())
def test_soft_suppression_is_the_plain_one(
    rows: list[tuple[list[float], float, int]], class_wise: bool
) -> None:
    """Class by class (Bodla et al., 2017, figure 2), then the best of all."""
    row = _made([b for b, _, _ in rows], [s for _, s, _ in rows], [c for _, _, c in rows])
    found = suppress(
        row, confidence=0.1, iou=0.5, max_boxes=6, class_wise=class_wise, kind="soft", sigma=0.4
    )
    wanted = []
    for one in {0, 1, 2} if class_wise else {None}:
        left = {k: float(row.score[k]) for k in range(len(row)) if one in (None, row.of[k])}
        left = {k: score for k, score in left.items() if score >= np.float32(0.1)}
        while left:
            best = max(left, key=lambda k: left[k])
            wanted.append(left.pop(best))
            for k in left:
                left[k] *= math.exp(-(float(iou(row.xyxy[best], row.xyxy[k])) ** 2) / 0.4)
            left = {k: score for k, score in left.items() if score >= np.float32(0.1)}
    assert found.score.tolist() == pytest.approx(sorted(wanted, reverse=True)[:6], rel=1e-5)


def test_soft_suppression_is_by_class_unless_told_otherwise() -> None:
    row = _made([[0, 0, 10, 10]] * 2, [0.9, 0.8], [0, 1])
    kept = suppress(row, confidence=0.2, iou=0.5, max_boxes=9, kind="soft")
    assert kept.score.tolist() == pytest.approx([0.9, 0.8])
    kept = suppress(row, confidence=0.2, iou=0.5, max_boxes=9, kind="soft", class_wise=False)
    assert kept.score.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize("kind", ["greedy", "soft", "diou"])
def test_nothing_gives_nothing(kind: Kind) -> None:
    kept = suppress(Candidates.none(SIZE), confidence=0.1, iou=0.5, max_boxes=9, kind=kind)
    assert len(kept) == 0
    assert kept.xyxy.shape == (0, 4)


def test_equals_stay_in_order() -> None:
    row = _made([[30, 0, 40, 9], [0, 0, 10, 9], [60, 0, 70, 9]], [0.5, 0.5, 0.5])
    assert suppress(row, confidence=0.5, iou=0.5, max_boxes=2).xyxy[:, 0].tolist() == [30, 0]


def test_many_of_one_place_end_in_one() -> None:
    """However long it takes: nothing is left out for want of time."""
    rng = np.random.default_rng(0)
    xyxy = np.array([100, 100, 200, 200]) + rng.uniform(-1, 1, (5000, 4))
    row = _made(xyxy.tolist(), rng.uniform(0.1, 1, 5000).tolist())
    kept = suppress(row, confidence=0.001, iou=0.5, max_boxes=100)
    assert kept.score.tolist() == [row.score.max()]


def test_candidates_of_several_views_are_joined() -> None:
    one, other = _made([[0, 0, 1, 1]], [0.5]), _made([[2, 2, 3, 3]], [0.25], [4])
    both = Candidates.joined([one, other])
    assert both.xyxy[:, 0].tolist() == [0, 2]
    assert both.of.tolist() == [0, 4]
    wide = Candidates(one.xyxy, one.score, one.of, (9, 9))
    with pytest.raises(ValueError, match="2 sizes"):
        Candidates.joined([one, wide])
