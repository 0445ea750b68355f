import numpy as np
import pytest

from retinue.report.statistics import coarse, confident_mistakes, confused_pairs, wilson


def test_wilson_interval_of_a_published_example() -> None:
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_pairs_are_off_the_diagonal_and_in_order_of_their_count() -> None:
    matrix = np.array([[9, 2, 0], [5, 9, 1], [0, 0, 9]])
    assert confused_pairs(matrix) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]
    assert confused_pairs(matrix, most=1) == [(1, 0, 5)]


def test_mistakes_are_wrong_answers_by_their_score() -> None:
    scores = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6]])
    assert confident_mistakes(np.array([1, 1, 1, 0]), scores).tolist() == [0, 1, 3]
    assert confident_mistakes(np.array([0, 0, 1, 1]), scores).tolist() == []


def test_a_rare_confusion_survives_shrinking() -> None:
    matrix = np.diag(np.full(1000, 10))
    matrix[3, 997] = 10
    small = coarse(matrix, 100)
    assert small.shape == (100, 100)
    assert small[0, 99] == pytest.approx(0.5)
    assert np.count_nonzero(small) == 101


def test_a_small_matrix_is_only_normalised() -> None:
    assert coarse(np.array([[3, 1], [0, 0]]), 100).tolist() == [[0.75, 0.25], [0.0, 0.0]]
