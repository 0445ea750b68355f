"""Depthwise convolutions that learn on a CPU: PyTorch's values, and gradients by cheaper ways.

What oneDNN has no kernel of its own for, it computes as if 16 channels were a dense group, ten
times slower. So is the gradient of weights that are more than three columns wide, or padded by more
than one column, and, in bfloat16, the gradient of the input where the stride is 2.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinue.models.gradients import (
    KINDS,
    convolution_gradient,
    convolved,
    has_onednn,
    learns_eagerly,
    plainly,
)
from retinue.processor import without_bfloat16

Pair = tuple[int, ...]


class Conv2d(nn.Conv2d):
    """PyTorch's, see `conv2d`."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            y: Tensor = super()._conv_forward(x, weight, bias)
            return y
        return conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """`torch.nn.functional.conv2d`, or what is said above. Under autocast, depthwise convolutions
    compute in bfloat16 where the processor has it, and in float32 elsewhere."""
    side = weight.shape[-1]
    if (
        learns_eagerly(x, weight)
        and has_onednn()
        and weight.shape[1:] in ((1, 3, 3), (1, 5, 5))
        and groups == weight.shape[0] == x.shape[-3]
        and bias is None
        and x.dim() == 4
        and x.shape[3] >= side
        and stride in ((1, 1), (2, 2))
        and padding in ((0, 0), (side // 2, side // 2))
        and dilation == (1, 1)
    ):
        if torch.is_autocast_enabled("cpu"):
            x, weight = x.to(_half()), weight.to(_half())
        if x.dtype == weight.dtype and x.dtype in KINDS:
            y: Tensor = _Depthwise.apply(  # type: ignore[no-untyped-call]
                x, weight, stride[0], padding[0]
            )
            return y
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


@cache
def _half() -> torch.dtype:
    """What depthwise convolutions compute in under autocast."""
    return torch.bfloat16 if without_bfloat16() is None else torch.float32


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding
        return convolved(x, weight, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.geometry
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            if stride == 1:  # a convolution with the kernel turned round, which is faster
                around = weight.shape[-1] - 1 - padding
                dx = convolved(dy, weight.flip(2, 3), padding=around, groups=len(weight))
            else:
                whole = torch.float32 if x.dtype == torch.bfloat16 else x.dtype
                like = torch.empty_like(x, dtype=whole)  # only its shape counts
                dx = convolution_gradient(
                    dy.to(whole),
                    like,
                    weight.to(whole),
                    "x",
                    stride=stride,
                    padding=(padding, padding),
                    groups=len(weight),
                )
        if ctx.needs_input_grad[1]:
            if weight.shape[-1] == 3 or plainly(dy):
                dweight = convolution_gradient(
                    dy,
                    x,
                    weight,
                    "weight",
                    stride=stride,
                    padding=(padding, padding),
                    groups=len(weight),
                )
            else:
                dweight = _by_columns(dy, x, weight, stride, padding)
        return dx, dweight, None, None


def _by_columns(dy: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Of a 5×5 convolution the weights' gradient, a few columns at a time."""

    def some(first: int, wide: int, beside: int) -> Tensor:
        # Columns `first` … of the kernel are a narrower kernel's, padded with `beside`, whose
        # outputs lie `shift` further to the right.
        shift = (first - padding + beside) // stride
        width = (x.shape[3] + 2 * beside - wide) // stride + 1
        narrow = weight.new_empty((*weight.shape[:3], wide))
        return convolution_gradient(
            _moved(dy, shift, width),
            x,
            narrow,
            "weight",
            stride=stride,
            padding=(padding, beside),
            groups=len(weight),
        )

    if not padding:
        return torch.cat([some(0, 3, 0), some(2, 3, 0)[..., 1:]], 3)
    # What a shift pushes out met only padding.
    if stride == 1:
        return torch.cat([some(0, 1, 0), some(1, 3, 1), some(4, 1, 0)], 3)
    return torch.cat([some(-1, 3, 1)[..., 1:2], some(1, 3, 1), some(3, 3, 1)[..., 1:2]], 3)


def _moved(x: Tensor, shift: int, width: int) -> Tensor:
    """A map moved to the right (`shift` negative: to the left) and made `width` wide; zeros."""
    if not shift and width == x.shape[3]:
        return x
    shape = (*x.shape[:3], width)
    moved = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    left, right = max(shift, 0), min(shift + x.shape[3], width)
    moved[..., :left] = 0
    moved[..., left:right] = x[..., left - shift : right - shift]
    moved[..., right:] = 0
    return moved


def _gradient(
    dy: Tensor, x: Tensor, weight: Tensor, of: Literal["x", "weight"], stride: int, padding: Pair
) -> Tensor:
    return convolution_gradient(
        dy, x, weight, of, stride=stride, padding=padding, groups=len(weight)
    )
