"""Linear layers that learn on a CPU: values and gradients are PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tensors import agree, drawn, made_by
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from retinue.models import dense
from retinue.models.dense import Linear


@pytest.fixture(autouse=True)
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(dense, "onednn_is_ahead", lambda: True)
    monkeypatch.setattr(dense, "LEAST", 0)


@pytest.mark.parametrize("shape", [(33, 20), (2, 17, 20), (1, 20), (2, 3, 4, 20)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_values_and_gradients(shape: tuple[int, ...], bias: bool, apart: bool) -> None:
    layer = Linear(20, 12, bias=bias)
    wide = drawn(*shape[:-1], 2 * shape[-1], dtype=torch.float32)
    x = (wide[..., ::2] if apart else wide[..., :20].contiguous()).requires_grad_()
    y, expected = layer(x), F.linear(x, layer.weight, layer.bias)
    assert made_by(y) == "_LinearBackward"
    agree(y, expected, 1e-6)
    dy = torch.randn_like(y)
    for layout in (dy, dy.mT.contiguous().mT, dy[..., :1].expand_as(dy)):
        of = (x, *layer.parameters())
        given = torch.autograd.grad(y, of, layout, retain_graph=True)
        truth = torch.autograd.grad(expected, of, layout, retain_graph=True)
        for one, other in zip(given, truth, strict=True):
            agree(one, other, 2e-6)


def test_a_single_vector() -> None:
    layer = Linear(20, 12)
    x = drawn(20, dtype=torch.float32).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    agree(x.grad, layer.weight.detach().sum(0), 1e-6)


@pytest.mark.parametrize("shape", [(5, 20), (20,)])
def test_a_weight_that_is_computed_is_asked_for_once(shape: tuple[int, ...]) -> None:
    asked: list[int] = []

    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            asked.append(1)
            return weight / 2

    layer, x = Linear(20, 12), drawn(*shape, dtype=torch.float32)
    expected = F.linear(x, layer.weight / 2, layer.bias)
    nn.utils.parametrize.register_parametrization(layer, "weight", Halved())
    asked.clear()
    agree(layer(x), expected, 1e-6)
    assert len(asked) == 1


def test_gradients_of_gradients() -> None:
    x = drawn(4, 3, dtype=torch.float32).requires_grad_()
    layer = Linear(3, 2)

    def second(forward: Callable[[Tensor], Tensor]) -> Tensor:
        (first,) = torch.autograd.grad(forward(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), x)[0]

    agree(second(layer), second(lambda x: F.linear(x, layer.weight, layer.bias)), 1e-5)


def test_only_what_is_wanted() -> None:
    layer = Linear(20, 12)
    layer.bias.requires_grad_(False)
    x = drawn(5, 20, dtype=torch.float32)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.bias.grad is None
    layer.requires_grad_(False)
    assert layer(x).grad_fn is None


@pytest.mark.parametrize("kind", ["float64", "autocast", "no gradient", "small", "slower"])
def test_other_layers_are_pytorchs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Linear(20, 12)
    x = drawn(5, 20, dtype=torch.float32)
    if kind == "float64":
        layer, x = layer.double(), x.double()
        assert gradcheck(layer, x[:2].requires_grad_())
        assert gradgradcheck(layer, x[:2].requires_grad_())
    if kind == "small":
        monkeypatch.setattr(dense, "LEAST", 5 * 20 * 12 + 1)
    if kind == "slower":
        monkeypatch.setattr(dense, "onednn_is_ahead", lambda: False)
    lower = torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast")
    with torch.set_grad_enabled(kind != "no gradient"), lower:
        y = layer(x)
    assert y.dtype == (torch.bfloat16 if kind == "autocast" else x.dtype)
    assert y.grad_fn is None or made_by(y) != "_LinearBackward"


def test_what_is_compiled_sees_pytorchs_operation() -> None:
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        seen.append(graph.code)
        return graph.forward

    layer = Linear(20, 12)
    x = drawn(5, 20, dtype=torch.float32)
    agree(torch.compile(layer, backend=backend, fullgraph=True)(x), layer(x), 1e-6)
    assert "linear" in seen[0]


@pytest.mark.parametrize(("slow", "expected"), [("matmul", True), ("_times", False)])
def test_the_faster_is_found(slow: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    room = torch if slow == "matmul" else dense
    quick = getattr(room, slow)
    pause = torch.ones(1500, 1500)

    def slowly(a: Tensor, b: Tensor) -> Tensor:
        for _ in range(3):
            pause.add_(1)
        product: Tensor = quick(a, b)
        return product

    monkeypatch.setattr(room, slow, slowly)
    assert dense.onednn_is_ahead.__wrapped__(side=64) is expected
