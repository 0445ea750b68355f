"""1×1 convolutions that widen a large map, with BatchNorm, where they learn on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinue.models.depthwise import Conv2d
from retinue.models.gradients import (
    KINDS,
    convolution_gradient,
    convolved,
    has_onednn,
    learns_eagerly,
    plainly,
)

WIDER = 5
"""How many times as wide a map must become: at 4 (ResNet's) the narrow one's products cost as much
as is saved."""
PLACES = (128, 384)
"""How many places the map must have for each narrow channel, in float32 and in bfloat16."""
CANCELLED = 1e-4
"""Of what it is summed of, so little of a channel's variance would be rounding for the most part:
the narrow channels cancel each other, and the statistics are those of the wide map."""


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """`norm(conv(x))`, channels-last.

    Where a 1×1 convolution widens a large map, its statistics are had from the narrow map, and the
    convolution's own weights normalise: the wide map is written once, and read neither for the
    statistics nor for their gradient.
    """
    if _widens(x, conv, norm):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        kind = _kind(x)
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _WidenedNorm.apply(  # type: ignore[no-untyped-call]
                x, conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var,
                norm.momentum, norm.eps, kind,
            )  # fmt: skip
        return y
    y = norm(conv(x))
    return y


def _widens(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Whether `_WidenedNorm` may and should compute this layer."""
    return (
        norm.training
        and not (_is_changed(conv) or _is_changed(norm))
        and learns_eagerly(x, conv.weight)
        and has_onednn()
        and conv.kernel_size == (1, 1)
        and conv.out_channels >= WIDER * conv.in_channels
        and x.dim() == 4
        and x.numel() >= PLACES[_kind(x) == torch.bfloat16] * conv.in_channels**2
        and (conv.stride, conv.padding, conv.groups) == ((1, 1), (0, 0), 1)
        and conv.bias is None
        and isinstance(conv, Conv2d)
        and type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and conv.weight.dtype == norm.weight.dtype
        and (torch.is_autocast_enabled("cpu") or x.dtype == conv.weight.dtype)
        and _kind(x) in KINDS
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _kind(x: Tensor) -> torch.dtype:
    """What a convolution of `x` computes in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _is_changed(module: nn.Module) -> bool:
    """Whether somebody listens when the module is called, or its weight is computed from others:
    whoever asks for it twice may get another one."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "weight" not in module._parameters
    )


class _WidenedNorm(torch.autograd.Function):
    """u = W·x at each of m places, z = γ·(u − mean u)/σ + β with σ² = var u + ε.

    With x̄ the mean of x and C its covariance, mean u = W·x̄ and var u = diag(W·C·Wᵀ), so that
    z = (γ/σ·W)·(x − x̄) + β. Backwards, with G = Σ dz·(x − x̄)ᵀ, which a convolution's gradient of
    its weights is: dβ = Σ dz, dγ = diag(G·Wᵀ)/σ, and du = γ/σ·(dz − dβ/m − (u − mean u)·dγ/(σ·m))
    is put into dW = Σ du·xᵀ and dx = Wᵀ·du, in which u occurs as W·C and WᵀW alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        gamma: Tensor,
        beta: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        kind: torch.dtype,
    ) -> Tensor:
        places, narrow, w = x.numel() // x.shape[1], x.shape[1], weight.flatten(1)
        mean = x.mean((0, 2, 3), keepdim=True, dtype=w.dtype)
        centred = x - mean
        own = _of_weight(centred, centred, w.new_empty(narrow, narrow, 1, 1)).div_(places)
        spread = w @ own
        var = (spread * w).sum(1).clamp_(min=0)
        summed = (w.abs() @ own.diagonal().clamp(min=0).sqrt()).square_()
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, gamma, beta, mean, spread, scale)
        ctx.eps, ctx.kind = eps, kind
        ctx.cancelled = bool((var + eps < CANCELLED * summed).any())
        if ctx.cancelled:
            u = convolved(x.to(kind), weight.to(kind))
            return F.batch_norm(u, running_mean, running_var, gamma, beta, True, momentum, eps)
        normed = weight * (gamma * scale)[:, None, None, None]
        z = convolved(centred.to(kind), normed.to(kind), beta.to(kind))
        running_mean.lerp_(w @ mean.flatten(), momentum)
        running_var.lerp_(var * (places / max(places - 1, 1)), momentum)
        return z

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return _backward(ctx, dz)


def _backward(ctx: Any, dz: Tensor) -> Any:
    """Gradients of what `_WidenedNorm.forward` takes."""
    x, weight, gamma, beta, mean, spread, scale = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:4]
    rest = (None,) * 5
    again = torch.is_grad_enabled()
    if ctx.cancelled or plainly(dz):
        with torch.enable_grad():
            # Names of their own: x may itself be made of the weights, of a layer that comes twice.
            x, weight, gamma, beta = inputs = [t.view_as(t) for t in (x, weight, gamma, beta)]
            u = convolved(x.to(ctx.kind), weight.to(ctx.kind))
            z = F.batch_norm(u, None, None, gamma, beta, True, 0.0, ctx.eps)
        asked = [t for t, want in zip(inputs, wanted, strict=True) if want]
        found = iter(torch.autograd.grad(z, asked, dz, create_graph=again))
        return *(next(found) if want else None for want in wanted), *rest
    places, w, slope = x.numel() // x.shape[1], weight.flatten(1), gamma * scale
    dz = dz.contiguous(memory_format=torch.channels_last)
    dbeta = dz.sum((2, 3)).sum(0, dtype=w.dtype)
    centred = (x - mean).to(ctx.kind)
    product = _of_weight(dz, centred, weight.to(ctx.kind)).to(w.dtype)
    dgamma = (product * w).sum(1).mul_(scale)
    pull = slope * scale * dgamma
    dweight = (slope[:, None] * product).addcmul_(spread, pull[:, None], value=-1)
    dx = None
    if wanted[0]:
        back = (weight * slope[:, None, None, None]).to(ctx.kind)
        dx = convolution_gradient(dz, centred, back, "x")
        mixed = ((w.t() * pull) @ w).div_(places)[:, :, None, None]
        dx -= convolved(
            centred, mixed.to(ctx.kind), (w.t() @ (slope * dbeta)).div_(places).to(ctx.kind)
        )
    return dx, dweight.view_as(weight), dgamma, dbeta, *rest


def _of_weight(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Σ dy·xᵀ over all places, (channels of dy, channels of x): a convolution's gradient of its
    weights, of which oneDNN computes twice as many a second as MKL products of matrices."""
    return convolution_gradient(dy, x, weight, "weight").flatten(1)
