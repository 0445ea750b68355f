"""Judging a network between epochs, on batches that are ready for it."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from retinue import nested
from retinue.errors import RetinueError
from retinue.models.network import Network
from retinue.tasks.task import Task
from retinue.training.stage_data import StageData


@torch.inference_mode()
def validate(
    network: Network, task: Task, data: StageData, accelerator: Accelerator
) -> tuple[dict[str, float], dict[str, Any]]:
    """The scalar figures of the validation split, and the task's state after what it fits there;
    the same on every process."""
    meter = task.meter()
    feed = data.validation
    assert feed is not None
    for batch in feed.batches(data.judged):
        with accelerator.autocast():
            outputs = network(batch.inputs, start=feed.cut)
        findings = task.decode(nested.mapped(_wide, outputs), batch)
        real = [k for k, weight in enumerate(batch.weight.tolist()) if weight > 0]
        meter.update([findings[k] for k in real], [batch.samples[k] for k in real])
    if accelerator.num_processes > 1:
        rows = gather_object([meter.rows()])
        meter = task.meter()
        for each in rows:
            meter.extend(each)
    told: list[Any] = [None]
    if accelerator.is_main_process:
        task.fit(meter)
        told = [(scalars(meter.compute()), task.state())]
    broadcast_object_list(told)
    figures, state = told[0]
    return figures, state


def scalars(figures: dict[str, Any]) -> dict[str, float]:
    """Numbers only; counts are no figures to watch.

    Raises:
        RetinueError: a figure is not finite.
    """
    found = {name: value for name, value in figures.items() if isinstance(value, float)}
    for name, value in found.items():
        if not math.isfinite(value):
            raise RetinueError(
                f"the figure {name} is {value}",
                where="validation split",
                mend="the network's outputs are not finite: lower optimizer.lr, or set clip_norm",
            )
    return found


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
