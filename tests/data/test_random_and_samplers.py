"""Draws depend on their keys alone, and never overlap; plans are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from retinue.data.random import draw
from retinue.data.samplers import epoch_plan


def test_every_key_has_its_own_stream() -> None:
    seen = set()
    for seed, epoch, index, operation in itertools.product(
        (0, 1, -1), (0, 1), (0, 1, 2), ("crop", "pose")
    ):
        values = tuple(draw(seed, epoch, index, operation).random(4))
        assert values == tuple(draw(seed, epoch, index, operation).random(4))
        seen.add(values)
    assert len(seen) == 36


def test_known_numbers() -> None:
    """Frozen: a recipe's figures rest on these."""
    assert draw(1, 2, 3, "crop").integers(0, 1000, 5).tolist() == [742, 112, 721, 868, 320]


def test_neighbours_are_not_alike() -> None:
    first = np.array([draw(0, 0, i, "x").random() for i in range(2000)])
    assert abs(first.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.06


def test_plan_covers_everything_once() -> None:
    plan = epoch_plan(23, 5, seed=1, epoch=2)
    assert [len(indices) for indices in plan] == [5, 5, 5, 5, 3]
    assert sorted(np.concatenate(plan).tolist()) == list(range(23))
    assert all(indices.dtype == np.int64 for indices in plan)
    again = epoch_plan(23, 5, seed=1, epoch=2)
    assert all(np.array_equal(a, b) for a, b in zip(plan, again, strict=True))
    other = np.concatenate(epoch_plan(23, 5, seed=1, epoch=3))
    assert not np.array_equal(np.concatenate(plan), other)


def test_order_and_last_batch() -> None:
    plan = epoch_plan(7, 3, shuffle=False)
    assert [indices.tolist() for indices in plan] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(epoch_plan(7, 3, drop_last=True)) == 2
    assert len(epoch_plan(6, 3, drop_last=True)) == 2
    assert len(epoch_plan(2, 3, drop_last=True)) == 1
    with pytest.raises(ValueError, match="cannot plan"):
        epoch_plan(0, 3)
