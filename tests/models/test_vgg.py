"""VGG, by the paper's own figures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retinue.errors import UsageError
from retinue.models.blocks import GridPool
from retinue.models.registry import find

# Layers with weights, by the paper's table 1; parameters, as torchvision publishes them.
PUBLISHED = {
    "vgg11": (11, 132_863_336),
    "vgg13": (13, 133_047_848),
    "vgg16": (16, 138_357_544),
    "vgg19": (19, 143_667_240),
    "vgg11_bn": (11, 132_868_840),
    "vgg13_bn": (13, 133_053_736),
    "vgg16_bn": (16, 138_365_992),
    "vgg19_bn": (19, 143_678_248),
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_parameters_and_layers(name, meta):
    layers, parameters = PUBLISHED[name]
    network = meta(name)
    assert sum(p.numel() for p in network.parameters()) == parameters == find(name).parameters
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == layers
    assert all(module.bias is not None for module in weighted)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert norms == (layers - 3 if name.endswith("_bn") else 0)


def test_maps_at_native_size(meta):
    network = meta("vgg16")
    maps = network.features(torch.empty(1, 3, 224, 224, device="meta"))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (128, 56, 56),
        (256, 28, 28),
        (512, 14, 14),
        (512, 7, 7),
    ]


def test_dropout_is_behind_the_hidden_layers(meta):
    head = meta("vgg16").head
    assert (head.drop6.p, head.drop7.p, head.dropout.p) == (0.0, 0.5, 0.5)


def test_too_small_images_are_refused(meta):
    assert meta("vgg11")(torch.empty(1, 3, 32, 40, device="meta")).shape == (1, 1000)
    with pytest.raises(UsageError, match=r"images of 40 × 31 .* 32 × 32 or more"):
        meta("vgg11")(torch.empty(1, 3, 40, 31, device="meta"))


def test_grid_pool_averages_cells_and_lets_its_own_size_pass():
    pool = GridPool(2)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert pool(x).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    once = pool(torch.randn(2, 3, 5, 3))
    assert pool(once) is once
    assert pool(torch.full((1, 1, 1, 1), 3.0)).tolist() == [[[[3.0, 3.0], [3.0, 3.0]]]]
