"""Judging a network between epochs, on batches that are ready for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from retinue.models.network import Network
from retinue.sample import Batch
from retinue.tasks.task import Task
from retinue.training.feeds import Feed


class ValidationBatches:
    """A split in order, dealt to the processes; every batch has one length on all of them."""

    def __init__(
        self, feed: Feed, paths: list[str], batch_size: int, accelerator: Accelerator
    ) -> None:
        self.feed = feed
        self.cut = feed.cut
        self.paths = paths
        world, rank = accelerator.num_processes, accelerator.process_index
        size = max(batch_size // world, 1) * world
        count = len(paths)
        whole = [np.arange(i, min(i + size, count)) for i in range(0, count, size)]
        filled = [np.concatenate([b, np.resize(b, -len(b) % world)]) for b in whole]
        self.plan = [b.reshape(world, -1)[rank] for b in filled]
        real = [np.arange(len(f)) < len(w) for f, w in zip(filled, whole, strict=True)]
        self.real = [r.reshape(world, -1)[rank] for r in real]

    def __iter__(self) -> Iterator[Batch]:
        for batch, real in zip(self.feed.batches(self.plan, epoch=0), self.real, strict=True):
            kept = torch.from_numpy(real).to(batch.index.device).float()
            batch.weight = kept if batch.weight is None else kept * batch.weight
            yield batch


@torch.inference_mode()
def validate(
    network: Network, task: Task, batches: ValidationBatches, accelerator: Accelerator
) -> dict[str, float]:
    """The task's scalar figures of the split, the same on every process."""
    meter = task.meter()
    for batch in batches:
        with accelerator.autocast():
            outputs = network(batch.inputs, start=batches.cut)
        everyone, gathered = _gather(outputs.float(), batch, batches.paths, accelerator)
        if accelerator.is_main_process:
            meter.update(everyone, gathered)
    figures = [_scalars(meter.compute())] if accelerator.is_main_process else [None]
    broadcast_object_list(figures)
    assert figures[0] is not None
    return figures[0]


def _scalars(figures: dict[str, object]) -> dict[str, float]:
    """Numbers only; counts are no figures to watch."""
    return {k: v for k, v in figures.items() if isinstance(v, float)}


def _gather(
    outputs: Tensor, batch: Batch, paths: list[str], accelerator: Accelerator
) -> tuple[Tensor, Batch]:
    """What all the processes have, without pixels."""
    small = replace(batch, images=batch.images[:, :, :0, :0].contiguous(), inputs=None)
    if accelerator.num_processes == 1:
        return outputs, small
    tensors = {f.name: v for f in fields(small) if isinstance(v := getattr(small, f.name), Tensor)}
    tensors.pop("images")
    everyone: Tensor = accelerator.gather(outputs)
    gathered = {name: accelerator.gather(value) for name, value in tensors.items()}
    names = [paths[i] for i in gathered["index"].tolist()]
    images = torch.empty(len(names), 3, 0, 0, dtype=torch.uint8)
    return everyone, replace(small, **gathered, images=images, paths=names)
