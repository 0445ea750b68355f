"""Detection, part by part, against what one writes first.

    python benchmarks/detection.py [suppression] [--rounds N] [--json]

`suppression`: from the raw maps of a network (416×416: 10,647 predictions, 80 classes) to the boxes
of an image, by the settings of COCO's evaluation (confidence 0.001, IoU 0.65, 100 boxes), against
plain NumPy: decode, then non-maximum suppression class by class, then the best. Both give the same
boxes. The two alternate, in processor time, so that what else the machine does meets neither.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinue.sample import Batch, Sample
from retinue.tasks.detection.anchors import PUBLISHED
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.decoding import boxes, decode, grid, in_a_row
from retinue.tasks.detection.suppression import suppress

STRIDES = (8, 16, 32)
CLASSES = 80


def maps(objects: int, seed: int) -> list[Tensor]:
    """Raw maps as of a network that has learnt: sure near some objects, with neighbours that agree,
    and hardly anything elsewhere."""
    rng = torch.Generator().manual_seed(seed)
    levels = [
        torch.randn(1, 3, 5 + CLASSES, 416 // s, 416 // s, generator=rng) * 0.3 for s in STRIDES
    ]
    for level in levels:
        level[:, :, 4] = level[:, :, 4] * 5 - 8
        level[:, :, 5:] = level[:, :, 5:] * 5 - 5
        side = level.shape[-1]
        for _ in range(objects):
            row, column, of = (int(torch.randint(k, (), generator=rng)) for k in (side, side, 80))
            near = level[0, :, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            near[:, 4] += 8
            near[:, 5 + of] += 6
    return [level.flatten(1, 2) for level in levels]


def batch_of_one() -> Batch:
    """416×416 pixels that are the original's own."""
    return Batch(
        torch.zeros(1, 3, 416, 416, dtype=torch.uint8),
        [Sample("one")],
        np.zeros(1, np.int64),
        torch.ones(1),
        np.eye(3)[None],
        np.array([[416, 416]]),
    )


def plain_suppression(xyxy: Any, scores: Any, confidence: float, most_shared: float) -> list[int]:
    """Places of those kept, of one class."""
    there = np.flatnonzero(scores >= confidence)
    order = there[np.argsort(-scores[there], kind="stable")]
    areas = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        width = np.minimum(xyxy[best, 2], xyxy[rest, 2]) - np.maximum(xyxy[best, 0], xyxy[rest, 0])
        height = np.minimum(xyxy[best, 3], xyxy[rest, 3]) - np.maximum(xyxy[best, 1], xyxy[rest, 1])
        common = np.maximum(width, 0) * np.maximum(height, 0)
        order = rest[common / (areas[best] + areas[rest] - common) <= most_shared]
    return kept


def plainly(levels: list[Tensor]) -> list[tuple[float, int, int]]:
    """(score, class, place) of the 100 best."""
    where = grid(levels, PUBLISHED, STRIDES)
    raw = in_a_row(levels, PUBLISHED)
    xyxy = boxes(raw, where)[0].numpy().clip(0, 416)
    said = 1 / (1 + np.exp(-raw[0, :, 4:].numpy()))
    scores = said[:, :1] * said[:, 1:]
    found = []
    for of in range(CLASSES):
        for place in plain_suppression(xyxy, scores[:, of], 0.001, 0.65):
            found.append((float(scores[place, of]), of, place))
    return sorted(found, key=lambda row: -row[0])[:100]


def ours(levels: list[Tensor], batch: Batch) -> Candidates:
    """The 100 best."""
    (found,) = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, confidence=0.001)
    return suppress(found, confidence=0.001, iou=0.65, max_boxes=100)


def seconds(work: Callable[[], object]) -> float:
    """Processor time."""
    began = time.process_time()
    work()
    return time.process_time() - began


def ratios(plain: Callable[[], object], own: Callable[[], object], rounds: int) -> dict[str, float]:
    """Of `plain` to `own`, alternately; and how long each takes."""
    plain(), own()
    pairs = [(seconds(plain), seconds(own)) for _ in range(rounds)]
    each = [a / b for a, b in pairs]
    return {
        "ratio": round(statistics.median(each), 2),
        "lowest": round(min(each), 2),
        "highest": round(max(each), 2),
        "plain_ms": round(1000 * statistics.median(a for a, _ in pairs), 2),
        "ours_ms": round(1000 * statistics.median(b for _, b in pairs), 2),
    }


def suppression(rounds: int) -> list[dict[str, Any]]:
    """A row for each number of objects."""
    torch.set_num_threads(1)
    rows = []
    for objects in (2, 8, 40):
        levels, batch = maps(objects, seed=objects), batch_of_one()
        by_loop, found = plainly(levels), ours(levels, batch)
        assert np.allclose(found.score, [score for score, _, _ in by_loop], rtol=1e-5)
        every = decode(levels, batch, anchors=PUBLISHED, strides=STRIDES, confidence=0.001)
        row = ratios(partial(plainly, levels), partial(ours, levels, batch), rounds)
        rows.append({"objects": 3 * objects, "candidates": len(every[0]), **row})
    return rows


PARTS: dict[str, Callable[[int], list[dict[str, Any]]]] = {"suppression": suppression}


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.parts or PARTS:
        rows = PARTS[name](arguments.rounds)
        if arguments.json:
            print(json.dumps({name: rows}))
            continue
        for row in rows:
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
