"""Turns: who begins changes, what is short is called often, and what is out stays out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import pytest

from retinue.turns import timed, turns


def _noted(calls: list[str], name: str, seconds: float) -> Callable[[], float]:
    def call() -> float:
        calls.append(name)
        return seconds

    return call


def test_who_begins_changes_from_round_to_round() -> None:
    calls: list[str] = []
    runs = {name: _noted(calls, name, 1.0) for name in "abc"}
    rounds = list(islice(turns(runs), 3))
    assert "".join(calls) == "abccbaabc"
    assert all(taken == {"a": [1.0], "b": [1.0], "c": [1.0]} for taken in rounds)


@pytest.mark.parametrize(("least", "wanted"), [(0.0, 1), (0.25, 1), (0.75, 3), (1.0, 4)])
def test_what_is_short_is_called_until_its_turn_is_over(least: float, wanted: int) -> None:
    calls: list[str] = []
    runs = {"a": _noted(calls, "a", 0.25), "b": _noted(calls, "b", 5.0)}
    taken = next(turns(runs, least=least))
    assert taken == {"a": [0.25] * wanted, "b": [5.0]}
    assert calls == ["a"] * wanted + ["b"]


def test_what_is_taken_out_has_no_more_turns() -> None:
    calls: list[str] = []
    runs = {name: _noted(calls, name, 1.0) for name in "abc"}
    rounds = turns(runs)
    next(rounds)
    del runs["b"]
    assert list(next(rounds)) == ["c", "a"]
    assert calls.count("b") == 1


def test_a_call_is_timed_and_takes_more_than_nothing() -> None:
    now = iter([1.0, 3.5, 7.0, 7.0])
    call = timed(lambda: "an answer", lambda: next(now))
    assert call() == 2.5
    assert call() > 0
