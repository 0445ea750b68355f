"""Areas and overlaps of boxes, against values worked out by hand and against counted pixels."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.evaluation import boxes
from retinue.evaluation.boxes import area, covered_matrix, intersection, iou, iou_matrix

_CORNER = st.integers(0, 12)
_BOX = st.tuples(_CORNER, _CORNER, _CORNER, _CORNER).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
)


def _pixels(box: list[int]) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


def test_areas_are_in_square_pixels_and_never_below_zero() -> None:
    found = area(np.array([[0, 0, 3, 2], [1.5, 1, 2, 5], [3, 3, 3, 9], [4, 4, 2, 2]], np.float32))
    assert found.tolist() == [6, 2, 0, 0]


def test_overlaps_worked_out_by_hand() -> None:
    first = np.array([[0, 0, 4, 4], [10, 10, 12, 12]], np.float64)
    second = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 8, 4], [1, 1, 3, 3]], np.float64)
    assert iou_matrix(first, second) == pytest.approx(
        np.array([[1, 4 / 28, 0, 4 / 16], [0, 0, 0, 0]])
    )
    assert covered_matrix(first, second) == pytest.approx(
        np.array([[1, 4 / 16, 0, 4 / 16], [0, 0, 0, 0]])
    )
    assert covered_matrix(second, first)[:, 0] == pytest.approx([1, 4 / 16, 0, 1])


def test_boxes_without_an_area_overlap_with_nothing() -> None:
    point = np.array([[3, 3, 3, 3]], np.float32)
    around = np.array([[0, 0, 9, 9]], np.float32)
    assert iou_matrix(point, point).tolist() == [[0]]
    assert iou_matrix(point, around).tolist() == [[0]]
    assert covered_matrix(point, around).tolist() == [[0]]


def test_no_boxes_give_an_empty_matrix_of_the_right_shape() -> None:
    none, some = np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)
    assert iou_matrix(none, some).shape == (0, 3)
    assert iou_matrix(some, none).shape == (3, 0)
    assert covered_matrix(none, none).shape == (0, 0)


def test_the_type_stays() -> None:
    some = np.array([[0, 0, 2, 2]], np.float32)
    assert iou_matrix(some, some).dtype == np.float32
    assert iou_matrix(some.astype(np.float64), some).dtype == np.float64


@given(st.lists(_BOX, min_size=1, max_size=4), st.lists(_BOX, min_size=1, max_size=4))
def test_overlaps_are_those_of_counted_pixels(first: list[list[int]], second: list[list[int]]):
    a, b = np.array(first, np.float64), np.array(second, np.float64)
    ious, covered = iou_matrix(a, b), covered_matrix(a, b)
    for i, one in enumerate(map(_pixels, first)):
        for k, other in enumerate(map(_pixels, second)):
            common, union = len(one & other), len(one | other)
            assert intersection(a[i], b[k]) == common
            assert ious[i, k] == pytest.approx(common / union if union else 0)
            assert ious[i, k] == iou(a[i], b[k])
            assert covered[i, k] == pytest.approx(common / len(one) if one else 0)


def test_examples() -> None:
    tried = doctest.testmod(boxes)
    assert tried.attempted
    assert not tried.failed
