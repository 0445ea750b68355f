"""From the samples of a split to batches on the device, ready for the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.mixing import Mixing, mix_labels
from retinue.data.quarters import drawn_quarters, mask_quarters
from retinue.data.samplers import epoch_plan
from retinue.sample import Batch

Plan = Sequence[npt.NDArray[np.int64]]


class Feed(Protocol):
    """Batches with `inputs` for the network's unit `cut`."""

    cut: int

    def batches(self, plan: Plan, *, epoch: int) -> Iterator[Batch]:
        """A batch for each entry of `plan`, which holds positions in the split."""


class ImageFeed:
    """Decodes and warps in the loader's workers; colour and mixing on the device."""

    cut = 0

    def __init__(
        self,
        loader: Loader,
        colour: Colour,
        device: torch.device,
        mixing: Mixing | None = None,
        classes: int = 0,
    ) -> None:
        self.loader = loader
        self.colour = colour
        self.device = device
        self.mixing = mixing
        self.classes = classes

    def batches(self, plan: Plan, *, epoch: int) -> Iterator[Batch]:
        for host in self.loader.batches(plan, epoch=epoch):
            batch = host.to(self.device)
            inputs = self.colour.varied(batch.images, host.index.numpy(), host.epoch)
            if self.mixing is not None:
                inputs, batch = self._mixed(self.mixing, inputs, batch, host)
            batch.inputs = inputs
            yield batch

    def _mixed(
        self, mixing: Mixing, inputs: Tensor, batch: Batch, host: Batch
    ) -> tuple[Tensor, Batch]:
        """`host`: the batch as the loader made it, whose numbers the host can read."""
        keys, options = host.index.numpy(), mixing.options
        usable = np.ones(len(host), bool) if host.weight is None else host.weight.numpy() > 0
        if options.mixup > 0 or options.cutmix > 0:
            plan = mixing.plan(keys, host.epoch, usable, (inputs.shape[2], inputs.shape[3]))
            inputs = mixing.apply(inputs, plan)
            if batch.labels is not None:
                batch = replace(batch, labels=mix_labels(batch.labels, self.classes, plan))
        if options.quarter_mask > 0:
            quarters = drawn_quarters(keys, host.epoch, mixing.seed, options.quarter_mask)
            inputs = mask_quarters(inputs, np.where(usable, quarters, -1))
        return inputs, batch


class StepPlan:
    """How the optimiser steps of a stage share out the samples.

    Every step takes `batch_size` samples of the whole job. They are dealt to `accumulate` portions
    and, within each, to the processes; a last short batch is filled up with samples of weight 0.
    So the sum of a step's gradients does not depend on how many processes and portions there are.
    """

    def __init__(
        self,
        weights: npt.NDArray[np.float64],
        *,
        batch_size: int,
        accumulate: int,
        world: int,
        rank: int,
        seed: int,
    ) -> None:
        self.weights = weights
        self.batch_size = min(batch_size, len(weights))
        self.accumulate = accumulate
        self.world = world
        self.rank = rank
        self.seed = seed

    @property
    def steps(self) -> int:
        """Optimiser steps an epoch; what does not fill a batch waits for another epoch's order."""
        return len(self.weights) // self.batch_size

    def epoch(self, epoch: int, *, start: int = 0) -> tuple[Plan, list[npt.NDArray[np.float32]]]:
        """(positions, shares) for this process, `accumulate` entries a step, from step `start`.

        A share is what a sample's loss is multiplied with: its weight over the whole step's, times
        the number of processes, whose gradients are averaged.
        """
        order = epoch_plan(
            len(self.weights), self.batch_size, seed=self.seed, epoch=epoch, drop_last=True
        )
        positions, shares = [], []
        per_portion = self.accumulate * self.world
        for step in order[start:]:
            filled = -len(step) % per_portion
            padded = np.concatenate([step, np.resize(step, filled)])
            share = self.weights[padded]
            share[len(step) :] = 0
            share = share * self.world / max(share.sum(), 1e-12)
            mine = (self.accumulate, self.world, -1)
            positions += list(padded.reshape(mine)[:, self.rank])
            shares += list(share.astype(np.float32).reshape(mine)[:, self.rank])
        return positions, shares
