"""Test-time augmentation: the same images in several orientations, their answers merged.

The finished input is turned as a whole, which for flips and quarter turns is exact, so that every
image is decoded once, whatever the number of views.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from retinue.data.geometry import dihedral
from retinue.errors import UsageError, suggest
from retinue.sample import Batch

TTA = Literal["none", "flip", "dihedral"]

_VIEWS = {"none": [0], "flip": [0, 4], "dihedral": [0, 1, 2, 3, 4, 5, 6, 7]}


def views(tta: str) -> list[int]:
    """Elements of the dihedral group (`retinue.data.geometry.dihedral`) to look at.

    `flip`: as it is and mirrored; `dihedral`: all eight, for pictures without an up.
    """
    if tta not in _VIEWS:
        raise UsageError(
            f"unknown test-time augmentation {tta!r}",
            where="key tta",
            mend=suggest(tta, _VIEWS) or f"there are {', '.join(_VIEWS)}",
        )
    return list(_VIEWS[tta])


def turned(batch: Batch, orientation: int) -> Batch:
    """The batch's images in another orientation, the way back to the originals included.

    Boxes are not carried along: they are what is looked for. Odd orientations (quarter turns)
    need square images; UsageError otherwise.
    """
    if orientation == 0:
        return batch
    height, width = batch.images.shape[2:]
    if orientation % 2 and height != width:
        raise UsageError(
            f"quarter turns need a square input, this network's is {height} × {width}",
            where="key tta",
            mend="use tta=flip",
        )
    images = batch.images
    if orientation & 4:
        images = images.flip(3)
    if orientation & 3:
        images = torch.rot90(images, -(orientation & 3), (2, 3))  # rot90 turns anticlockwise
    images = images.contiguous(memory_format=torch.channels_last)
    to_original = batch.to_original
    if to_original is not None:
        back = torch.from_numpy(np.linalg.inv(dihedral(orientation, (height, width))))
        to_original = to_original @ back.to(to_original)
    return replace(
        batch,
        images=images,
        to_original=to_original,
        boxes=None,
        box_labels=None,
        box_mask=None,
        inputs=None,
    )
