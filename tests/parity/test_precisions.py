"""One member a family in float16 and compiled: what float32 computes eagerly."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import nn

from retinue.models.registry import create_model, find, list_models

pytestmark = pytest.mark.parity

ENTRIES = [find(name) for name in list_models(kind="classifier")]
MEMBERS = sorted(
    min((e for e in ENTRIES if e.family == family), key=lambda e: (e.macs, e.name)).name
    for family in {entry.family for entry in ENTRIES}
)

SIZES = {"mnist_cnn": (28, 28), "alexnet_half_1024_128": (128, 96)}


@pytest.fixture
def alive():
    """`alive(name)`: a network in eval mode whose logits depend on the image, and images."""

    def make(name):
        torch.manual_seed(0)
        known = inspect.signature(find(name).build).parameters
        off = {key: 0.0 for key in ("dropout", "drop_path") if key in known}
        network = create_model(name, num_classes=50, **off).train()
        images = torch.randn(4, 3, *(SIZES.get(name, (64, 64))))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network(images)
        return network.eval(), images

    return make


def error(actual, expected):
    return ((actual.float() - expected).pow(2).mean().sqrt() / expected.std()).item()


@pytest.mark.parametrize("name", MEMBERS)
@torch.no_grad()
def test_float16(name, alive):
    network, images = alive(name)
    expected = network(images)
    coarse = error(copy.deepcopy(network).bfloat16()(images.bfloat16()), expected)
    found = error(network.half()(images.half()), expected)
    # Random weights amplify the rounding layer by layer; with 11 bits to bfloat16's 8 it is an
    # eighth of that at best. Unrelated logits would give 1.4.
    assert 1e-6 < found < min(coarse / 2, 0.5)


@pytest.mark.parametrize("name", MEMBERS)
@torch.no_grad()
def test_compiled(name, alive):
    network, images = alive(name)
    expected = network(images)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True)
    assert error(compiled(images), expected) < 1e-3
