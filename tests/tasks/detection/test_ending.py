"""Suppression within a graph leaves what suppression without one leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from retinue.sample import Batch, Sample
from retinue.tasks.detection.task import Detection, DetectionOptions
from retinue.tasks.ending import Placed

ANCHORS = [[(10.0, 14.0), (23.0, 27.0), (37.0, 58.0)], [(81.0, 82.0), (35.0, 69.0), (44.0, 19.0)]]
STATE = {"anchors": ANCHORS, "strides": [16, 32]}
CLASSES = ("a", "b", "c")


def maps(n: int, seed: int = 0, sure: float = 0.0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    levels = [torch.randn(n, 3 * 8, side, side, generator=generator) for side in (8, 4)]
    for level in levels:  # objectness
        level.view(n, 3, 8, *level.shape[2:])[:, :, 4] += sure
    return {"levels": tuple(levels)}


def batch(n: int, scale: float, shift: tuple[float, float], size: tuple[int, int]) -> Batch:
    way = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])
    return Batch(
        images=torch.zeros(n, 3, 128, 128, dtype=torch.uint8),
        samples=[Sample(str(k)) for k in range(n)],
        keys=np.arange(n),
        weight=torch.ones(n),
        to_original=np.stack([way] * n),
        original_size=np.array([size] * n),
    )


def both(options: dict[str, Any], state: dict[str, Any], outputs: Any) -> Any:
    """Of each image what is answered, without and with the graph."""
    task = Detection(CLASSES, DetectionOptions.model_validate(options), {**STATE, **state})
    scale, shift, size = 2.5, (-20.0, 6.0), (270, 300)
    n = len(outputs["levels"][0])
    seen = batch(n, scale, shift, size)
    plain = [task.result(f, "it") for f in task.decode(outputs, seen)]
    placed = Placed(*(torch.tensor(v, dtype=torch.float32) for v in ((scale, scale), shift, size)))
    said = task.ending()(outputs, placed)
    whole = batch(n, 1.0, (0.0, 0.0), size)
    return plain, [task.result(f, "it") for f in task.ended(said, whole)], said


@pytest.mark.parametrize("options", [
    {}, {"confidence": 0.2}, {"confidence": 0.3, "iou": 0.05}, {"class_wise": False},
    {"suppression": "diou", "confidence": 0.3}, {"several_classes": False, "confidence": 0.3},
    {"max_boxes": 5, "confidence": 0.2}, {"confidence": 0.999},
])  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_boxes(options: dict[str, Any], seed: int) -> None:
    plain, graph, _ = both({"iou": 0.5, **options}, {}, maps(3, seed))
    if options.get("confidence") != 0.999:
        assert min(len(result.boxes) for result in plain) >= 5
    for one, other in zip(plain, graph, strict=True):
        assert [box.name for box in one.boxes] == [box.name for box in other.boxes]
        for a, b in zip(one.boxes, other.boxes, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-6)
            np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1e-3)


def test_thresholds_of_each_class() -> None:
    state = {"thresholds": [0.2, 0.6, 0.4]}
    plain, graph, _ = both({"iou": 0.5}, state, maps(2))
    for one, other in zip(plain, graph, strict=True):
        assert [box.name for box in one.boxes] == [box.name for box in other.boxes]
        assert {box.name for box in one.boxes} >= {"a", "c"}


def test_images_together_are_as_each_alone() -> None:
    outputs = maps(3, sure=2.0)
    _, _, said = both({"confidence": 0.2, "iou": 0.3}, {}, outputs)
    assert said["count"].tolist() != [0, 0, 0]
    for k in range(3):
        one = {"levels": tuple(level[k : k + 1] for level in outputs["levels"])}
        _, _, alone = both({"confidence": 0.2, "iou": 0.3}, {}, one)
        for key, value in alone.items():
            assert torch.equal(said[key][k : k + 1], value), key


def test_rows_beyond_the_count_are_zeros() -> None:
    _, _, said = both({"confidence": 0.5}, {}, maps(2))
    for k, count in enumerate(said["count"].tolist()):
        assert 0 < count < 100
        assert not said["boxes"][k, count:].any()
        assert not said["scores"][k, count:].any()
        assert not said["classes"][k, count:].any()
