"""Combining the images of a batch: mixup, cutmix, and the quarter mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from retinue.data.options import MixingOptions
from retinue.data.random import draw
from retinue.sample import Batch


class Mixing:
    """Each image with the one before it in the batch; labels in the same proportion.

    mixup (Zhang et al., 2018): a weighted sum. cutmix (Yun et al., 2019): a rectangle from the
    other image; the share is that of the pixels. Quarter mask: one quarter of the image becomes
    the mean colour (0 after normalisation); labels stay. Draws are keyed by the seed, the batch's
    epoch and each image's index. Images of weight 0 are neither changed nor mixed into others.
    """

    def __init__(self, options: MixingOptions, classes: int, seed: int) -> None:
        self.options = options
        self.classes = classes
        self.seed = seed

    def __call__(self, inputs: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """New `inputs` (n, 3, height, width) on the same device, and the batch with soft labels,
        float32 (n, classes), each row adding up to 1, if labels can be mixed at all."""
        options = self.options
        n, _, height, width = inputs.shape
        draws = [draw(self.seed, batch.epoch, index, "mixing") for index in batch.index.tolist()]
        usable = np.ones(n, dtype=bool)
        if batch.weight is not None:
            usable = batch.weight.cpu().numpy() > 0
        plans = [self._plan(rng, height, width) for rng in draws]
        if options.mixup > 0 or options.cutmix > 0:
            # A single image has nobody to mix with; `roll` pairs it with itself.
            partners = usable & np.roll(usable, 1)
            share = torch.ones(n)
            mixed = inputs.clone(memory_format=torch.preserve_format)
            for k, (own, box, _) in enumerate(plans):
                if not partners[k]:
                    continue
                other = inputs[k - 1]
                if box is None:
                    share[k] = own
                    mixed[k] = torch.lerp(other, inputs[k], own)
                else:
                    top, left, bottom, right = box
                    share[k] = 1 - (bottom - top) * (right - left) / (height * width)
                    mixed[k, :, top:bottom, left:right] = other[:, top:bottom, left:right]
            inputs = mixed
            batch = replace(batch, labels=self._mix_labels(batch, share))
        if options.quarter_mask > 0:
            inputs = self._mask(inputs, [quarter for _, _, quarter in plans], usable)
        return inputs, batch

    def _plan(
        self, rng: np.random.Generator, height: int, width: int
    ) -> tuple[float, tuple[int, int, int, int] | None, int | None]:
        """Its own share, the rectangle from the other (none: mixup), and the masked quarter."""
        options = self.options
        chance, which, x, y, masks = rng.random(5)
        quarter = int(rng.integers(4)) if masks < options.quarter_mask else None
        if chance >= options.probability or not (options.mixup or options.cutmix):
            return 1.0, None, quarter
        cut = options.cutmix > 0 and (options.mixup == 0 or which < 0.5)
        alpha = options.cutmix if cut else options.mixup
        own = float(rng.beta(alpha, alpha))
        if not cut:
            return own, None, quarter
        half_h, half_w = height * np.sqrt(1 - own) / 2, width * np.sqrt(1 - own) / 2
        top, bottom = (round(min(max(y * height + d, 0), height)) for d in (-half_h, half_h))
        left, right = (round(min(max(x * width + d, 0), width)) for d in (-half_w, half_w))
        return own, (top, left, bottom, right), quarter

    def _mix_labels(self, batch: Batch, share: Tensor) -> Tensor | None:
        labels = batch.labels
        if labels is None:
            return None
        if not labels.is_floating_point():
            labels = F.one_hot(labels.clamp(min=0), self.classes).float()
        share = share.to(labels.device)[:, None]
        return labels * share + labels.roll(1, 0) * (1 - share)

    def _mask(
        self, inputs: Tensor, quarters: list[int | None], usable: npt.NDArray[np.bool_]
    ) -> Tensor:
        half_h, half_w = inputs.shape[2] // 2, inputs.shape[3] // 2
        masked = inputs.clone(memory_format=torch.preserve_format)
        for k, quarter in enumerate(quarters):
            if quarter is None or not usable[k]:
                continue
            rows = slice(None, half_h) if quarter < 2 else slice(half_h, None)
            columns = slice(None, half_w) if quarter % 2 == 0 else slice(half_w, None)
            masked[k, :, rows, columns] = 0
        return masked
