import numpy as np
import numpy.typing as npt
import pytest

from retinue.evaluation.classification import Confusion
from retinue.page.statistics import coarse, confident_mistakes, confused_pairs, dense


def sparse(matrix: npt.NDArray[np.int64]) -> Confusion:
    true, predicted = np.nonzero(matrix)
    return Confusion(true, predicted, matrix[true, predicted])


def test_pairs_are_off_the_diagonal_and_in_order_of_their_count() -> None:
    matrix = np.array([[9, 2, 0], [5, 9, 1], [0, 0, 9]])
    assert confused_pairs(sparse(matrix)) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]
    assert confused_pairs(sparse(matrix), most=1) == [(1, 0, 5)]


def test_mistakes_are_wrong_answers_by_their_score() -> None:
    scores = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6]])
    assert confident_mistakes(np.array([1, 1, 1, 0]), scores).tolist() == [0, 1, 3]
    assert confident_mistakes(np.array([0, 0, 1, 1]), scores).tolist() == []


def test_a_rare_confusion_survives_shrinking() -> None:
    matrix = np.diag(np.full(1000, 10))
    matrix[3, 997] = 10
    small = coarse(sparse(matrix), 1000, 100)
    assert small.shape == (100, 100)
    assert small[0, 99] == pytest.approx(0.5)
    assert np.count_nonzero(small) == 101


def test_a_small_matrix_is_only_normalised() -> None:
    small = sparse(np.array([[3, 1], [0, 0]]))
    assert coarse(small, 2, 100).tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_a_matrix_without_images() -> None:
    none = sparse(np.zeros((3, 3), np.int64))
    assert coarse(none, 3, 100).tolist() == dense(none, 3).tolist() == [[0] * 3] * 3
    assert confused_pairs(none) == []


def test_a_sparse_matrix_is_dense_again() -> None:
    matrix = np.array([[9, 2, 0], [5, 9, 1], [0, 0, 9]])
    assert dense(sparse(matrix), 3).tolist() == matrix.tolist()
