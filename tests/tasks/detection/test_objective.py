"""The loss, against the published formulas worked out in plain NumPy, and at its borders."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
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


def _levels(n: int, height: int, width: int, classes: int, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, 3 * (5 + classes), height // s, width // s, generator=rng) for s in STRIDES
    ]


def _objective(classes: int, **options: Any) -> DetectionObjective:
    chosen = LossOptions.model_validate(options)
    return DetectionObjective(anchors=PUBLISHED, strides=STRIDES, classes=classes, options=chosen)


def _targets(truth: list[Truth], **flags: Any) -> dict[str, Tensor]:
    return Boxes.collate(
        [Boxes.made([b for b, _ in one], [of for _, of in one], **flags) for one in truth]
    )


def _total(losses: Losses, weight: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    n = len(next(iter(losses.parts.values()))[0])
    weight = torch.ones(n) if weight is None else weight
    return portion_loss(
        losses, weight, float(weight.sum()), portions=1, processes=1, over_all=lambda v: v
    )


def _iou(a: Array, b: Array) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def _measure(kind: str, a: Array, b: Array) -> float:
    iou = _iou(a, b)
    hull_w, hull_h = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    if kind == "giou":
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
        union /= 1 + iou
        return iou - (hull_w * hull_h - union) / (hull_w * hull_h)
    assert kind == "ciou"
    apart = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    angles = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    return iou - apart / (hull_w**2 + hull_h**2) - v * v / (1 - iou + v)


def _cross_entropy(logit: float, wanted: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)


def published(
    levels: list[Tensor], truth: list[Truth], classes: int, *, measure: str, same_level: bool
) -> dict[str, float]:
    """The formulas, one level, image, cell and anchor after the other."""
    height, width = levels[0].shape[2] * 8, levels[0].shape[3] * 8
    every = [anchor for level in PUBLISHED for anchor in level]
    found = {"box": 0.0, "objectness": 0.0, "class": 0.0}
    for k, (level, anchors, stride) in enumerate(zip(levels, PUBLISHED, STRIDES, strict=True)):
        raw = level.double().numpy().reshape(len(level), 3, 5 + classes, *level.shape[2:])
        box_sum, class_sum, sure_sum, positives, negatives = 0.0, 0.0, 0.0, 0, 0
        for image, objects in enumerate(truth):
            owner: dict[tuple[int, int, int], tuple[Array, int]] = {}
            own: list[Array] = []
            for corners, of in objects:
                box = np.array(corners)
                w, h = box[2] - box[0], box[3] - box[1]
                fits = [
                    min(w, aw) * min(h, ah) / (w * h + aw * ah - min(w, aw) * min(h, ah))
                    for aw, ah in every
                ]
                best = int(np.argmax(fits))
                if best // 3 == k:
                    row = int((box[1] + box[3]) / 2 // stride)
                    column = int((box[0] + box[2]) / 2 // stride)
                    owner[best % 3, row, column] = (box, of)
                    own.append(box)
            near = own if same_level else [np.array(corners) for corners, _ in objects]
            for a, row, column in np.ndindex(3, *level.shape[2:]):
                said = raw[image, a, :, row, column]
                x = (1 / (1 + math.exp(-said[0])) + column) * stride
                y = (1 / (1 + math.exp(-said[1])) + row) * stride
                w, h = math.exp(said[2]) * anchors[a][0], math.exp(said[3]) * anchors[a][1]
                placed = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                if (a, row, column) in owner:
                    box, of = owner[a, row, column]
                    positives += 1
                    box_sum += 1 - _measure(measure, placed, box)
                    sure_sum += _cross_entropy(said[4], 1)
                    class_sum += sum(
                        _cross_entropy(said[5 + c], float(c == of)) for c in range(classes)
                    )
                elif not any(_iou(placed, box) > 0.5 for box in near):
                    negatives += 1
                    sure_sum += _cross_entropy(said[4], 0)
        balance = (4, 1, 0.4)[k] * 5 * height * width / 416**2
        found["box"] += 0.05 * box_sum / max(positives, 1)
        found["objectness"] += balance * sure_sum / (positives + negatives)
        found["class"] += classes / 80 * class_sum / max(positives, 1) / classes
    return found


# Objects of all levels, in both images; none of the middle level in the second set.
MANY: list[Truth] = [
    [([3, 4, 15, 20], 0), ([40, 10, 75, 66], 1), ([2, 1, 150, 93], 2), ([70, 30, 90, 52], 1)],
    [([80, 40, 150, 95], 2), ([10, 50, 40, 70], 0)],
]
FEW: list[Truth] = [[([3, 4, 15, 20], 1)], []]


@pytest.mark.parametrize("truth", [MANY, FEW])
@pytest.mark.parametrize(
    ("options", "measure", "same_level"),
    [({"ignore_by": "level"}, "ciou", True), ({"overlap": "giou"}, "giou", False)],
    ids=["keras", "pytorch"],
)
def test_the_published_loss_is_reproduced(
    truth: list[Truth], options: dict[str, Any], measure: str, same_level: bool
) -> None:
    levels = _levels(2, 96, 160, 3, seed=3)
    # Small boxes here and there, so that some are right by chance and ignored.
    by_hand = published(levels, truth, 3, measure=measure, same_level=same_level)
    losses = _objective(3, **options)({"levels": levels}, _targets(truth))
    total, shown = _total(losses)
    for name, value in by_hand.items():
        assert shown[f"loss_{name}"].item() == pytest.approx(value, rel=1e-5), name
    assert total.item() == pytest.approx(sum(by_hand.values()), rel=1e-5)


def test_the_two_versions_differ_here() -> None:
    """Otherwise the test above would not tell them apart."""
    levels = _levels(2, 96, 160, 3, seed=3)
    by_level = published(levels, MANY, 3, measure="ciou", same_level=True)
    by_all = published(levels, MANY, 3, measure="ciou", same_level=False)
    assert abs(by_level["objectness"] - by_all["objectness"]) > 1e-3 * by_all["objectness"]
