"""How large a layer's output is, and how far a unit of it sees. Plain arithmetic, without torch.

There are two conventions of padding. PyTorch, Caffe and the papers before 2016 *state* the padding
P, the same on both sides:

    floor((W + 2P − F) / S) + 1          `conv_output_size`

TensorFlow and Keras name a rule from which it follows, and pad the right and bottom more where
the amount is odd:

    SAME   ceil(W / S)                   `same_output_size`
    VALID  ceil((W − F + 1) / S)         `valid_output_size`: no padding at all

VALID is the first formula with P = 0. SAME is no choice of P: at stride 2 an even side needs one
more pixel on the right than on the left, so weights from there want `same_padding=True` here.

W is the input's side in pixels, F the kernel's, S the stride. A kernel with dilation D reaches over
D·(F − 1) + 1 pixels, which stands for F in every formula. Height and width each go by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from retinue.errors import UsageError


def conv_output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    """floor((W + 2P − F) / S) + 1: the side of a convolution's output, padded by `padding` pixels
    on either side. Raises UsageError where the kernel does not fit, or for impossible values."""
    return pool_output_size(size, kernel, stride, padding, dilation)


def same_output_size(size: int, stride: int = 1) -> int:
    """ceil(W / S): the side of the output under TensorFlow's SAME padding, whatever the kernel.
    Raises UsageError for impossible values."""
    _at_least(1, size=size, stride=stride)
    return -(-size // stride)


def valid_output_size(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> int:
    """ceil((W − F + 1) / S): the side of the output without padding (TensorFlow's VALID).
    Raises UsageError where the kernel does not fit, or for impossible values."""
    _at_least(1, size=size, kernel=kernel, stride=stride, dilation=dilation)
    reach = dilation * (kernel - 1) + 1
    if size < reach:
        _too_small(size, reach)
    return -(-(size - reach + 1) // stride)


def pool_output_size(
    size: int,
    kernel: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    *,
    ceil_mode: bool = False,
) -> int:
    """The side of a pooling layer's output; `stride` None: that of the kernel.

    `ceil_mode` rounds up, so that a last window may hang over the edge (Caffe's way); one that
    would begin in the padding on the right is left out.
    Raises UsageError where the kernel does not fit, or for impossible values.
    """
    stride = kernel if stride is None else stride
    _at_least(1, size=size, kernel=kernel, stride=stride, dilation=dilation)
    _at_least(0, padding=padding)
    padded, reach = size + 2 * padding, dilation * (kernel - 1) + 1
    if padded < reach:
        _too_small(padded, reach)
    if not ceil_mode:
        return (padded - reach) // stride + 1
    windows = -(-(padded - reach) // stride) + 1
    return windows - 1 if (windows - 1) * stride >= size + padding else windows


def transposed_output_size(
    size: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
) -> int:
    """(W − 1)·S − 2P + F + `output_padding`: the side of a transposed convolution's output.

    A convolution maps S different sides to one; `output_padding`, below S or the dilation, says
    which of them is meant. Raises UsageError for impossible values.
    """
    _at_least(1, size=size, kernel=kernel, stride=stride, dilation=dilation)
    _at_least(0, padding=padding, output_padding=output_padding)
    if output_padding >= max(stride, dilation):
        raise UsageError(f"output_padding must be below {max(stride, dilation)}")
    out = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + output_padding
    if out < 1:
        raise UsageError(f"padding of {padding} leaves nothing of the output")
    return out


class ReceptiveField(NamedTuple):
    """How far one unit of a map sees."""

    size: int
    """r: the side of the window of the input that can change it, in pixels."""
    stride: int
    """j: how many pixels of the input two neighbouring units are apart."""


def receptive_field(layers: Iterable[tuple[int, int] | tuple[int, int, int]]) -> ReceptiveField:
    """The receptive field after a chain of layers `(kernel, stride)` or `(kernel, stride,
    dilation)`, the first one next to the input.

    From r = j = 1, every layer takes r ← r + D·(F − 1)·j, then j ← j·S. Padding moves the window
    and does not widen it. Of branches that meet again, the largest r counts; r may exceed the
    image. (Araujo et al., 2019, "Computing Receptive Fields of Convolutional Neural Networks".)
    Raises UsageError for impossible values.
    """
    size = jump = 1
    for kernel, stride, *rest in layers:
        dilation = rest[0] if rest else 1
        _at_least(1, kernel=kernel, stride=stride, dilation=dilation)
        size += dilation * (kernel - 1) * jump
        jump *= stride
    return ReceptiveField(size, jump)


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")


def _too_small(padded: int, reach: int) -> None:
    raise UsageError(f"a kernel that reaches over {reach} pixels does not fit into {padded}")
