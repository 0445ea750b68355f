"""Intervals of figures that are no plain share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t  # scikit-learn brings it

from retinue.evaluation import intervals
from retinue.evaluation.classification import figures
from retinue.figures import Figure, wilson


@pytest.mark.parametrize("n", [10, 14, 40, 1000])
def test_the_mean_of_values_has_students_interval(n: int) -> None:
    values = np.random.default_rng(n).exponential(1.0, n)
    expected = t.interval(0.95, n - 1, values.mean(), values.std(ddof=1) / np.sqrt(n))
    assert intervals.of_mean(values) == pytest.approx(expected, rel=1e-3)
    assert intervals.of_mean(values[:9]) is None


def test_the_mean_of_one_share_is_wilsons() -> None:
    assert intervals.of_mean_share([(7, 9)]) == pytest.approx(wilson(7, 9))
    assert intervals.of_mean_share([(7, 9), (0, 0)]) == pytest.approx(wilson(7, 9))
    assert intervals.of_mean_share([(0, 0)]) is None


def test_the_area_by_hand() -> None:
    """Newcombe's equation, solved by the eye: both ends are where `auc` just is no surprise."""
    low, high = intervals.of_auc(0.8, 20, 30) or (0, 0)
    for edge in (low, high):
        spread = 24 * ((1 - edge) / (2 - edge) + edge / (1 + edge))
        error = np.sqrt(edge * (1 - edge) * (1 + spread) / 600)
        assert abs(0.8 - edge) == pytest.approx(1.959964 * error, rel=1e-6)
    assert intervals.of_auc(0.5, 0, 3) is None


def test_no_interval_vanishes_where_all_is_right_or_wrong() -> None:
    for low, high in (
        intervals.of_mean_share([(1, 1), (1, 1)]),
        intervals.of_mean_f1([(1, 1, 1), (1, 1, 1)]),
        intervals.of_auc(1.0, 1, 1),
    ):  # type: ignore[misc]
        assert high == pytest.approx(1.0)
        assert low < 0.6
    for low, high in (
        intervals.of_mean_share([(0, 1), (0, 1)]),
        intervals.of_mean_f1([(0, 1, 1), (0, 1, 1)]),
        intervals.of_auc(0.0, 1, 1),
    ):  # type: ignore[misc]
        assert low == pytest.approx(0.0)
        assert high > 0.4


def test_they_hold_what_they_promise() -> None:
    """Of 300 splits, drawn at random, about 95 of 100 intervals have the true value in them."""
    draws = np.random.default_rng(0)
    truth = {"balanced_accuracy": 0.8, "f1_macro": 0.8, "auc": float(norm.cdf(1.5 / 2**0.5))}
    held = dict.fromkeys(truth, 0)
    for _ in range(300):
        labels = np.arange(80) % 4
        wrong = draws.random(80) > 0.8
        predicted = np.where(wrong, (labels + draws.integers(1, 4, 80)) % 4, labels)
        found = figures(labels, np.eye(4)[predicted], list("abcd"))["intervals"]
        logits = draws.normal(0, 1, (60, 2))
        logits[30:, 1] += 1.5
        logits[:, 0] = 0
        two = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        found["auc"] = figures(np.repeat([0, 1], 30), two, ["a", "b"])["intervals"]["auc"]
        for name, true in truth.items():
            held[name] += found[name][0] <= true <= found[name][1]
    assert 0.90 < held["balanced_accuracy"] / 300 < 0.99
    assert 0.90 < held["f1_macro"] / 300 <= 1.0
    assert 0.90 < held["auc"] / 300 < 0.99


def test_a_figure_finds_its_interval_among_the_others() -> None:
    loss = Figure("loss", "Loss", "nats")
    values = {"loss": 0.5, "images": 20, "intervals": {"loss": [0.4, 0.6]}}
    assert loss.interval(values) == (0.4, 0.6)
    assert loss.span((0.4, 0.6)) == "0.400–0.600"
    assert Figure("top1", "Top-1", "fraction").span((0.719, 0.95)) == "71.9–95.0 %"
    assert Figure("gap", "Gap", "pixels").span((1, 2), digits=1) == "1.0–2.0 px"
    for odd in (None, 3, {"loss": None}, {"loss": [1]}, {"loss": ["a", "b"]},
                {"loss": [0.1, float("nan")]}):  # fmt: skip
        assert loss.interval({**values, "intervals": odd}) is None
