"""The mean over a map and its gradient: torch's own numbers, without a map of the gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from retinue.models.blocks import SqueezeExcite, mean_of_map

LAST = torch.channels_last


@pytest.mark.parametrize("shape", [(4, 16, 28, 28), (2, 96, 7, 7), (3, 5, 1, 9)])
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
def test_the_numbers_are_those_of_mean(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    x = torch.randn(shape).to(memory_format=layout)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    mean, ours = one.mean((2, 3), keepdim=True), mean_of_map(other, learning=True)
    assert torch.equal(mean, ours)
    gradient = torch.randn_like(mean)
    mean.backward(gradient)
    ours.backward(gradient)
    assert one.grad is not None
    assert other.grad is not None
    assert torch.equal(one.grad, other.grad)


def test_half_precision_does_not_overflow() -> None:
    x = torch.full((1, 1, 128, 128), 100.0, dtype=torch.float16)
    assert mean_of_map(x, learning=True).item() == 100


class _Layouts(TorchDispatchMode):
    """Notes every whole map that is not channels-last."""

    def __init__(self) -> None:
        super().__init__()
        self.other: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        whole = isinstance(out, torch.Tensor) and out.shape == (2, 8, 6, 6)
        if whole and 0 not in out.stride() and not out.is_contiguous(memory_format=LAST):
            self.other.append(str(func))
        return out


@pytest.mark.parametrize("learning", [True, False])
def test_squeeze_and_excitation_stays_channels_last(learning: bool) -> None:
    block = SqueezeExcite(8, 4).to(memory_format=LAST)
    block.train(learning)
    x = torch.randn(2, 8, 6, 6).to(memory_format=LAST).requires_grad_()
    with _Layouts() as seen:
        block(x).sum().backward()
    # What `mean` would do is what the other case shows.
    assert ("aten.div.Scalar" in seen.other) is not learning
