"""PyTorch's copy says what the network says, with less to do, and leaves the network alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from retinue.inference.agreement import agrees
from retinue.inference.eager import TorchEngine, folded
from retinue.inference.engines import compile_engine
from retinue.models.registry import create_model


def shaken(module: nn.Module) -> nn.Module:
    """With statistics and gains of all kinds."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                part.weight.data.uniform_(0.5, 1.5)
                part.bias.data.normal_()
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


class Branched(nn.Module):
    """What a convolution gives is used beside its norm, too; one convolution is used twice; one
    norm has neither gain nor statistics of its own to fold."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4, affine=kind != "plain")
        self.again = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "twice":
            y = self.again(self.again(self.norm(self.conv(x))))
            return self.norm(y).mean((2, 3))
        y = self.conv(x)
        out = self.norm(y) + (y if self.kind == "beside" else 0)
        return out.mean((2, 3))


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v2", "resnet18"])
def test_every_norm_of_the_usual_networks_is_folded(name: str) -> None:
    network = shaken(create_model(name, num_classes=7))
    x = torch.randn(2, 3, 64, 64)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    copy = folded(network, x)
    assert norms(copy) == 0 < norms(network)
    assert agrees(TorchEngine(copy), TorchEngine(network), x).error < 1e-4
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("kind", ["beside", "twice", "plain"])
def test_what_cannot_be_folded_is_right_all_the_same(kind: str) -> None:
    module = shaken(Branched(kind))
    x = torch.randn(3, 3, 8, 8)
    made = compile_engine(module, x, engine="torch")
    assert agrees(made, module, x).error < 1e-5


def test_a_norm_that_does_more_is_left() -> None:
    class Active(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    module = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), Active(4)))
    x = torch.randn(2, 3, 8, 8)
    assert norms(folded(module, x)) == 1


def test_the_copy_stays_what_it_was_when_the_network_is_trained_on() -> None:
    module = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    x = torch.randn(2, 3, 8, 8)
    made = compile_engine(module, x, engine="torch")
    before = made(x)
    follows = TorchEngine(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1
    assert torch.equal(made(x), before)
    assert not torch.allclose(follows(x), before)
