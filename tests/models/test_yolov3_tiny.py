"""YOLOv3-tiny, and the layers of its `.cfg`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retinue.models.network import split
from retinue.models.registry import create_model


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


def test_published_facts(meta):
    """yolov3-tiny.weights holds 8,858,734 floats: the parameters, and the statistics of norms."""
    network = meta("yolov3_tiny")
    parameters = sum(p.numel() for p in network.parameters())
    statistics = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert parameters + statistics == 8_858_734
    assert network.strides == (16, 32)
    assert network.anchors == (((10, 14), (23, 27), (37, 58)), ((81, 82), (135, 169), (344, 319)))
    assert [(level.channels, level.stride) for level in network.feature_levels] == [
        (256, 16), (1024, 32)
    ]  # fmt: skip


# Output of each layer of yolov3-tiny.cfg at 416 × 416, as Darknet prints it.
LAYERS = {
    "backbone.stem": (16, 416), "backbone.stages.0.0.0": (16, 208),
    "backbone.stages.0.0.1": (32, 208), "backbone.stages.1.0.1": (64, 104),
    "backbone.stages.2.0.1": (128, 52), "backbone.stages.3.0.1": (256, 26),
    "backbone.stages.4.0.1": (512, 13), "backbone.stages.5.0.0": (512, 13),
    "backbone.stages.5.0.1": (1024, 13), "neck.narrow": (256, 13), "head.convs.1": (512, 13),
    "head.outs.1": (255, 13), "neck.lateral": (128, 13), "head.convs.0": (256, 26),
    "head.outs.0": (255, 26),
}  # fmt: skip


def test_every_layers_shape():
    with torch.device("meta"):
        network = create_model("yolov3_tiny").eval()
    found = {}

    def note(name):
        return lambda module, _, output: found.update({name: tuple(output.shape[1:])})

    for name in LAYERS:
        network.get_submodule(name).register_forward_hook(note(name))
    network(torch.empty(1, 3, 416, 416, device="meta"))
    assert found == {name: (channels, side, side) for name, (channels, side) in LAYERS.items()}


@torch.no_grad()
def test_both_modes_at_every_cut():
    network = create_model("yolov3_tiny", num_classes=2).eval()
    x = torch.randn(2, 3, 64, 96)
    whole = network(x)["levels"]
    assert [tuple(m.shape) for m in whole] == [(2, 21, 4, 6), (2, 21, 2, 3)]
    state = x
    for cut in network.cuts():
        again = network(state, start=cut)["levels"]
        assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
        if cut < len(network.units()):
            state = network.run(state, start=cut, stop=cut + 1)
    deepest, finer = split(network.run(x, stop=len(network.units()) - 1))
    assert (deepest.shape[1], [m.shape[1] for m in finer]) == (1024, [256])
    assert set(network.train()(x)) == {"levels"}


def test_gradient_reaches_every_parameter():
    network = create_model("yolov3_tiny", num_classes=2).train()
    levels = network(torch.randn(2, 3, 64, 64))["levels"]
    sum((m * torch.randn_like(m)).sum() for m in levels).backward()
    assert not [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_classes_and_norms():
    network = create_model("yolov3_tiny", num_classes=2, norm_eps=1e-3, norm_momentum=0.03)
    norms = {(m.eps, m.momentum) for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {(1e-3, 0.03)}
    network.reset_head(5)
    assert network.eval()(torch.randn(1, 3, 32, 32))["levels"][0].shape[1] == 30
