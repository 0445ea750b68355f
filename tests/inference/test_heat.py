"""Heat maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bright import predict
from bright import saved as picture
from PIL import Image


@pytest.mark.parametrize("tta", ["none", "dihedral"])
def test_a_heat_map_shows_where(model: Path, here: Path, tta: str) -> None:
    picture(here / "in/a.png", [(32, 0, 64, 24, 1)])
    predict(model, "in", out="out", heatmap=True, tiles=32, overlap=0.5, tta=tta)
    map_there = np.asarray(Image.open("out/heatmaps/a.png")).astype(int)
    assert map_there.shape == (48, 64, 3)
    red, green, blue = (map_there[..., k] for k in range(3))
    assert red[4:20, 38:60].mean() > green[30:].mean() + 30
    assert blue[30:, :20].mean() > red[30:, :20].mean()


def test_heat_of_a_view_lies_where_the_view_does() -> None:
    from retinue.data.geometry import scale, translate
    from retinue.inference.heat import warmth
    from retinue.inference.predictor import Heat

    cells = np.zeros((2, 4), np.float32)
    cells[1, 2] = 1
    # Cells of 4 pixels; the view begins at 8, 4 of an original of 40 × 20.
    seen = warmth([Heat(cells, translate(8, 4) @ scale(4))], (40, 20))
    middle = np.unravel_index(int(seen.argmax()), seen.shape)
    assert abs(middle[0] + 0.5 - (4 + 6)) <= 1
    assert abs(middle[1] + 0.5 - (8 + 10)) <= 1
    assert seen[:4].max() == seen[12:].max() == seen[:, :8].max() == seen[:, 24:].max() == 0
    assert warmth([Heat(np.ones((3, 3), np.float32), scale(10))], (15, 15), 0.5).min() == 1
