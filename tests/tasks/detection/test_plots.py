"""The drawings on a detector's page."""

from __future__ import annotations

import numpy as np

from retinue.tasks.detection import plots


def test_every_object_is_in_a_bin_whatever_its_size() -> None:
    sides = np.array([0.1, 3.0, 20.0, 20.0, 500.0, 1e5])
    (axes,) = plots.sizes(sides, np.array([True, False, True, True, False, True])).axes
    every, found = axes.containers
    assert sum(bar.get_height() for bar in every) == 6
    assert sum(bar.get_height() for bar in found) == 4
    (axes,) = plots.sizes(np.array([50.0]), np.array([False])).axes
    assert sum(bar.get_height() for bar in axes.containers[0]) == 1
