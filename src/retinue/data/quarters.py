"""The quarter mask: one quarter of the image becomes the mean colour; targets stay."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.data.random import draw
from retinue.transfer import to_device


def drawn_quarters(
    keys: npt.NDArray[np.int64], epoch: int, seed: int, probability: float
) -> npt.NDArray[np.int64]:
    """(n,): 0 upper left, 1 upper right, 2 lower left, 3 lower right, −1 none."""
    quarters = np.full(len(keys), -1)
    for k, key in enumerate(keys.tolist()):
        rng = draw(seed, epoch, key, "mixing")
        if rng.random(5)[4] < probability:
            quarters[k] = rng.integers(4)
    return quarters


def mask_quarters(inputs: Tensor, quarters: npt.NDArray[np.int64]) -> Tensor:
    """`inputs` (n, 3, height, width), normalised, with each image's quarter 0; new ones, or the
    same if there is none."""
    if (quarters < 0).all():
        return inputs
    quarter = to_device(quarters, inputs.device)[:, None, None, None]
    half_h, half_w = inputs.shape[2] // 2, inputs.shape[3] // 2
    lower = torch.arange(inputs.shape[2], device=inputs.device)[:, None] >= half_h
    right = torch.arange(inputs.shape[3], device=inputs.device) >= half_w
    masked = inputs.clone(memory_format=torch.preserve_format)
    return masked.masked_fill_(quarter == 2 * lower.long() + right.long(), 0.0)
