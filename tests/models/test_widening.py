"""Widening convolutions with BatchNorm: values and gradients are PyTorch's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from tensors import agree, drawn, made_by
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from retinue.models import widening
from retinue.models.blocks import ConvNormAct, relu6, silu

WIDE = 18


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def layer(act: Callable[[], nn.Module] | None = silu, *, wide: int = WIDE) -> ConvNormAct:
    """A widening layer that has seen something."""
    made = ConvNormAct(3, wide, act=act).double()
    with torch.no_grad():
        made.norm.weight.uniform_(0.5, 2)
        made.norm.bias.normal_()
        made.norm.running_mean.normal_()
    return made


def plainly(made: ConvNormAct, x: Tensor) -> Tensor:
    """Layer by layer, as PyTorch has them."""
    u = F.conv2d(x, made.conv.weight)
    norm = made.norm
    z = F.batch_norm(
        u, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training,
        norm.momentum, norm.eps,
    )  # fmt: skip
    y: Tensor = made.act(z)
    return y


@pytest.mark.parametrize("act", [None, silu, relu6])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_widening_convolutions_with_their_norm(
    act: Callable[[], nn.Module] | None, offset: float
) -> None:
    ours, like = layer(act), layer(act)
    like.load_state_dict(ours.state_dict())
    x = (drawn(2, 3, 14, 14) + offset).requires_grad_()
    z = widening.conv_norm(x, copy.deepcopy(ours.conv), copy.deepcopy(ours.norm))
    assert made_by(z) == "_WidenedNormBackward"
    given, expected = ours(x), plainly(like, x)
    agree(given, expected)
    agree(ours.norm.running_mean, like.norm.running_mean)
    agree(ours.norm.running_var, like.norm.running_var)
    assert int(ours.norm.num_batches_tracked) == 1
    dy = torch.randn_like(given)
    mine = torch.autograd.grad(given, (x, *ours.parameters()), dy)
    for one, other in zip(
        mine, torch.autograd.grad(expected, (x, *like.parameters()), dy), strict=True
    ):
        agree(one, other, 1e-9)


def test_in_float32_it_rounds_no_worse_than_pytorch() -> None:
    exact = layer(None)
    x = drawn(4, 3, 16, 16) + 5
    ours, like = copy.deepcopy(exact).float(), copy.deepcopy(exact).float()
    ys = [exact(x), ours(x.float()), plainly(like, x.float())]
    dy = torch.randn_like(ys[0])
    made = (exact, ours, like)
    found = [
        [y.detach(), *torch.autograd.grad(y, list(m.parameters()), dy.to(y.dtype))]
        for y, m in zip(ys, made, strict=True)
    ]
    for truth, mine, torchs in zip(*found, strict=True):
        scale = truth.abs().max()
        assert (mine - truth).abs().max() <= 2 * (torchs - truth).abs().max() + 2e-6 * scale


def test_under_autocast_it_is_bfloat16_with_statistics_in_float32() -> None:
    exact = layer(None)
    made = copy.deepcopy(exact).float()
    x = (drawn(4, 3, 20, 20) + 1).to(torch.bfloat16).requires_grad_()
    like = x.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        z = made(x)
    assert z.dtype == torch.bfloat16
    assert made_by(z) == "_WidenedNormBackward"
    expected = exact(like)
    agree(z.double(), expected, 2e-2)
    agree(made.norm.running_var.double(), exact.norm.running_var, 1e-5)
    dy = torch.randn_like(expected)
    given = torch.autograd.grad(z, (x, *made.parameters()), dy.bfloat16())
    truth = torch.autograd.grad(expected, (like, *exact.parameters()), dy)
    for one, other in zip(given, truth, strict=True):
        agree(one.double(), other, 2e-2)


def test_its_gradients_can_be_differentiated() -> None:
    made = layer(None)
    x = drawn(2, 3, 2, 2).requires_grad_()

    def ours(x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        zeros, ones = torch.zeros(WIDE).double(), torch.ones(WIDE).double()
        z: Tensor = widening._WidenedNorm.apply(
            x, weight, gamma, beta, zeros, ones, 0.1, 1e-5, x.dtype
        )
        return z

    of = (x, made.conv.weight, made.norm.weight, made.norm.bias)
    assert gradcheck(ours, of)
    assert gradgradcheck(ours, of)


def _hooked(made: ConvNormAct) -> AbstractContextManager[object]:
    made.norm.register_forward_hook(lambda *_: None)
    return nullcontext()


def _with_bias(made: ConvNormAct) -> AbstractContextManager[object]:
    made.conv.bias = nn.Parameter(torch.zeros(WIDE).double())
    return nullcontext()


def _cumulative(made: ConvNormAct) -> AbstractContextManager[object]:
    made.norm.momentum = None
    return nullcontext()


def _frozen(made: ConvNormAct) -> AbstractContextManager[object]:
    made.norm.eval()
    return nullcontext()


@pytest.mark.parametrize(
    "change", [_hooked, _with_bias, _cumulative, _frozen, lambda _: torch.no_grad()]
)
def test_other_layers_are_pytorchs(
    change: Callable[[ConvNormAct], AbstractContextManager[object]],
) -> None:
    made = layer()
    with change(made):
        z = widening.conv_norm(drawn(2, 3, 14, 14), made.conv, made.norm)
    assert z.grad_fn is None or "Widened" not in made_by(z)


def test_what_is_traced_compiled_or_transformed_sees_pytorchs_operations() -> None:
    made = layer(relu6)
    x = drawn(2, 3, 14, 14)
    expected = made(x)
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        seen.append(graph.code)
        return graph.forward

    agree(torch.compile(made, backend=backend, fullgraph=True)(x), expected)
    assert "batch_norm" in seen[0]
    traced = torch.jit.trace(made, (x,), check_trace=False)  # type: ignore[no-untyped-call]
    assert "batch_norm" in str(traced.inlined_graph)
    names = dict(made.named_parameters())
    kept = {k: v.clone() for k, v in made.named_buffers()}

    def summed(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        y: Tensor = torch.func.functional_call(made, (parameters, buffers), (x,))
        return y.square().sum()

    found = torch.func.grad(summed)(names, kept)
    made(x).square().sum().backward()
    for name, parameter in names.items():
        assert parameter.grad is not None
        agree(found[name], parameter.grad, 1e-9)


@pytest.mark.parametrize(
    ("wide", "side", "kind", "expected"),
    [
        (15, 14, torch.float64, True),
        (14, 14, torch.float64, False),
        (15, 13, torch.float64, False),
        (15, 24, torch.bfloat16, True),
        (15, 23, torch.bfloat16, False),
    ],
)
def test_where_it_pays(wide: int, side: int, kind: torch.dtype, expected: bool) -> None:
    made = layer(wide=wide).to(kind)
    z = widening.conv_norm(drawn(2, 3, side, side, dtype=kind), made.conv, made.norm)
    assert ("Widened" in made_by(z)) is expected


def test_narrow_channels_that_cancel_each_other() -> None:
    """Of their difference hardly anything is left, of which the norm makes all."""
    exact = layer(None).train()
    with torch.no_grad():
        exact.conv.weight[0].zero_()[:2] = torch.tensor([1.0, -1.0])[:, None, None]
    x = 100 * drawn(2, 3, 32, 32)
    x[:, 1] = x[:, 0] + x[:, 1] / 3000
    ours = copy.deepcopy(exact).float()
    mine, like = x.float().requires_grad_(), x.float().double().requires_grad_()
    given, expected = ours(mine), plainly(exact, like)
    assert made_by(given) == "_WidenedNormBackward"
    agree(given.double(), expected, 1e-4)
    dy = torch.randn_like(expected)
    found = torch.autograd.grad(given, (mine, *ours.parameters()), dy.float())
    truth = torch.autograd.grad(expected, (like, *exact.parameters()), dy)
    for one, other in zip(found, truth, strict=True):
        agree(one.double(), other, 1e-3)
    agree(ours.double().norm.running_var, exact.norm.running_var, 1e-5)


def test_gradients_to_be_differentiated_of_a_layer_that_comes_twice() -> None:
    """What comes the second time is made of the same weights."""
    made, narrow = layer(None), drawn(3, WIDE, 1, 1) / 4
    x = drawn(2, 3, 24, 24).requires_grad_()

    def first(forward: Callable[[Tensor], Tensor], *, create: bool) -> tuple[Tensor, ...]:
        loss = forward(F.conv2d(forward(x), narrow)).pow(3).mean()
        return torch.autograd.grad(loss, (x, *made.parameters()), create_graph=create)

    assert made_by(made(x)) == "_WidenedNormBackward"
    expected = first(lambda z: plainly(made, z), create=False)
    for create in (False, True):
        for one, other in zip(first(made, create=create), expected, strict=True):
            agree(one, other, 1e-9)


def test_a_weight_that_is_computed_is_asked_for_once() -> None:
    made = layer(None)
    asked: list[int] = []

    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            asked.append(1)
            return weight / 2

    torch.nn.utils.parametrize.register_parametrization(made.conv, "weight", Halved())
    asked.clear()
    assert made_by(made(drawn(2, 3, 24, 24))) != "_WidenedNormBackward"
    assert len(asked) == 1
