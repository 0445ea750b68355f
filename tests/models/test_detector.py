"""What every detector has: a head over levels, and rows of classes among those of boxes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from retinue.models.blocks import ConvNormAct
from retinue.models.detector import BOX, LevelsHead, OnBackbone, built, draw
from retinue.models.network import Network
from retinue.models.registry import create_model

ANCHORS = (((4.0, 4.0), (8.0, 6.0)), ((16.0, 20.0),))


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


class Coarse(nn.Module):
    """A neck: the finer map and the deepest, as they are."""

    def forward(self, state):
        deepest, finer = state
        return finer, deepest


class Two(OnBackbone):
    """Of two levels with two anchors and one."""

    taps = (4, 5)

    def __init__(self, *, num_classes: int = 3) -> None:
        super().__init__()
        self.take(built("mobilenet_v1_025", None))
        widths = [level.channels for level in self.feature_levels]
        conv = partial(ConvNormAct, act=nn.ReLU)
        head = LevelsHead(widths, (8, 6), conv, anchors=ANCHORS, num_classes=num_classes)
        self.attach(Coarse(), head)


def test_maps_have_an_anchor_after_the_other() -> None:
    head = LevelsHead((4, 5), (8, 6), ConvNormAct, anchors=ANCHORS, num_classes=3).eval()
    fine, coarse = head((torch.randn(2, 4, 6, 8), torch.randn(2, 5, 3, 4)))["levels"]
    assert (fine.shape, coarse.shape) == ((2, 2 * (BOX + 3), 6, 8), (2, BOX + 3, 3, 4))
    assert head.classifiers == ("head.outs.0", "head.outs.1")


def test_it_is_a_chain_of_backbone_neck_and_head() -> None:
    network = Two().eval()
    assert network.strides == (16, 32)
    assert [unit.name for unit in network.units()][-1] == "neck"
    maps = network(torch.randn(1, 3, 64, 96))["levels"]
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 4, 6), (8, 2, 3)]
    assert network.anchors == ANCHORS
    assert network.class_rows("head.outs.0").count(7) == 2 * (BOX + 7)
    assert network.in_logits_layer("head.outs.1.bias")
    assert not network.in_logits_layer("head.convs.1.conv.weight")
    resized = network.resized("head.outs.0", 7)
    assert (resized.out_channels, resized.in_channels) == (24, 8)


def test_what_is_fresh_begins_as_it_is_told_and_what_is_learnt_stays() -> None:
    network = Two()
    assert not network.objectness_biases().any()
    with torch.no_grad():
        network.get_submodule("head.outs.0").bias[BOX - 1] = 1.5
    network.expect(0.2)
    told = network.objectness_biases().tolist()
    assert told == pytest.approx([1.5, -1.3862944, -1.3862944])  # log(0.2 / 0.8)
    biases = network.get_submodule("head.outs.1").bias
    assert biases[: BOX - 1].tolist() == [0] * 4
    assert biases[BOX:].tolist() == [0] * 3


def test_fresh_convolutions_are_drawn_narrowly() -> None:
    part = nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64))
    draw(part)
    assert part[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not part[0].bias.any()
    with torch.device("meta"):
        draw(nn.Conv2d(3, 3, 1))  # nothing to draw


def test_a_network_stands_for_itself() -> None:
    own = create_model("mobilenet_v1_025")
    assert isinstance(own, Network)
    assert built(own, None) is own
