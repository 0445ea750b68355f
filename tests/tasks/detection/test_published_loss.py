"""The loss, against the published formulas worked out in plain NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from raw_maps import MANY, STRIDES, Array, Truth, collated, objective_of, random_maps, total_loss
from torch import Tensor

from retinue.tasks.detection.anchors import PUBLISHED


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
    levels: list[Tensor],
    truth: list[Truth],
    classes: int,
    *,
    measure: str = "ciou",
    same_level: bool = False,
    smoothing: float = 0.0,
    weights: list[float] | None = None,
    gamma: float = 0.0,
    alpha: float | None = None,
    by_overlap: bool = False,
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
                    agreement = _measure(measure, placed, box)
                    box_sum += 1 - agreement
                    wanted = min(max(agreement, 0), 1) if by_overlap else 1
                    error = abs(wanted - 1 / (1 + math.exp(-said[4])))
                    sure = _cross_entropy(said[4], wanted) * error**gamma
                    sure_sum += sure * (1 if alpha is None else alpha)
                    labels = [
                        (c == of) * (1 - smoothing) + smoothing / classes for c in range(classes)
                    ]
                    class_sum += (weights[of] if weights else 1) * sum(
                        _cross_entropy(said[5 + c], label) for c, label in enumerate(labels)
                    )
                elif not any(_iou(placed, box) > 0.5 for box in near):
                    negatives += 1
                    sure = _cross_entropy(said[4], 0) / (1 + math.exp(-said[4])) ** gamma
                    sure_sum += sure * (1 if alpha is None else 1 - alpha)
        balance = (4, 1, 0.4)[k] * 5 * height * width / 416**2
        found["box"] += 0.05 * box_sum / max(positives, 1)
        found["objectness"] += balance * sure_sum / (positives + negatives)
        found["class"] += classes / 80 * class_sum / max(positives, 1) / classes
    return found


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
    levels = random_maps(2, 96, 160, 3, seed=3)
    by_hand = published(levels, truth, 3, measure=measure, same_level=same_level)
    losses = objective_of(3, **options)({"levels": levels}, collated(truth))
    total, shown = total_loss(losses)
    for name, value in by_hand.items():
        assert shown[f"loss_{name}"].item() == pytest.approx(value, rel=1e-5), name
    assert total.item() == pytest.approx(sum(by_hand.values()), rel=1e-5)


def test_the_two_versions_differ_here() -> None:
    """Otherwise the test above would not tell them apart."""
    levels = random_maps(2, 96, 160, 3, seed=3)
    by_level = published(levels, MANY, 3, measure="ciou", same_level=True)
    by_all = published(levels, MANY, 3, measure="ciou", same_level=False)
    assert abs(by_level["objectness"] - by_all["objectness"]) > 1e-3 * by_all["objectness"]


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [
        ({"label_smoothing": 0.1}, {"smoothing": 0.1}),
        ({"focal_gamma": 2.0, "focal_alpha": 0.25}, {"gamma": 2.0, "alpha": 0.25}),
        ({"objectness_target": "overlap"}, {"by_overlap": True}),
        ({"objectness_target": "overlap", "focal_gamma": 1.5}, {"by_overlap": True, "gamma": 1.5}),
        ({"weights": [0.5, 2.0, 1.5]}, {"weights": [0.5, 2.0, 1.5]}),
    ],
    ids=lambda options: "-".join(options),
)
def test_options_by_hand(options: dict[str, Any], by_hand: dict[str, Any]) -> None:
    levels = random_maps(2, 96, 160, 3, seed=4)
    wanted = published(levels, MANY, 3, **by_hand)
    _, shown = total_loss(objective_of(3, **options)({"levels": levels}, collated(MANY)))
    for name, value in wanted.items():
        assert shown[f"loss_{name}"].item() == pytest.approx(value, rel=1e-5), name
