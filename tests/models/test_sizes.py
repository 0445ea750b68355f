"""Sizes and receptive fields, against torch's own layers and the literature."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retinue.errors import UsageError
from retinue.models.blocks import SameConv2d
from retinue.models.sizes import (
    ReceptiveField,
    conv_output_size,
    pool_output_size,
    receptive_field,
    same_output_size,
    transposed_output_size,
    valid_output_size,
)

sides = st.integers(1, 64)
kernels = st.integers(1, 9)
strides = st.integers(1, 5)
dilations = st.integers(1, 3)
paddings = st.integers(0, 5)


def map_of(side):
    return torch.empty(1, 1, side, side, device="meta")


def weight_of(kernel):
    return torch.empty(1, 1, kernel, kernel, device="meta")


@settings(deadline=None)
@given(sides, kernels, strides, paddings, dilations)
def test_convolutions(side, kernel, stride, padding, dilation):
    arguments = {"stride": stride, "padding": padding, "dilation": dilation}
    try:
        out = F.conv2d(map_of(side), weight_of(kernel), **arguments).shape[-1]
    except RuntimeError:
        with pytest.raises(UsageError, match="does not fit"):
            conv_output_size(side, kernel, **arguments)
        return
    assert conv_output_size(side, kernel, **arguments) == out


@settings(deadline=None)
@given(sides, kernels, strides, dilations)
def test_valid_is_no_padding(side, kernel, stride, dilation):
    assume(dilation * (kernel - 1) < side)
    out = valid_output_size(side, kernel, stride, dilation)
    assert out == conv_output_size(side, kernel, stride, 0, dilation)
    if dilation == 1:
        assert out == math.ceil((side - kernel + 1) / stride)


@settings(deadline=None)
@given(sides, kernels, strides)
def test_same_is_what_tensorflows_padding_gives(side, kernel, stride):
    layer = SameConv2d(1, 1, kernel, stride=stride, device="meta")
    assert same_output_size(side, stride) == layer(map_of(side)).shape[-1]
    assert same_output_size(side, stride) == math.ceil(side / stride)


@settings(deadline=None)
@given(sides, kernels, strides, st.integers(0, 4), st.booleans())
def test_pooling(side, kernel, stride, padding, ceil_mode):
    assume(padding <= kernel // 2 and kernel <= side + 2 * padding)
    arguments = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    out = F.max_pool2d(map_of(side), kernel, **arguments).shape[-1]
    assert pool_output_size(side, kernel, **arguments) == out
    assert F.avg_pool2d(map_of(side), kernel, **arguments).shape[-1] == out


@settings(deadline=None)
@given(st.integers(1, 20), kernels, strides, st.integers(0, 3), st.integers(0, 3), dilations)
def test_transposed_convolutions(side, kernel, stride, padding, extra, dilation):
    assume(extra < max(stride, dilation))
    assume((side - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + extra > 0)
    arguments = {
        "stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation
    }  # fmt: skip
    out = F.conv_transpose2d(map_of(side), weight_of(kernel), **arguments).shape[-1]
    assert transposed_output_size(side, kernel, **arguments) == out


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(kernels, strides, dilations), min_size=1, max_size=3))
def test_the_field_is_what_a_unit_depends_on(layers):
    """The derivative of one unit by every pixel: non-zero within the window and only there."""
    expected = receptive_field(layers)
    assume(expected.size < 300)
    image = torch.ones(1, 1, 1, expected.size + expected.stride, requires_grad=True)
    x = image.double()
    for kernel, stride, dilation in layers:
        ones = torch.ones(1, 1, 1, kernel, dtype=torch.float64)
        x = F.conv2d(x, ones, stride=stride, dilation=(1, dilation))
    assert x.shape[-1] == 2

    def window(unit):
        (gradient,) = torch.autograd.grad(unit, image, retain_graph=True)
        seen = gradient[0, 0, 0].nonzero()
        return int(seen.min()), int(seen.max())

    first, second = window(x[..., 0].sum()), window(x[..., 1].sum())
    assert first == (0, expected.size - 1)
    assert second[0] - first[0] == expected.stride


def test_receptive_fields_of_the_literature():
    """Araujo et al., 2019, table 1, and the layers that it follows from."""
    conv, pool = (3, 1), (2, 2)
    vgg16 = [conv] * 2 + [pool] + [conv] * 2 + [pool] + ([conv] * 3 + [pool]) * 3
    assert receptive_field(vgg16[:-1]) == (196, 16)
    assert receptive_field(vgg16) == ReceptiveField(size=212, stride=32)
    alexnet = [(11, 4), (3, 2), (5, 1), (3, 2), conv, conv, conv, (3, 2)]
    assert receptive_field(alexnet) == (195, 32)
    assert receptive_field([]) == (1, 1)


def test_examples_of_the_conventions():
    assert conv_output_size(227, 11, stride=4) == 55  # AlexNet's first layer
    assert conv_output_size(224, 7, stride=2, padding=3) == 112  # ResNet's
    assert same_output_size(7, 2) == 4
    assert valid_output_size(7, 3, 2) == 3
    assert pool_output_size(112, 3, 2, ceil_mode=True) == 56  # GoogLeNet's first pooling
    assert pool_output_size(112, 3, 2) == 55
    assert pool_output_size(8, 2) == 4
    assert transposed_output_size(7, 4, stride=2, padding=1) == 14


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv_output_size(0, 3), "size must be at least 1, not 0"),
        (lambda: conv_output_size(8, 3, padding=-1), "padding must be at least 0"),
        (lambda: conv_output_size(8, 3, stride=0), "stride must be at least 1"),
        (lambda: conv_output_size(4, 3, dilation=2), "reaches over 5 pixels does not fit into 4"),
        (lambda: valid_output_size(2, 3), "does not fit"),
        (lambda: transposed_output_size(2, 3, output_padding=1), "output_padding must be below 1"),
        (lambda: transposed_output_size(1, 1, padding=1), "leaves nothing"),
        (lambda: receptive_field([(0, 1)]), "kernel must be at least 1"),
    ],
)
def test_impossible_values(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_sizes_need_no_torch():
    code = "import sys, retinue; retinue.conv_output_size(8, 3); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
