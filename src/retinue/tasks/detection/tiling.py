"""Candidates of the parts of a large image, joined: what a tile cuts off is not what it shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retinue.evaluation.boxes import covered_matrix
from retinue.sample import Rectangle
from retinue.tasks.detection.candidates import Candidates

TOUCHES = 0.01
"""Of the window's side: a box that ends so near to where its window ends is cut off there."""
COVERED = 0.6
"""A box that is cut off goes where one that is whole, of its class, covers so much of it …"""
AS_SURE = 0.5
"""… and scores at least this share of its score."""
_BLOCK = 128


def joined(findings: Sequence[Candidates], windows: Sequence[Rectangle]) -> Candidates:
    """All candidates of all windows (x1, y1, x2, y2 in the original's pixels), but for those that
    end where their window does and the image goes on, as far as another window shows the thing as
    a whole. A thing that none shows as a whole is there in parts."""
    whole = Candidates.joined(findings)
    cut = np.concatenate(
        [_cut_off(one, window) for one, window in zip(findings, windows, strict=True)]
    )
    others, parts = whole[~cut], np.flatnonzero(cut)
    dropped = np.zeros(len(whole), np.bool_)
    for of in np.unique(whole.of[parts]).tolist():
        mine = parts[whole.of[parts] == of]
        theirs = others[others.of == of]
        for start in range(0, len(mine), _BLOCK):
            some = mine[start : start + _BLOCK]
            good = theirs.score[None] >= AS_SURE * whole.score[some, None]
            covered = covered_matrix(whole.xyxy[some], theirs.xyxy) >= COVERED
            dropped[some] = (good & covered).any(axis=1)
    return whole[~dropped]


def _cut_off(found: Candidates, window: Rectangle) -> npt.NDArray[np.bool_]:
    """Which of them end where `window` does, and not the image."""
    x1, y1, x2, y2 = window
    width, height = found.size
    near_x, near_y = TOUCHES * (x2 - x1), TOUCHES * (y2 - y1)
    cut: npt.NDArray[np.bool_] = (
        ((found.xyxy[:, 0] <= x1 + near_x) & (x1 > 0))
        | ((found.xyxy[:, 1] <= y1 + near_y) & (y1 > 0))
        | ((found.xyxy[:, 2] >= x2 - near_x) & (x2 < width))
        | ((found.xyxy[:, 3] >= y2 - near_y) & (y2 < height))
    )
    return cut
