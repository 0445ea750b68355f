"""Formulations of layers that learn on a CPU: values and gradients are PyTorch's."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from tensors import LAST, agree, drawn, made_by
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from retinue.models import dense, depthwise, gradients, widening
from retinue.models.blocks import ConvNormAct, SqueezeExcite
from retinue.models.registry import create_model


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("places", [3, 14])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_maps_times_weights_of_their_channels(places: int, kind: torch.dtype) -> None:
    x = drawn(3, 20, places, places, dtype=kind).requires_grad_()
    weights = drawn(3, 20, 1, 1, dtype=kind).requires_grad_()
    y, expected = gradients.scaled(x, weights), x * weights
    assert made_by(y) == ("_ScaledBackward" if places == 14 else "MulBackward0")
    assert torch.equal(y, expected)
    dy = torch.randn_like(y)
    most = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[kind]
    given = torch.autograd.grad(y, (x, weights), dy)
    for one, other in zip(given, torch.autograd.grad(expected, (x, weights), dy), strict=True):
        assert one.dtype == kind
        agree(one, other, most)
    if kind == torch.float64:
        some, few = x.detach()[:1, :2, :2, :2], weights.detach()[:1, :2]
        of = (some.clone().requires_grad_(), few.clone().requires_grad_())
        assert gradcheck(gradients._Scaled.apply, of)
        assert gradgradcheck(gradients._Scaled.apply, of)


@pytest.mark.parametrize("layouts", itertools.product((LAST, torch.contiguous_format), repeat=2))
def test_whatever_the_layouts(layouts: tuple[torch.memory_format, torch.memory_format]) -> None:
    x, dy = (torch.randn(2, 5, 14, 15).to(memory_format=layout) for layout in layouts)
    weights = torch.rand(2, 5, 1, 1).requires_grad_()
    (given,) = torch.autograd.grad(gradients.scaled(x.requires_grad_(), weights), weights, dy)
    agree(given, (x.detach() * dy).sum((2, 3), keepdim=True), 1e-5)


def test_no_maps_at_all() -> None:
    """PyTorch's kernel for the sums would end the process."""
    x, weights = drawn(0, 20, 14, 14).requires_grad_(), drawn(0, 20, 1, 1).requires_grad_()
    y = gradients.scaled(x, weights)
    assert made_by(y) == "MulBackward0"
    assert [one.shape for one in torch.autograd.grad(y.sum(), (x, weights))] == [
        x.shape,
        weights.shape,
    ]


@pytest.mark.parametrize("kind", ["three", "five", "five by two", "wide", "scaled", "dense"])
def test_many_gradients_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "onednn_is_ahead", lambda: True)
    monkeypatch.setattr(dense, "LEAST", 0)
    x = drawn(2, 4, 24, 24, dtype=torch.float32)
    made: dict[str, nn.Module] = {
        "three": depthwise.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
        "five": depthwise.Conv2d(4, 4, 5, padding=2, groups=4, bias=False),
        "five by two": depthwise.Conv2d(4, 4, 5, 2, padding=2, groups=4, bias=False),
        "wide": ConvNormAct(4, 24, act=None),
        "scaled": SqueezeExcite(4, 4),
        "dense": dense.Linear(24, 5),
    }
    module = made[kind].to(memory_format=LAST).train()  # type: ignore[call-overload]
    x.requires_grad_()
    y = module(x)
    assert made_by(y).startswith("_")
    of = (x, *module.parameters())
    many = torch.randn(3, *y.shape)
    found = torch.autograd.grad(y, of, many, is_grads_batched=True, retain_graph=True)
    for number, dy in enumerate(many):
        each = torch.autograd.grad(y, of, dy, retain_graph=True)
        for one, other in zip(found, each, strict=True):
            agree(one[number], other, 1e-4)


@pytest.mark.parametrize("in_place", [True, False])
def test_relu6(in_place: bool) -> None:
    act = gradients.ReLU6(inplace=in_place)
    values = torch.tensor([-1.0, 0.0, 1e-6, 3.0, 6.0 - 1e-6, 6.0, 7.0])
    x, like = values.clone().requires_grad_(), values.clone().requires_grad_()
    before = x * 1
    given, expected = act(before), F.relu6(like)
    assert torch.equal(given, expected)
    assert (given is before) == in_place
    given.sum().backward()
    expected.sum().backward()
    assert x.grad is not None
    assert like.grad is not None
    assert torch.equal(x.grad, like.grad)
    with torch.no_grad():
        assert torch.equal(act(values.clone()), expected)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v2_035", "mobilenet_v3_small_100"])
def test_a_whole_network_learns_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_model(name, num_classes=4).double().to(memory_format=LAST).train()  # type: ignore[call-overload]
    for module in network.modules():
        if hasattr(module, "rate"):
            module.rate = 0.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = drawn(2, 3, 64, 64)

    def learnt() -> list[Tensor]:
        copied = copy.deepcopy(network)
        copied(x)["logits"].square().sum().backward()
        found = [p.grad for p in copied.parameters()]
        return [*(g for g in found if g is not None), *copied.buffers()]

    ours = learnt()
    for room in (gradients, depthwise, widening):
        monkeypatch.setattr(room, "learns_eagerly", lambda x, weight: False)
    for mine, torchs in zip(ours, learnt(), strict=True):
        agree(mine, torchs, 1e-8)
