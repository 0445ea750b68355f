"""Depthwise convolutions that learn on a CPU: values and gradients are PyTorch's."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from tensors import agree, drawn, made_by
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from retinue.models import depthwise
from retinue.training.mixed import DepthwiseInFloat32


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize(("height", "width"), [(5, 5), (5, 8), (8, 5), (6, 7), (9, 6), (12, 12)])
def test_depthwise_convolutions_of_five(stride: int, padding: int, height: int, width: int) -> None:
    x = drawn(2, 3, height, width).requires_grad_()
    weight = drawn(3, 1, 5, 5).requires_grad_()

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        pair, sides = (stride, stride), (padding, padding)
        return depthwise.conv2d(x, weight, None, pair, sides, (1, 1), 3)

    given, expected = ours(x, weight), F.conv2d(x, weight, None, stride, padding, 1, 3)
    assert made_by(given) == "_DepthwiseBackward"
    assert torch.equal(given, expected)
    dy = torch.randn_like(given)
    of = (x, weight)
    for mine, torchs in zip(
        torch.autograd.grad(given, of, dy), torch.autograd.grad(expected, of, dy), strict=True
    ):
        agree(mine, torchs)
    if height * width <= 25:
        assert gradcheck(ours, of)
        assert gradgradcheck(ours, of)


@pytest.mark.parametrize("change", ["small", "three", "dilated", "padded by 1", "no gradient"])
def test_other_depthwise_convolutions_are_pytorchs(change: str) -> None:
    x = drawn(1, 3, 8, 4 if change == "small" else 8)
    weight = drawn(3, 1, *((3, 3) if change == "three" else (5, 5))).requires_grad_()
    padding = 1 if change == "padded by 1" else 2
    dilation = 2 if change == "dilated" else 1
    with torch.no_grad() if change == "no gradient" else nullcontext():
        y = depthwise.conv2d(
            x, weight, None, (1, 1), (padding, padding), (dilation, dilation), 3
        )  # fmt: skip
    assert torch.equal(y, F.conv2d(x, weight, None, 1, padding, dilation, 3))
    assert y.grad_fn is None or made_by(y) == "ConvolutionBackward0"


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_under_autocast_they_compute_in_what_is_quick(
    kind: torch.dtype, side: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depthwise, "_half", lambda: kind)
    x = drawn(2, 20, 9, 9, dtype=torch.bfloat16).requires_grad_()
    weight = drawn(20, 1, side, side, dtype=torch.float32).requires_grad_()
    pair, sides = (stride, stride), (side // 2, side // 2)
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        y = depthwise.conv2d(x, weight, None, pair, sides, (1, 1), 20)
    like, weights = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = F.conv2d(like, weights, None, stride, side // 2, 1, 20)
    dy = torch.randn_like(expected)
    given = torch.autograd.grad(y, (x, weight), dy.to(y.dtype))
    assert [t.dtype for t in (y, *given)] == [kind, torch.bfloat16, torch.float32]
    most = 2e-2 if kind == torch.bfloat16 else 5e-3  # the input's gradient is bfloat16 anyway
    truth = torch.autograd.grad(expected, (like, weights), dy)
    for one, other in zip((y, *given), (expected, *truth), strict=True):
        agree(one.double(), other, most)


def test_without_onednn_they_are_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = drawn(1, 3, 8, 8).requires_grad_(), drawn(3, 1, 5, 5).requires_grad_()
    monkeypatch.setattr(torch._C, "_get_mkldnn_enabled", lambda: False)
    y = depthwise.conv2d(x, weight, None, (1, 1), (2, 2), (1, 1), 3)
    assert made_by(y) == "ConvolutionBackward0"
