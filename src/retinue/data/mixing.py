"""Combining the images of a batch: mixup and cutmix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.data.options import MixingOptions
from retinue.data.random import draw
from retinue.sample import Size
from retinue.transfer import all_to_device


class Placed(NamedTuple):
    """A plan's numbers on a device."""

    partner: Tensor
    """int64 (n,)"""
    share: Tensor
    """float32 (n,)"""
    boxes: Tensor | None
    """float32 (n, 4), whole numbers"""


@dataclass(frozen=True, slots=True, eq=False)
class MixPlan:
    """Whom each image of a batch is mixed with, and how much of it stays. Known to the host."""

    partner: npt.NDArray[np.int64]
    """(n,) positions in the batch; its own where an image stays as it is."""
    share: npt.NDArray[np.float32]
    """(n,) the image's own share of its pixels and of its target; 1 where it stays as it is."""
    boxes: npt.NDArray[np.int64] | None = None
    """(n, 4) top, left, bottom, right of what is the partner's, in pixels of the network's input;
    empty where the two are blended instead. None: nothing but blending."""
    _placed: dict[torch.device, Placed] = field(default_factory=dict, repr=False)

    @property
    def mixes(self) -> bool:
        """Whether any image changes at all."""
        return bool((self.share < 1).any())

    def on(self, device: torch.device) -> Placed:
        """The plan's tensors on `device`, sent once and in one copy."""
        if device not in self._placed:
            arrays = [self.partner, self.share, *(() if self.boxes is None else (self.boxes,))]
            partner, share, *boxes = all_to_device(arrays, device)
            self._placed[device] = Placed(partner.long(), share, boxes[0] if boxes else None)
        return self._placed[device]


class Mixing:
    """Each image with the one before it in the batch; targets in the same proportion.

    mixup (Zhang et al., 2018): a weighted sum. cutmix (Yun et al., 2019): a rectangle from the
    other image; the share is that of the pixels. Draws are keyed by the seed, the epoch and each
    image's key.
    """

    def __init__(self, options: MixingOptions, seed: int) -> None:
        self.options = options
        self.seed = seed

    def plan(
        self,
        keys: npt.NDArray[np.int64],
        epoch: int,
        usable: npt.NDArray[np.bool_],
        size: Size,
    ) -> MixPlan:
        """`keys` (n,) of the batch's images, and its height and width in pixels.

        `usable` (n,): False for padding and for images of weight 0, which are neither changed nor
        mixed into others.
        """
        n = len(keys)
        before = np.roll(np.arange(n), 1)
        partner, share = np.arange(n), np.ones(n, np.float32)
        boxes = np.zeros((n, 4), np.int64) if self.options.cutmix > 0 else None
        # A single image has nobody to mix with.
        for k in np.flatnonzero(usable & usable[before] & (before != np.arange(n))):
            own, box = self._draw(int(keys[k]), epoch, *size)
            if own < 1:
                partner[k], share[k] = before[k], own
                if boxes is not None and box is not None:
                    boxes[k] = box
        return MixPlan(partner, share, boxes)

    def _draw(
        self, key: int, epoch: int, height: int, width: int
    ) -> tuple[float, tuple[int, int, int, int] | None]:
        """Its own share, and the rectangle from the other (None: mixup)."""
        options = self.options
        rng = draw(self.seed, epoch, key, "mixing")
        chance, which, x, y = rng.random(4)
        if chance >= options.probability or not (options.mixup or options.cutmix):
            return 1.0, None
        cut = options.cutmix > 0 and (options.mixup == 0 or which < 0.5)
        alpha = options.cutmix if cut else options.mixup
        own = float(rng.beta(alpha, alpha))
        if not cut:
            return own, None
        half_h, half_w = height * np.sqrt(1 - own) / 2, width * np.sqrt(1 - own) / 2
        top, bottom = (round(min(max(y * height + d, 0), height)) for d in (-half_h, half_h))
        left, right = (round(min(max(x * width + d, 0), width)) for d in (-half_w, half_w))
        own = 1 - (bottom - top) * (right - left) / (height * width)
        return own, (top, left, bottom, right)

    def apply(self, inputs: Tensor, plan: MixPlan) -> Tensor:
        """`inputs` float32 (n, 3, height, width), normalised, mixed as planned: new ones in
        channels-last memory, or the same if nothing changes. Reads nothing back."""
        if not plan.mixes:
            return inputs
        n, channels, height, width = inputs.shape
        # Rows of pixels: with channels-last memory a view, and one long axis for vector units.
        rows = inputs.permute(0, 2, 3, 1).reshape(n, height, width * channels)
        mix = _mix_on_cpu if _on_cpu(inputs) else _mix_on_device
        mixed = mix(rows, plan, channels)
        return mixed.view(n, height, width, channels).permute(0, 3, 1, 2)


def _on_cpu(inputs: Tensor) -> bool:
    """Whether a call for each image costs nothing."""
    return inputs.device.type == "cpu"


def _mix_on_device(rows: Tensor, plan: MixPlan, channels: int) -> Tensor:
    """float (n, height, width × channels), all images at once."""
    partner, share, boxes = plan.on(rows.device)
    mixed = rows.index_select(0, partner)
    if boxes is None:
        return torch.lerp(mixed, rows, share.to(rows.dtype)[:, None, None], out=mixed)
    top, left, bottom, right = boxes.T[..., None]
    blended = bottom <= top
    share = share.where(blended[:, 0], 0.0)  # in a rectangle all is the partner's
    torch.lerp(mixed, rows, share.to(rows.dtype)[:, None, None], out=mixed)
    y = torch.arange(rows.shape[1], device=rows.device)
    x = torch.arange(rows.shape[2], device=rows.device) // channels
    of_rows = (y >= top) & (y < bottom) | blended
    of_columns = (x >= left) & (x < right) | blended
    inside = of_rows[:, :, None] & of_columns[:, None]
    return torch.where(inside, mixed, rows, out=mixed)


def _mix_on_cpu(rows: Tensor, plan: MixPlan, channels: int) -> Tensor:
    """The same, an image at a time, and only what changes of it."""
    mixed = rows.clone()
    for k in np.flatnonzero(plan.share < 1):
        other = rows[plan.partner[k]]
        top, left, bottom, right = (0, 0, 0, 0) if plan.boxes is None else plan.boxes[k]
        if bottom > top:
            place = slice(top, bottom), slice(left * channels, right * channels)
            mixed[k][place] = other[place]
        else:
            torch.lerp(other, rows[k], float(plan.share[k]), out=mixed[k])
    return mixed
