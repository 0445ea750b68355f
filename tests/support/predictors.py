"""A small network for predictions, its weights drawn at random."""

from __future__ import annotations

import torch
from torch import nn

from retinue.modelfile import ModelDescription
from retinue.models.blocks import ClassifierHead
from retinue.models.network import Level, Network, Unit
from retinue.sample import Preprocessing

CLASSES = ["daisy", "lily", "rose", "tulip"]
SMALL = Preprocessing(size=(32, 32))


class Tiny(Network):
    """Two convolutions: enough to depend on the image, quick to compile."""

    def __init__(self, *, num_classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.ReLU())
        self.head = ClassifierHead(16, num_classes, dropout=dropout)

    def units(self) -> list[Unit]:
        return [Unit("stem", self.stem, 1), Unit("stage", self.stage, 2)]

    @property
    def feature_levels(self) -> list[Level]:
        return [Level(1, 8, 2), Level(2, 16, 4)]


def randomise(network: Network) -> None:
    """Logits of a fresh network are nearly constant, and say nothing about the input."""
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            fan = parameter[0].numel()
            with torch.no_grad():
                parameter.normal_(0, (2 / fan) ** 0.5, generator=generator)


def settle(network: Network, size: tuple[int, int]) -> None:
    """BatchNorm's statistics as a training leaves them. Without, what a deep `randomise`d network
    answers grows from layer to layer until the last digits of its sums decide."""
    generator = torch.Generator().manual_seed(2)
    norms = [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    network.eval()
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # The mean of all that it sees.
    with torch.no_grad():
        network(torch.randn(4, 3, *size, generator=generator))
    network.eval()


def describe(**changes: object) -> ModelDescription:
    values = {
        "task": "classification",
        "classes": CLASSES,
        "network": "tiny",
        "arguments": {"num_classes": len(CLASSES)},
        "preprocessing": SMALL.as_dict(),
    }
    return ModelDescription(**{**values, **changes})  # type: ignore[arg-type]
