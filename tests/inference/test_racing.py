"""The fastest is found by turns, with a clock that says what it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from retinue.inference.racing import ROUNDS, first_of, race


class Clock:
    """Goes on by what each call takes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, seconds: Sequence[float]) -> Callable[[], None]:
        left = list(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def raced(seconds: Mapping[str, Sequence[float]], budget: float = 100.0) -> tuple[
    dict[str, float], list[str]
]:  # fmt: skip
    clock = Clock()
    runs = {name: clock.run(name, each) for name, each in seconds.items()}
    return race(runs, seconds=budget, clock=clock), clock.calls


def test_the_least_of_several_turns_counts_and_not_the_first_call() -> None:
    found, calls = raced({"a": [9, 2.0, 1.5, 3, 3, 3], "b": [0.1, 1.8, 1.9, 1.7, 1.9, 1.9]})
    assert found == pytest.approx({"a": 1.5, "b": 1.7})
    assert calls[:6] == ["a", "b", "a", "b", "b", "a"]  # who begins, changes
    assert len(calls) == 2 + 2 * ROUNDS


def test_what_is_far_behind_is_not_called_again() -> None:
    found, calls = raced({"a": [1.0], "b": [1.3], "c": [1.2], "d": [60.0]})
    assert (calls.count("b"), calls.count("d")) == (2, 1)
    assert calls.count("a") == calls.count("c") == 1 + ROUNDS
    assert found == pytest.approx({"a": 1.0, "b": 1.3, "c": 1.2, "d": 60.0})


def test_the_time_is_kept_to() -> None:
    _, calls = raced({"a": [1.0], "b": [1.0]}, budget=3.0)
    assert len(calls) == 2 + 4


def test_what_is_short_is_called_often_in_a_turn() -> None:
    _, calls = raced({"a": [0.001], "b": [0.001]})
    assert calls.count("a") >= ROUNDS * 10


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({"a": 1.0, "b": 0.98}, "a"),  # as near as that, the first
        ({"a": 1.0, "b": 0.96}, "b"),
        ({"a": 1.0, "b": 1.0}, "a"),
        ({"a": 1.0, "b": 0.98, "c": 0.95}, "c"),
        ({"a": 3.0}, "a"),
    ],
)
def test_of_two_as_fast_the_first_is_taken(seconds: dict[str, float], best: str) -> None:
    assert first_of(seconds) == best
