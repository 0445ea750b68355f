from __future__ import annotations

import pytest

from retinue.run.forecast import Forecast, spoken


def test_what_is_left_goes_down_to_nothing() -> None:
    forecast = Forecast({"a": 10, "b": 20, "c": 5})
    assert forecast.left() == pytest.approx(35)
    forecast.note("a", 0.5, 5)
    assert forecast.left() == pytest.approx(30)
    forecast.note("a", 1, 5)
    forecast.note("b", 1, 20)
    assert forecast.left() == pytest.approx(5)
    forecast.finish("c")
    assert forecast.left() == 0


def test_it_learns_from_what_the_work_took() -> None:
    forecast = Forecast({"a": 10, "b": 100})
    for done in range(1, 6):
        forecast.note("a", done / 10, 2)
    slow = forecast.left()
    assert 5 * 2 + 100 < slow < 5 * 2 + 200  # half of a took twice its time; so may b
    forecast.note("a", 1, 10)
    forecast.note("b", 0.5, 50)
    assert forecast.left() == pytest.approx(50, rel=0.2)


def test_what_was_done_before_takes_no_time_again() -> None:
    forecast = Forecast({"a": 100})
    forecast.take_up("a", 0.9)
    assert forecast.left() == pytest.approx(10)
    forecast.note("a", 0.95, 5)
    assert forecast.left() == pytest.approx(5)


def test_what_was_finished_before_or_never_done_tells_nothing_of_the_pace() -> None:
    forecast = Forecast({"a": 100, "b": 50})
    forecast.finish("a")
    assert forecast.left() == pytest.approx(50)
    forecast = Forecast({"a": 100, "b": 50})
    forecast.note("a", 0.4, 40)
    forecast.finish("a")  # stopped early
    assert forecast.left() == pytest.approx(50)


def test_parts_that_nobody_estimated_count_for_nothing() -> None:
    forecast = Forecast({"a": 0})
    for name in ("a", "b"):
        forecast.note(name, 0.5, 3)
        forecast.finish(name)
    assert forecast.left() == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3725, "1:02 h")]
)
def test_spoken(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
