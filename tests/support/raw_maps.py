"""Raw maps of a detector, objects, and the loss of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.data.targets.boxes import Boxes
from retinue.tasks.detection.anchors import PUBLISHED
from retinue.tasks.detection.objective import DetectionObjective, LossOptions
from retinue.tasks.task import Losses
from retinue.training.losses import portion_loss

STRIDES = (8, 16, 32)
Array = npt.NDArray[np.float64]
Truth = list[tuple[list[float], int]]


def random_maps(n: int, height: int, width: int, classes: int, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, 3 * (5 + classes), height // s, width // s, generator=rng) for s in STRIDES
    ]


def objective_of(
    classes: int, weights: list[float] | None = None, **options: Any
) -> DetectionObjective:
    return DetectionObjective(
        anchors=PUBLISHED,
        strides=STRIDES,
        classes=classes,
        options=LossOptions.model_validate(options),
        class_weights=weights,
    )


def collated(truth: list[Truth], **flags: Any) -> dict[str, Tensor]:
    return Boxes.collate(
        [Boxes.made([b for b, _ in one], [of for _, of in one], **flags) for one in truth]
    )


def total_loss(losses: Losses, weight: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    n = len(next(iter(losses.parts.values()))[0])
    weight = torch.ones(n) if weight is None else weight
    return portion_loss(
        losses, weight, float(weight.sum()), portions=1, processes=1, over_all=lambda v: v
    )


# Objects of all levels, in both images; none of the middle level in the second set.
MANY: list[Truth] = [
    [([3, 4, 15, 20], 0), ([40, 10, 75, 66], 1), ([2, 1, 150, 93], 2), ([70, 30, 90, 52], 1)],
    [([80, 40, 150, 95], 2), ([10, 50, 40, 70], 0)],
]
