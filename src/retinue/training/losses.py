"""From the parts of an objective to the loss of a portion, so that processes, accumulation and a
short last batch change nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from retinue.tasks.objective import Losses

Sums = dict[str, Tensor]
"""By name, and under the empty name the weight that they were summed with."""


def portion_loss(
    losses: Losses,
    weight: Tensor,
    total_weight: float,
    *,
    portions: int,
    processes: int,
    over_all: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Sums]:
    """The portion's part of the step's loss on this process, a scalar to go backward from; and what
    it adds to the epoch's running sums. `weight`, float32 (n,), is that of the portion's rows, of
    which padding has none; `total_weight` that of the whole step.

    The gradients of the processes are averaged afterwards, those of the `portions` added up. A part
    (n,) is averaged over the step by the rows' weights. A part (sums, counts), (n,) each, is
    Σ sums / max(Σ counts, 1) over this portion on all the processes, rows weighed, and of (n, k)
    the sum of k such fractions; the step's is the mean over its portions, as each is a batch of its
    own there. `over_all` adds a tensor up
    over the processes, without gradients. Nothing is read back from the device.
    """
    share = weight * (processes / max(total_weight, 1e-12))
    shown: Sums = {}
    total = share.new_zeros(())
    for name, part in losses.parts.items():
        if isinstance(part, tuple):
            sums, counts = (_weighed(value, weight) for value in part)
            whole = over_all(counts.detach()).clamp(min=1)
            value = (sums * (processes / whole)).sum() / portions
        else:
            value = (part.float() * share).sum()
        shown[f"loss_{name}"] = value.detach()
        total = total + value
    if len(losses.parts) == 1:
        shown = {}
    shown["loss"] = total.detach()
    for name, each in losses.running.items():
        shown[name] = (each.detach().float() * share).sum()
    shown[""] = share.sum()
    return total, shown


def _weighed(values: Tensor, weight: Tensor) -> Tensor:
    """The rows of `values` (n,) or (n, k) by their weights (n,), added up: a scalar, or (k,)."""
    return (values.float() * weight.view(-1, *[1] * (values.dim() - 1))).sum(0)


def add_up(sums: Sums, more: Sums) -> None:
    """`more` into `sums`, in place and on the device, in the widest numbers that it has."""
    for name, value in more.items():
        wide = value.to(torch.float32 if value.device.type == "mps" else torch.float64)
        if name in sums:
            sums[name].add_(wide)
        else:
            sums[name] = wide.clone()
