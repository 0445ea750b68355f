"""Judging a network between epochs, on batches that are ready for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from retinue import nested
from retinue.figures import Figure, refuse_not_finite
from retinue.models.network import Network
from retinue.tasks.task import Task
from retinue.training.mixed import autocast
from retinue.training.stage_data import StageData

MEND = "lower optimizer.lr, or set clip_norm"


@torch.inference_mode()
def validate(
    network: Network,
    task: Task,
    data: StageData,
    accelerator: Accelerator,
    each_batch: Callable[[int], None] | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """The declared figures of the validation split, and the task's state after what it fits there;
    the same on every process. Images that were learnt from would mislead it: then nothing is
    fitted. `each_batch` is called with the batches done."""
    meter = task.meter()
    feed = data.validation
    assert feed is not None
    for done, batch in enumerate(feed.batches(data.judged), 1):
        with autocast(accelerator):
            outputs = network(batch.inputs, start=feed.cut)
        findings = task.answers(nested.single(outputs), batch, mend=MEND)
        real = [k for k, weight in enumerate(batch.weight.tolist()) if weight > 0]
        meter.update([findings[k] for k in real], [batch.samples[k] for k in real])
        if each_batch is not None:
            each_batch(done)
    if accelerator.num_processes > 1:
        rows = gather_object([meter.rows()])
        meter = task.meter()
        for each in rows:
            meter.extend(each)
    told: list[Any] = [None]
    if accelerator.is_main_process:
        if data.unseen:
            task.fit(meter)
        found = meter.compute()
        refuse_not_finite(found, "validation", mend=MEND)
        told = [(scalars(found, task.figures()), task.state())]
    broadcast_object_list(told)
    figures, state = told[0]
    return figures, state


def scalars(values: Mapping[str, Any], declared: Sequence[Figure]) -> dict[str, float]:
    """Those of `values` that are `declared`, as floats, in their order; what is not defined (None)
    is left out."""
    found = ((figure.name, values.get(figure.name)) for figure in declared)
    return {name: float(value) for name, value in found if value is not None}
