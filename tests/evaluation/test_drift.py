"""Known and new values: what is told of them, against distributions whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.evaluation.drift import shifts


def one(known: object, new: object):  # type: ignore[no-untyped-def]
    (found,) = shifts({"x": np.asarray(known, float)}, {"x": np.asarray(new, float)})
    return found


def test_the_same_numbers_are_the_same() -> None:
    values = np.linspace(0, 1, 200)
    found = one(values, values)
    assert (found.distance, found.verdict) == (0.0, "same")
    assert found.below == found.above == pytest.approx(0.025, abs=0.01)


def test_numbers_that_nowhere_overlap_are_far_off() -> None:
    found = one(np.linspace(0, 1, 100), np.linspace(2, 3, 100))
    assert (found.distance, found.verdict, found.above, found.below) == (1.0, "far off", 1.0, 0.0)
    assert (found.known, found.new) == (pytest.approx(0.5), pytest.approx(2.5))


def test_a_half_that_has_moved_is_half_away() -> None:
    known = np.linspace(0, 1, 1000)
    new = np.concatenate([known[::2], known[::2] + 5])
    assert one(known, new).distance == pytest.approx(0.5, abs=0.002)


def test_few_images_are_sure_of_little_and_many_do_not_make_a_trifle_notable() -> None:
    draws = np.random.default_rng(0)
    assert one(draws.normal(0, 1, 20), draws.normal(0.8, 1, 20)).verdict == "same"
    assert one(draws.normal(0, 1, 50_000), draws.normal(0.1, 1, 50_000)).verdict == "same"
    assert one(draws.normal(0, 1, 400), draws.normal(0.8, 1, 400)).verdict == "other"


@given(seed=st.integers(0, 2000))
def test_draws_of_one_kind_are_hardly_ever_parted(seed: int) -> None:
    draws = np.random.default_rng(seed)
    assert one(draws.normal(size=100), draws.normal(size=100)).verdict == "same"


def test_what_has_one_value_alone_and_what_only_one_side_has_is_left_out() -> None:
    ones = np.ones(30)
    assert shifts({"x": ones, "y": ones}, {"x": ones, "z": ones}) == []


def test_the_farthest_comes_first() -> None:
    known = {name: np.linspace(0, 1, 50) for name in "abc"}
    new = {"a": known["a"] + 0.1, "b": known["b"] + 3, "c": known["c"] + 0.5}
    assert [found.name for found in shifts(known, new)] == ["b", "c", "a"]


def test_what_has_hardly_moved_is_the_same_however_sure_that_is() -> None:
    known, new = {"x": np.full(300, 1000.0)}, {"x": np.full(300, 1001.0)}
    assert [one.verdict for one in shifts(known, new)] == ["far off"]
    assert [one.verdict for one in shifts(known, new, {"x": 50.0})] == ["same"]
    assert [one.verdict for one in shifts(known, new, {"x": 1.0})] == ["far off"]
