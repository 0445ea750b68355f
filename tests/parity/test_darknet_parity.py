"""DarkNet-53 against timm's."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

SIZE = (33, 50)


@pytest.fixture
def timm_darknet(references, parity):
    """timm's network, randomised."""
    return parity.randomise(references.timm.create_model("darknet53"), size=SIZE)


def test_timm(timm_darknet, parity):
    network = parity.carry_over("darknet53", timm_darknet.state_dict())
    assert network.arguments["slope"] == 0.01
    assert parity.relative_error(network, timm_darknet, SIZE) <= parity.tolerance


@pytest.mark.parity
@pytest.mark.parametrize("size", [(65, 98), (256, 256)])
def test_timm_at_other_sizes(size, timm_darknet, parity):
    network = parity.carry_over("darknet53", timm_darknet.state_dict())
    assert parity.relative_error(network, timm_darknet, size) <= parity.tolerance


@pytest.mark.parity
def test_the_papers_slope(references, parity):
    """timm's network with the activation of the paper is ours without timm's keyword."""
    act = partial(nn.LeakyReLU, negative_slope=0.1)
    reference = parity.randomise(references.timm.create_model("darknet53", act_layer=act))
    network = parity.carry_over("darknet53", reference.state_dict(), slope=0.1)
    assert parity.relative_error(network, reference) <= parity.tolerance


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class AfterTheSum(nn.Module):
    """A block whose last activation comes after the sum, as in ResNet."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        last = self.block.conv2
        return last.act(x + last.norm(last.conv(self.block.conv1(x))))


def _papers_slope(network):
    for module in network.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.1


def _other_epsilon(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def _forget_a_branch(network):
    network.stages[2][3].conv2.act = Nothing()


def _activate_after_the_sum(network):
    network.stages[3][4] = AfterTheSum(network.stages[3][4])


def _swap_equals(network):
    stage = network.stages[2]
    stage[3], stage[4] = stage[4], stage[3]


def test_sabotage_is_caught(timm_darknet, parity):
    network = parity.carry_over("darknet53", timm_darknet.state_dict())
    for sabotage in (
        _papers_slope,
        _other_epsilon,
        _forget_a_branch,
        _activate_after_the_sum,
        _swap_equals,
    ):
        spoilt = copy.deepcopy(network)
        sabotage(spoilt)
        error = parity.relative_error(spoilt, timm_darknet, SIZE)
        assert error > 3 * parity.tolerance, sabotage.__name__
