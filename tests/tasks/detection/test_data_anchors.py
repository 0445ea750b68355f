"""Anchors for a data set, and how well they fit it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from box_sets import READERS, WHOLE, picture, write

from retinue.data.options import DataOptions
from retinue.errors import UsageError
from retinue.tasks.detection.data_anchors import fit_anchors


def test_they_are_the_sizes_at_the_input(tmp_path: Path) -> None:
    """Boxes of two sizes in pictures of 64 × 48, which an input of 128 shows twice as large."""
    rows = ["filename,class,xmin,ymin,xmax,ymax"]
    for k in range(6):
        picture(tmp_path / f"{k}.jpg")
        rows += [f"{k}.jpg,cat,1,1,{10 + k % 2},20", f"{k}.jpg,dog,1,1,{30 + k % 2},15"]
    options = DataOptions(path=str(write(tmp_path / "t.csv", "\n".join(rows))), split=WHOLE)
    plot = tmp_path / "plot.png"
    found = fit_anchors(options, READERS, side=128, levels=2, each=1, plot=plot)
    flat = np.array([pair for level in found.anchors for pair in level])
    np.testing.assert_allclose(flat, [[21, 40], [61, 30]], atol=1.01)
    assert plot.read_bytes().startswith(b"\x89PNG")
    told = json.loads(json.dumps(found.as_dict()))
    assert told["anchors"] == [[list(pair) for pair in level] for level in found.anchors]
    assert any("task_options.anchors=[[[" in value for _, value in found.rows())
    with pytest.raises(UsageError, match="a plot is written as PNG"):
        fit_anchors(DataOptions(path="nowhere"), READERS, plot=tmp_path / "plot.svg")
