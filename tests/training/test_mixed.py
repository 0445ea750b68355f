"""Mixed precision, layer kind by layer kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from retinue.models.registry import create_model
from retinue.training import mixed
from retinue.training.environment import build_accelerator
from retinue.training.mixed import DepthwiseInFloat32, autocast


@pytest.fixture
def bf16() -> Iterator[Accelerator]:
    yield build_accelerator("cpu", "bf16")
    build_accelerator("cpu", "fp32")


def test_depthwise_convolutions_are_of_float32_and_all_others_of_bfloat16(
    bf16: Accelerator,
) -> None:
    network = create_model("mobilenet_v2_035", num_classes=3).eval()
    given: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups == module.in_channels
            module.register_forward_hook(lambda m, i, o, kind=depthwise: given[kind].add(o.dtype))
    with torch.no_grad(), autocast(bf16):
        network(torch.zeros(1, 3, 32, 32))
    assert given == {True: {torch.float32}, False: {torch.bfloat16}}


def test_the_answer_is_that_of_float32(bf16: Accelerator) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 9, 9, generator=generator, dtype=torch.bfloat16)
    depthwise = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=6)
    with autocast(bf16):
        given = depthwise(x)
    expected = F.conv2d(x.float(), depthwise.weight, depthwise.bias, 2, 1, 1, 6)
    assert torch.equal(given, expected)
    given.sum().backward()
    gradient = depthwise.weight.grad
    depthwise.weight.grad = None
    expected.sum().backward()
    assert gradient is not None
    assert depthwise.weight.grad is not None
    assert torch.equal(gradient, depthwise.weight.grad)


@pytest.mark.parametrize("how", ["by position", "by name", "in part"])
def test_arguments_of_every_form(how: str) -> None:
    x, weight = torch.randn(1, 4, 5, 5), torch.randn(4, 1, 3, 3)
    expected = F.conv2d(x, weight, None, 1, 1, 1, 4)

    def called() -> Tensor:
        if how == "by position":
            return torch.conv2d(x, weight, None, 1, 1, 1, 4)
        if how == "by name":
            return torch.conv2d(input=x, weight=weight, padding=1, groups=4)
        return F.conv2d(x, weight, padding=1, groups=4)

    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        given = called()
    assert given.dtype == torch.float32
    assert torch.equal(given, expected)


def test_float32_is_left_alone() -> None:
    with autocast(build_accelerator("cpu", "fp32")):
        assert nn.Conv2d(4, 4, 3)(torch.zeros(1, 4, 5, 5)).dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")


def test_a_compiled_network_computes_the_same(bf16: Accelerator) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1))
    compiled = torch.compile(layers, backend="eager")
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad(), autocast(bf16):
        assert torch.equal(compiled(x), layers(x))


def test_trainings_enter_mixed_precision_in_no_other_way() -> None:
    room = Path(mixed.__file__).parent
    others = [
        file.name for file in room.rglob("*.py")
        if "accelerator.autocast(" in file.read_text("utf-8") and file != Path(mixed.__file__)
    ]  # fmt: skip
    assert others == []
