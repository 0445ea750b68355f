"""Whether two sets of features can be told apart: known answers, and what chance does."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from retinue.evaluation.separation import _standard_error, separation


def drawn(n: int, d: int, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d))
    x[:, 0] += shift
    return x


@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0])
def test_of_two_normal_distributions(shift: float) -> None:
    """The best that anybody can do is Φ(shift / √2)."""
    found = separation(drawn(600, 1), drawn(500, 1, shift, seed=1))
    best = NormalDist().cdf(shift / 2**0.5)
    assert found.auc == pytest.approx(best, abs=0.05)
    assert found.low <= best <= found.high
    assert found.low < found.auc < found.high
    assert found.verdict == {0.0: "same", 0.7: "other", 2.0: "far off"}[shift]


def test_chance_is_seldom_taken_for_drift() -> None:
    """With more features than images, of which a classifier learns any difference by heart."""
    found = [separation(drawn(40, 60, seed=k), drawn(30, 60, seed=k + 500)) for k in range(60)]
    assert sum(one.low <= 0.5 for one in found) >= 54
    assert all(one.verdict == "same" for one in found)
    areas = [one.auc for one in found]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.04)
    assert np.std(areas) == pytest.approx(_standard_error(0.5, 15, 20), rel=0.25), "as is said"


def test_a_shift_among_many_features_is_found() -> None:
    found = separation(drawn(100, 200), drawn(80, 200, 4.0, seed=1))
    assert found.verdict == "far off"
    assert found.low > 0.6


def test_scale_and_constant_features_do_not_matter() -> None:
    known, new = drawn(50, 8), drawn(40, 8, 1.5, seed=1)
    same = separation(known * 1000 + 5, new * 1000 + 5)
    assert same.auc == pytest.approx(separation(known, new).auc, abs=1e-9)
    flat = separation(np.ones((20, 4)), np.ones((25, 4)))
    assert (flat.auc, flat.verdict) == (0.5, "same")


def test_the_error_as_published() -> None:
    """Hanley and McNeil (1982), of 51 abnormal and 58 normal cases with an area of 0.893."""
    assert _standard_error(0.893, 51, 58) == pytest.approx(0.032, abs=0.001)


def test_one_number_is_as_good_as_its_distribution() -> None:
    found = separation(np.zeros((30, 1)), np.ones((30, 1)))
    assert (found.auc, found.high, found.verdict) == (1.0, 1.0, "far off")
    assert 0.85 < found.low < 0.97, "thirty images say nothing of one in a hundred"
    assert "100 % of pairs" in found.told()


def test_pictures_in_both_sets_are_told_of_and_are_no_drift() -> None:
    """What is learnt as known is taken for known when it comes again, and the other way round."""
    x = drawn(60, 200)
    found = separation(x, x + drawn(60, 200, seed=1) * 0.01)
    assert found.high < 0.5, "or this test tells nothing"
    assert found.verdict == "same"
    told = found.told()
    assert "taken for known ones in" in told
    assert "as where some are nearly the same pictures" in told
    assert f"({100 * (1 - found.high):.0f}–{100 * (1 - found.low):.0f} %;" in told
