"""Cheaper ways to the same gradients, for layers that learn on a CPU.

Values and gradients are PyTorch's up to rounding, and second derivatives work. A formulation is
taken only where a gradient is wanted, on a CPU, eagerly: what is traced, exported, compiled or
transformed (`torch.func`) sees PyTorch's own operations.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

KINDS = (torch.float32, torch.float64, torch.bfloat16)
"""What is computed in."""


_X86 = platform.machine().lower() in ("x86_64", "amd64")


def has_onednn() -> bool:
    """Whether convolutions are oneDNN's for x86, by whose kernels formulations were chosen."""
    return _X86 and torch._C._has_mkldnn and torch._C._get_mkldnn_enabled()


def learns_eagerly(x: Tensor, weight: Tensor) -> bool:
    """Whether a gradient of `weight` is wanted of an eager layer on a CPU."""
    return (
        torch.is_grad_enabled()
        and weight.requires_grad
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
    )


def plainly(dy: Tensor) -> bool:
    """Whether the gradient that is made of `dy` takes what PyTorch can transform: it is to be
    differentiated again, or many are had at once (`is_grads_batched`)."""
    return (
        torch.is_grad_enabled()
        or torch._C._functorch.is_legacy_batchedtensor(dy)
        or torch._C._are_functorch_transforms_active()
    )


def convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Tensor:
    """A convolution in the precision of what is given, whatever autocast says."""
    return torch.convolution(
        x, weight, bias, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups
    )


def convolution_gradient(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    of: Literal["x", "weight"],
    *,
    stride: int = 1,
    padding: Sequence[int] = (0, 0),
    groups: int = 1,
) -> Tensor:
    """Its gradient, of which of the two is said."""
    wanted = [of == "x", of == "weight", False]
    found: list[Tensor] = torch.ops.aten.convolution_backward(
        dy, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], groups, wanted
    )
    return found[wanted.index(True)]


class ReLU6(nn.ReLU6):
    """PyTorch's, which in place copies what it overwrites; the gradient needs only the output."""

    def forward(self, x: Tensor) -> Tensor:
        if self.inplace and x.requires_grad and not x.is_leaf and learns_eagerly(x, x):
            y: Tensor = _ReLU6.apply(x)  # type: ignore[no-untyped-call]
            return y
        return super().forward(x)


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_(0, 6))
        return x

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        dx: Tensor = torch.ops.aten.hardtanh_backward(dy, y, 0, 6)
        return dx


SMALL = 196
"""Places of a sample's map below which a product of maps costs less than a call for each sample."""


def scaled(x: Tensor, weights: Tensor) -> Tensor:
    """`x * weights`, weights (n, channels, 1, 1) of a map's channels."""
    places = x.shape[-2] * x.shape[-1]
    if (
        x.requires_grad
        and len(x) > 0
        and places >= SMALL
        and x.dtype in KINDS
        and learns_eagerly(x, weights)
    ):
        y: Tensor = _Scaled.apply(x, weights.to(x.dtype))  # type: ignore[no-untyped-call]
        return y
    return x * weights


class _Scaled(torch.autograd.Function):
    """The weights' gradient is the sum of dy·x over a sample's map: no map of products is made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, weights)
        return x * weights

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weights = ctx.saved_tensors
        if plainly(dy):
            return dy * weights, (dy * x).sum((2, 3), keepdim=True)
        # What the gradient of BatchNorm's weight is where the mean is 0 and the deviation 1.
        zeros = torch.zeros(x.shape[1], dtype=torch.float64 if x.dtype == torch.float64 else None)
        ones = torch.ones_like(zeros)
        pairs = zip(torch.split(dy, 1), torch.split(x, 1), strict=True)
        sums = [
            torch.ops.aten.native_batch_norm_backward(
                *pair, ones, None, None, zeros, ones, True, 0.0, [False, True, False]
            )[1]
            for pair in pairs
        ]
        return dy * weights, torch.stack(sums).to(x.dtype)[:, :, None, None]
