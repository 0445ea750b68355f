"""A classifier whose answers can be worked out by hand: the mean colour of each square of the image
is its last map, and what a class counts for each colour its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retinue.inference.predictor import Member, Predictor
from retinue.modelfile import ModelDescription
from retinue.models.network import Level, Network, Unit
from retinue.sample import Preprocessing
from retinue.tasks.task import task_type

CLASSES = ("red", "green", "blue")
SIDE = 8
"""Of a square, in pixels of the input."""
HOW = Preprocessing(
    size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear", crop_fraction=1.0
)


class Pooled(nn.Module):
    """Works in place, as published networks do: what a hook on a module gives is overwritten."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(3, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.act(x).mean((2, 3)))
        return y


class Squares(Network):
    """`weights`: (classes, 3), what each class counts for red, green and blue."""

    def __init__(self, weights: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, SIDE, SIDE, bias=False)
        self.head = Pooled(len(weights))
        with torch.no_grad():
            mean = torch.eye(3)[:, :, None, None].expand(3, 3, SIDE, SIDE) / SIDE**2
            self.stem.weight.copy_(mean)
            self.head.fc.weight.copy_(torch.tensor(weights))
        self.name = "squares"

    def units(self) -> list[Unit]:
        return [Unit("stem", self.stem)]

    @property
    def feature_levels(self) -> list[Level]:
        return []


WEIGHTS = ((144.0, -48.0, -48.0), (-48.0, 144.0, -48.0), (-48.0, -48.0, 144.0))
"""A square of sixteen that is all red adds 9 to red's logit, and takes 3 from the others'."""


def predictor(
    task: str = "classification",
    *,
    network: Network | None = None,
    how: Preprocessing = HOW,
    members: int = 1,
    classes: Sequence[str] = CLASSES,
    **more: Any,
) -> Predictor:
    """By PyTorch on the CPU."""
    network = (network or Squares(WEIGHTS)).eval()
    description = ModelDescription(
        task=task, classes=list(classes), network=network.name or "squares", arguments={},
        preprocessing=how.as_dict(),
    )  # fmt: skip
    member = Member(network, task_type(task)(classes), description)
    return Predictor([member] * members, engine="torch", **more)


def picture(
    size: tuple[int, int], *patches: tuple[int, int, int, int, int]
) -> np.ndarray[Any, Any]:
    """RGB uint8 of `size` (width, height): `patches` (x1, y1, x2, y2, channel) on black."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for x1, y1, x2, y2, channel in patches:
        pixels[y1:y2, x1:x2, channel] = 255
    return pixels
