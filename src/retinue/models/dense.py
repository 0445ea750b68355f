"""Linear layers that learn on a CPU, by whichever library multiplies matrices faster there.

PyTorch multiplies float32 matrices by MKL. On processors of other makers than its own that reaches
about half of what oneDNN does, which PyTorch brings along for convolutions: 105 against 220 GFLOP/s
a core of an AMD EPYC with AVX-512.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinue.models.gradients import learns_eagerly, plainly
from retinue.turns import timed, turns

LEAST = 1 << 22
"""Multiplications below which a product takes no longer than calling it in another way."""
AHEAD = 1.4
"""How many times as fast oneDNN must be: far from where a measurement could fall to either side."""


class Linear(nn.Linear):
    """PyTorch's; values and gradients are the same up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight  # one that is computed from others may be another the next time
        if (
            learns_eagerly(x, weight)
            and x.dtype == weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and x.dim() > 1
            and x.numel() * self.out_features >= LEAST
            and onednn_is_ahead()
        ):
            y: Tensor = _Linear.apply(x, weight, self.bias)  # type: ignore[no-untyped-call]
            return y
        return F.linear(x, weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        by_places, places = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
        times = torch.matmul if plainly(dy) else _times
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            times(by_places, weight).view_as(x) if wants_x else None,
            times(by_places.t(), places) if wants_weight else None,
            by_places.sum(0) if wants_bias else None,
        )


def _times(a: Tensor, b: Tensor) -> Tensor:
    """The product of two matrices."""
    return _product(a, b.t(), None)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x·Wᵀ + b by oneDNN."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


@cache
def onednn_is_ahead(side: int = 384) -> bool:
    """Whether oneDNN multiplies float32 matrices much faster here than `torch.matmul`: measured
    once a process, in a few milliseconds, by one thread: several wait for one another on a busy
    machine, and a training that goes on must find what it found when it began."""
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    a = torch.ones(side, side)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            runs = {times: timed(partial(times, a, a)) for times in (torch.matmul, _times)}
            rounds = list(islice(turns(runs, least=0), 10))
    finally:
        torch.set_num_threads(threads)
    matmul, onednn = (min(taken[times][0] for taken in rounds) for times in runs)
    return matmul > AHEAD * onednn
