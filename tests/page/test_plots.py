import warnings
from pathlib import Path

import numpy as np

from retinue.evaluation.classification import confusion_counts
from retinue.page import plots

NOWHERE = "\U0001f9ff\U00013000"
"""An amulet and a hieroglyph, which the fonts of plots do not have."""


def test_a_name_that_no_font_has_disturbs_no_drawing(tmp_path: Path) -> None:
    counts = confusion_counts(np.array([0, 1, 1]), np.array([0, 1, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        figure = plots.confusion(counts, ["plain", NOWHERE])
        assert NOWHERE in plots.svg(figure, name="confusion", label="matrix")
        assert plots.png(figure, tmp_path / "confusion.png").stat().st_size > 1000
