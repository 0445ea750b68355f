"""An optimiser step of which nothing stays: of a copy of what learns, to be timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from retinue.inference.devices import wait
from retinue.tasks.learner import Learner
from retinue.training.ema import build_ema
from retinue.training.losses import portion_loss
from retinue.training.optim import build_optimizer
from retinue.training.options import EmaOptions, StageOptions
from retinue.training.stage import train_mode

Computing = Callable[[], AbstractContextManager[None]]
"""What a forward pass is computed within: `autocast`, say."""


def stepper(
    learner: Learner,
    stage: StageOptions,
    ema: EmaOptions | None,
    accelerator: Accelerator,
    computing: Computing,
    *,
    first: int,
    start: int,
    inputs: Any,
    targets: Any,
    weight: Tensor,
) -> Callable[[], Tensor]:
    """What takes a step of `stage`, in which units from `first` on learn, by an optimiser of its
    own, and gives the loss of the last portion. Each portion is of these `inputs` of unit `start`,
    with these `targets` and the rows' `weight` (n,)."""
    own = [("objective", list(learner.objective.parameters()))]
    optimizer = build_optimizer(learner.network, stage.optimizer, own)
    average = build_ema(learner, ema, stage)
    train_mode(learner, first, stage)
    rows = float(len(weight))

    def step() -> Tensor:
        for _ in range(stage.accumulate):
            with computing():
                losses = learner(inputs, dict(targets), start)
            loss, _ = portion_loss(
                losses, weight, rows, portions=1, processes=1, over_all=lambda v: v
            )
            accelerator.backward(loss)
        if stage.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(learner.parameters(), stage.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update()
        return loss.detach()

    return step


def first_step(
    step: Callable[[], Tensor],
    learner: Learner,
    device: torch.device,
    seed: int,
) -> tuple[float, float]:
    """Seconds of `step`, and its loss: not finite where the weights after it are not. Weights,
    buffers and generators are then what they were before."""
    with untouched(device), restored(learner):
        torch.manual_seed(seed)
        began = time.perf_counter()
        loss = step()
        wait(device)
        seconds = time.perf_counter() - began
        sound = all(bool(one.isfinite().all()) for one in learner.parameters())
        return seconds, float(loss) if sound else float("nan")


@contextmanager
def restored(learner: Learner) -> Iterator[None]:
    """Gives `learner` its tensors back: what the cache holds is known by those of the training."""
    tensors = [*learner.parameters(), *learner.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, old in zip(tensors, before, strict=True):
                tensor.copy_(old)


@contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """Leaves torch's generators as they are."""
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        yield
