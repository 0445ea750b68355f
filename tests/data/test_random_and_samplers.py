"""Draws depend on their keys alone, and never overlap."""

from __future__ import annotations

import itertools

import numpy as np

from retinue.data.random import draw


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
