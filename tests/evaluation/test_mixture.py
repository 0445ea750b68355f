"""Weights of models that answer together: the maximum of the likelihood, and what has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from retinue.evaluation.mixture import mixture_weights


def test_a_model_that_is_right_where_another_is_wrong_shares_with_it() -> None:
    # Three images that the first knows, one that the second does: 3 ln w + ln (1 − w) is largest.
    own = np.log(np.array([[0.9, 1e-9]] * 3 + [[1e-9, 0.9]]))
    assert mixture_weights(own) == pytest.approx([0.75, 0.25], abs=1e-4)


def test_a_model_that_is_worse_on_every_image_does_not_count() -> None:
    own = np.log(np.array([[0.9, 0.5], [0.8, 0.7], [0.6, 0.5]]))
    assert mixture_weights(own).tolist() == [1.0, 0.0]


def test_without_images_or_differences_all_count_alike() -> None:
    assert mixture_weights(np.zeros((0, 3))).tolist() == pytest.approx([1 / 3] * 3)
    assert mixture_weights(np.log(np.full((4, 2), 0.5))).tolist() == [0.5, 0.5]
    assert mixture_weights(np.full((2, 2), -np.inf)).tolist() == [0.5, 0.5]


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_it_is_the_maximum_that_another_search_finds(seed: int, images: int) -> None:
    own = np.log(np.random.default_rng(seed).uniform(0.01, 1, (images, 2)))

    def loss(w: float) -> float:
        return -float(np.logaddexp(own[:, 0] + np.log(w), own[:, 1] + np.log(1 - w)).sum())

    best = minimize_scalar(loss, bounds=(1e-6, 1 - 1e-6), method="bounded")
    found = float(np.clip(mixture_weights(own)[0], 1e-6, 1 - 1e-6))
    assert loss(found) <= best.fun + 1e-3
