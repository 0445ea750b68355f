"""What a measurement tells, worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain, count
from types import SimpleNamespace

import pytest

from retinue.measuring import machine
from retinue.measuring.figures import Measured, Spread, typical

FOUND = Measured(
    "train",
    {"network": "x", "batch": 4},
    Spread.of([10.0, 20.0, 30.0, 40.0, 1000.0]),
    {"forward": 0.01, "backward": 0.03},
    {"process": 1_500_000_000},
    5e9,
    20e9,
    {"and_core": Spread.of([3.0])},
)


def test_the_middle_and_the_quarters_around_it() -> None:
    spread = FOUND.images_per_second
    assert (spread.low, spread.median, spread.high, spread.count) == (20, 30, 40, 5)
    assert str(Spread.of([1234.5678])) == "1,235 (1,235–1,235)"
    with pytest.raises((ValueError, IndexError)):
        Spread.of([])


def test_parts_are_those_of_the_middle_and_add_up_to_it() -> None:
    """Of eight rounds the four in the middle count: the two that were held up are not among
    them."""
    rounds = [
        {"waiting": waiting, "network": network}
        for waiting, network in [(0, 1), (0, 2), (1, 4), (3, 4), (1, 5), (3, 5), (900, 5), (0, 900)]
    ]
    assert typical(rounds, 3.25) == pytest.approx(
        {"waiting": 3.25 * 8 / 26, "network": 3.25 * 18 / 26}
    )
    assert typical([{"a": 2.0, "b": 2.0}], 1.0) == {"a": 0.5, "b": 0.5}
    assert typical([{"a": 0.0}], 1.0) == {"a": 0.0}


def test_shares_and_the_machines_limit() -> None:
    told = json.loads(json.dumps(FOUND.as_dict()))
    assert told["shares"] == {"forward": 0.25, "backward": 0.75}
    assert told["milliseconds_an_image"] == {"forward": 10.0, "backward": 30.0}
    assert told["share_of_matrix_product"] == 0.25
    assert told["and_core"]["median"] == 3
    text = "\n".join(FOUND.lines())
    assert "network  5 GFLOP/s, 25% of the 20 of a large matrix product" in text
    assert "peak memory, process  1.50 GB" in text
    assert "  backward   75.0%     30.000 ms an image" in text


def test_more_than_the_machine_can_do_is_no_share() -> None:
    """As where another program had the processors while the product was made."""
    busy = replace(FOUND, flops=105e9, matrix_product=1.38e9)
    (line,) = [line for line in busy.lines() if line.startswith("network  ")]
    assert "%" not in line
    assert line.startswith(
        "network  105 GFLOP/s, more than the 1.38 of a large matrix product: the machine was busy"
    )
    assert busy.as_dict()["share_of_matrix_product"] is None


def test_a_slow_start_does_not_stand_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a first product that takes a second, while threads start, and others of a millisecond."""
    monkeypatch.setattr(machine, "SIDE", 64)
    ends = chain([0.0, 1.0], (2.0 + k / 1000 for k in count()))
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: next(ends)))
    assert machine.matrix_product("cpu") == pytest.approx(2 * 64**3 * 1000, rel=1e-6)


def test_a_matrix_product_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a second passes on between any two looks."""
    monkeypatch.setattr(machine, "SIDE", 64)
    ticks = count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(machine, "time", clock)
    # 8³ seconds would be too long: the small product alone counts.
    assert machine.matrix_product("cpu") == 2 * (64 // 8) ** 3
    monkeypatch.setattr(machine, "SECONDS", 30.0)
    assert machine.matrix_product("cpu", "bf16") == 2 * 64**3


def test_memory_is_told() -> None:
    assert machine.peak_memory("cpu")["process"] > 10_000_000
