"""Test-time augmentation: the same images in several orientations, their answers merged.

The finished input is turned as a whole, which for flips and quarter turns is exact, so that every
image is decoded once, whatever the number of views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from retinue.data.geometry import dihedral
from retinue.errors import UsageError, suggest
from retinue.nested import is_tensor
from retinue.sample import Batch, Matrix

if TYPE_CHECKING:
    from torch import Tensor

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


def turned_images(images: Tensor, orientation: int) -> Tensor:
    """(n, channels, height, width) in another orientation, 0–7 as in `views`; a tensor in
    channels-last memory, or a view of an array.

    Odd ones, quarter turns, swap height and width.
    """
    if not is_tensor(images):
        array = np.flip(images, 3) if orientation & 4 else images
        return np.rot90(array, -(orientation & 3), (2, 3))  # type: ignore[return-value]
    import torch

    if orientation & 4:
        images = images.flip(3)
    if orientation & 3:
        images = torch.rot90(images, -(orientation & 3), (2, 3))  # rot90 turns anticlockwise
    return images.contiguous(memory_format=torch.channels_last)


def way_back(orientation: int, size: tuple[int, int]) -> Matrix:
    """From the canvas of a turned image to that of the plain one, which has `size` (height, width).

    Float64 (3, 3) of column vectors (x, y, 1), as in `retinue.data.geometry`. What is found in the
    turned image belongs to the original at `to_original @ way_back(…)`.
    """
    height, width = size
    # Every element that mirrors undoes itself; of the others, the turns add up to a whole one.
    undone = orientation if orientation & 4 else -orientation & 3
    return dihedral(undone, (width, height) if orientation & 1 else (height, width))


def refuse_oblong(
    orientations: Sequence[int], size: tuple[int, int], *, where: str = "tta"
) -> None:
    """UsageError where one of `orientations` is a quarter turn and the input of `size` (height,
    width) is not square: a network may not take it. `where`: the key that chose them."""
    height, width = size
    if height != width and any(orientation & 1 for orientation in orientations):
        raise UsageError(
            f"quarter turns need a square input, this one is {height} × {width}",
            where=f"key {where}",
            mend=f"use {where}=flip",
        )


def turned(batch: Batch, orientation: int) -> Batch:
    """The batch's images in another orientation, the way back to the originals included. Targets
    are not carried along: they are what is looked for."""
    height, width = batch.images.shape[2:]
    return replace(
        batch,
        images=turned_images(batch.images, orientation),
        to_original=batch.to_original @ way_back(orientation, (height, width)),
        targets={},
        inputs=None,
    )
