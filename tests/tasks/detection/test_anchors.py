"""Anchors by clusters: sizes that have them, sizes that have none, and what is said of both."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from retinue.errors import UsageError
from retinue.tasks.detection import anchors
from retinue.tasks.detection.anchors import PUBLISHED, clusters, doubts, fitted, flat, recall


def _around(centres: list[tuple[float, float]], each: int, seed: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return np.concatenate([np.array(c) * rng.uniform(0.95, 1.05, (each, 2)) for c in centres])


def test_clusters_are_found_where_they_are() -> None:
    centres = [
        (10.0, 12.0),
        (40.0, 15.0),
        (20.0, 60.0),
        (90.0, 90.0),
        (200.0, 80.0),
        (300.0, 300.0),
    ]
    found = clusters(_around(centres, 60, 0), 6)
    wanted = sorted(centres, key=lambda c: c[0] * c[1])
    assert found == pytest.approx(np.array(wanted), rel=0.03)


def test_a_centre_is_the_median_of_its_members() -> None:
    """One giant among small ones moves the mean to 28, the median not at all."""
    sizes = [[10, 10], [10, 11], [10, 10], [11, 10], [100, 100]]
    assert clusters(sizes, 1).tolist() == [[10, 10]]


def test_they_are_the_same_for_the_same_sizes_in_any_order() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.lognormal(3, 1, (500, 2))
    once = fitted(sizes, 3, seed=5)
    assert fitted(sizes[::-1], 3, seed=5) == once
    assert fitted(rng.permutation(sizes), 3, seed=5) == once


def test_many_sizes_are_drawn_from_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = _around([(10.0, 10.0), (100.0, 50.0)], 500, 1)
    monkeypatch.setattr(anchors, "_ENOUGH", 100)
    found = clusters(sizes, 2)
    assert found == pytest.approx(np.array([[10, 10], [100, 50]]), rel=0.03)
    assert clusters(sizes[::-1], 2).tolist() == found.tolist()


def test_levels_have_them_by_area_finest_first() -> None:
    found = fitted(np.random.default_rng(0).lognormal(4, 1, (400, 2)), 3)
    assert [len(level) for level in found] == [3, 3, 3]
    areas = [w * h for level in found for w, h in level]
    assert areas == sorted(areas)
    assert [len(level) for level in fitted([[1, 1], [5, 5], [9, 9], [3, 8]], 2, each=2)] == [2, 2]


def test_they_cover_their_own_sizes_better_than_the_published_ones() -> None:
    sizes = _around([(5.0, 5.0), (12.0, 40.0), (300.0, 60.0)], 100, 2)
    own, published = recall(sizes, fitted(sizes, 3)), recall(sizes, PUBLISHED)
    assert own.mean_iou > published.mean_iou + 0.2
    assert own.within_half == 1


def test_recall_by_hand() -> None:
    """(10, 10) with (10, 20): IoU ½, factor 2; (90, 10) with (10, 20): 100/1000, factor 9."""
    found = recall([[10, 10], [90, 10], [0, 5]], [[10, 20]])
    assert found == pytest.approx(((0.5 + 0.1) / 2, 0.5, 0.5))
    assert recall([[10, 10]], [[(10, 10), (5, 5)], [(90, 90), (99, 99)]]).mean_iou == 1


def test_a_cluster_that_loses_all_is_not_lost() -> None:
    """Three sizes and 300 of one of them: all three are found whatever is drawn first."""
    sizes = [[10, 10]] * 300 + [[11, 11], [12, 12]]
    for seed in range(20):
        assert clusters(sizes, 3, seed=seed).tolist() == [[10, 10], [11, 11], [12, 12]]


def test_sizes_that_are_too_much_alike_are_warned_of() -> None:
    assert doubts(PUBLISHED) == []
    (warning,) = doubts([[(10, 10), (10.5, 10)], [(40, 40), (80, 80)]])
    assert "10×10 and 10.5×10 nearly coincide (IoU 0.95)" in warning
    assert "4 anchors" in warning


def test_too_few_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="2 different sizes of boxes are too few for 9 anchors"):
        fitted([[10, 10], [10, 10], [20, 20], [0, 30], [np.nan, 4]], 3)
    with pytest.raises(UsageError, match="no boxes to measure anchors by"):
        recall(np.zeros((0, 2)), PUBLISHED)


def test_anchors_by_level_are_one_array() -> None:
    assert flat(PUBLISHED).shape == (9, 2)
    assert flat([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
