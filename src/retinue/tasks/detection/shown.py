"""Boxes as a network gets to see them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retinue.data.dimensions import dimensions, upright
from retinue.data.targets.boxes import Boxes
from retinue.data.views import EvalView
from retinue.sample import Preprocessing, Sample


def shown_sizes(samples: Sequence[Sample], preprocessing: Preprocessing) -> npt.NDArray[np.float64]:
    """(n, 2) width and height of the samples' boxes in pixels of the network's input, as in
    evaluation; regions of crowds are no objects. Images that cannot be read are left out."""
    there = [s for s in samples if isinstance(s.target, Boxes) and s.target.of]
    found = dimensions([s.key for s in there], [s.read for s in there])
    view, size = EvalView(preprocessing), preprocessing.size
    shown = [np.zeros((0, 4), np.float32)]
    for sample, (width, height) in zip(there, upright(found).tolist(), strict=True):
        if width:
            target = view.see([sample], [(width, height)], size=size).target
            assert isinstance(target, Boxes)
            shown.append(target.xyxy[~target.crowd])
    corners = np.concatenate(shown).astype(np.float64)
    return corners[:, 2:] - corners[:, :2]
