"""Xception against Keras', where its weights come from, and timm's port of it."""

from __future__ import annotations

import copy
from types import MethodType

import pytest
import torch
from torch import Tensor, nn

from retinue.models.blocks import SameMaxPool2d

SIZE = (72, 97)
"""Before the four poolings: 33, 17, 9 and 5 rows; 46, 23, 12 and 6 columns, even and odd."""
SMALL = (40, 33)
"""17, 9, 5 and 3 rows; 14, 7, 4 and 2 columns."""


def keras_xception(references, size):
    return references.keras.applications.Xception(
        weights=None, classifier_activation=None, input_shape=(*size, 3)
    )


def test_keras(references, parity):
    reference = parity.randomise(keras_xception(references, SIZE))
    network = parity.carry_over("xception", parity.keras_state(reference, ".h5"))
    assert parity.relative_error(network, parity.from_keras(reference), SIZE) <= parity.tolerance


@pytest.mark.parity
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_keras_at_the_native_size_from_every_file(suffix, references, parity):
    keras_xception(references, SIZE)  # so that the unnamed layers of the next are numbered higher
    reference = parity.randomise(keras_xception(references, (299, 299)))
    network = parity.carry_over("xception", parity.keras_state(reference, suffix))
    reference = parity.from_keras(reference)
    assert parity.relative_error(network, reference, (299, 299)) <= parity.tolerance
    # one of its four poolings is lopsided there, and it matters
    network.stages[1][0].pool = nn.MaxPool2d(3, stride=2, padding=1)
    assert parity.relative_error(network, reference, (299, 299)) > 1


def test_timm(references, parity):
    reference = parity.randomise(references.timm.create_model("legacy_xception"), size=SMALL)
    network = parity.carry_over("xception", reference.state_dict())
    assert parity.relative_error(network, reference, SMALL) <= parity.tolerance


@pytest.mark.parity
@pytest.mark.parametrize("size", [SIZE, (96, 96), (299, 299)])
def test_timm_at_other_sizes(size, references, parity):
    reference = parity.randomise(references.timm.create_model("legacy_xception"), size=SIZE)
    network = parity.carry_over("xception", reference.state_dict())
    assert parity.relative_error(network, reference, size) <= parity.tolerance


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def _pool_as_tensorflow(network):
    network.stages[2][0].pool = SameMaxPool2d(3, stride=2)


def _other_epsilon(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def _bend_between_the_two_filters(network):
    conv = network.stages[2][4].convs[1]
    conv.depthwise = nn.Sequential(conv.depthwise, nn.ReLU())


def _bend_at_the_end_of_a_block(network):
    convs = network.stages[2][4].convs
    convs[2] = nn.Sequential(convs[2], nn.ReLU())


def _leave_out_the_first_relu(network):
    def forward(block, x):
        first, *others = block.convs
        y = first(x)
        for conv in others:
            y = conv(y.relu())
        return y + x

    block = network.stages[2][4]
    block.forward = MethodType(forward, block)


def _forget_a_shortcut(network):
    network.stages[2][4].shortcut = Nothing()


def _forget_a_projection(network):
    network.stages[3][0].shortcut.norm = Nothing()


def _swap_equals(network):
    stage = network.stages[2]
    stage[3], stage[4] = stage[4], stage[3]


def _transpose_the_filters(network):
    weight = network.top.conv1.depthwise.weight
    weight.data = weight.data.transpose(2, 3).contiguous()


def test_sabotage_is_caught(references, parity):
    reference = parity.randomise(references.timm.create_model("legacy_xception"), size=SMALL)
    network = parity.carry_over("xception", reference.state_dict())
    for sabotage in (
        _pool_as_tensorflow,
        _other_epsilon,
        _bend_between_the_two_filters,
        _bend_at_the_end_of_a_block,
        _leave_out_the_first_relu,
        _forget_a_shortcut,
        _forget_a_projection,
        _swap_equals,
        _transpose_the_filters,
    ):
        spoilt = copy.deepcopy(network)
        sabotage(spoilt)
        error = parity.relative_error(spoilt, reference, SMALL)
        assert error > 3 * parity.tolerance, sabotage.__name__
