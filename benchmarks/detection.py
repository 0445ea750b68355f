"""Detection, part by part, against what one writes first.

    python benchmarks/detection.py [suppression] [evaluation] [--rounds N] [--json]

`suppression`: from the raw maps of a network (416×416: 10,647 predictions, 80 classes) to the boxes
of an image, by the settings of COCO's evaluation (confidence 0.001, IoU 0.65, 100 boxes), against
plain NumPy: decode, then non-maximum suppression class by class, then the best. Both give the same
boxes.

`evaluation`: average precision as PASCAL VOC has it, of 5,000 images with 20 classes, against plain
Python: box by box, with the objects of a class looked up by image; and all of COCO's figures, of
2,000 images, against pycocotools. Both sides give the same figures.

The two alternate, in processor time, so that what else the machine does meets neither.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinue.evaluation.coco import coco_figures
from retinue.evaluation.detection import Found, Truth
from retinue.evaluation.detections import gathered
from retinue.evaluation.matching import match
from retinue.evaluation.precision_recall import average_precision, curves
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


VOC_CLASSES = 20


def findings(images: int, boxes: int, seed: int = 0) -> tuple[list[Found], list[Truth]]:
    """Two or three objects an image, most of them found, and `boxes` an image in all, whose scores
    fall off as a detector's do."""
    rng = np.random.default_rng(seed)
    founds, truths = [], []
    for _ in range(images):
        n = int(rng.integers(1, 5))
        corner, size = rng.uniform(0, 350, (n, 2)), rng.uniform(20, 150, (n, 2))
        there, of = np.concatenate([corner, corner + size], axis=1), rng.integers(0, 20, n)
        near = there + rng.normal(0, 0.06, (n, 4)) * np.tile(size, 2)
        corner = rng.uniform(0, 350, (boxes - n, 2))
        far = np.concatenate([corner, corner + rng.uniform(20, 150, (boxes - n, 2))], axis=1)
        score = np.concatenate([rng.beta(4, 2, n), 0.001 + rng.beta(0.4, 6, boxes - n)])
        # Half of what is wrong has a class that is there.
        wrong = np.where(
            rng.random(boxes - n) < 0.5,
            rng.choice(of, boxes - n),
            rng.integers(0, VOC_CLASSES, boxes - n),
        )
        order = np.argsort(-score)  # as suppression leaves them
        founds.append(
            Found(
                np.concatenate([near, far]).astype(np.float32)[order],
                score.astype(np.float32)[order],
                np.concatenate([of, wrong])[order],
            )
        )
        truths.append(Truth(there.astype(np.float32), of, rng.random(n) < 0.1))
    return founds, truths


Boxes = list[tuple[int, float, list[float]]]
Objects = list[tuple[int, list[float], bool]]


def plain_evaluation(found: list[Boxes], there: list[Objects]) -> list[float]:
    """Average precisions of VOC 2010. Of each image: (class, score, box) of what was found, and
    (class, box, difficult) of what is there."""
    results: dict[int, list[tuple[float, int, list[float]]]] = defaultdict(list)
    objects: dict[int, dict[int, list[tuple[list[float], bool]]]] = defaultdict(dict)
    for image, (answers, things) in enumerate(zip(found, there, strict=True)):
        for of, score, box in answers:
            results[of].append((score, image, box))
        for of, box, difficult in things:
            objects[of].setdefault(image, []).append((box, difficult))
    precisions = []
    for of in range(VOC_CLASSES):
        known = objects[of]
        taken = {image: [False] * len(rows) for image, rows in known.items()}
        positives = sum(not difficult for rows in known.values() for _, difficult in rows)
        hits = alarms = 0
        recall, precision = [0.0], [0.0]
        for _, image, (x1, y1, x2, y2) in sorted(results[of], key=lambda row: -row[0]):
            best, place = 0.0, -1
            for k, ((a1, b1, a2, b2), _) in enumerate(known.get(image, ())):
                wide = min(x2, a2) - max(x1, a1)
                high = min(y2, b2) - max(y1, b1)
                if wide > 0 and high > 0:
                    common = wide * high
                    whole = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - common
                    if common / whole > best:
                        best, place = common / whole, k
            if best >= 0.5:
                if known[image][place][1]:
                    continue
                if taken[image][place]:
                    alarms += 1
                else:
                    hits += 1
                    taken[image][place] = True
            else:
                alarms += 1
            recall.append(hits / positives)
            precision.append(hits / (hits + alarms))
        highest = area = 0.0
        for k in range(len(recall) - 1, 0, -1):
            highest = max(highest, precision[k])
            area += (recall[k] - recall[k - 1]) * highest
        precisions.append(area)
    return precisions


def own_evaluation(founds: list[Found], truths: list[Truth]) -> list[float | None]:
    """The same by ours."""
    of = gathered(founds, truths, VOC_CLASSES)
    return [average_precision(curve) for curve in curves(of, match(of))]


def evaluation(rounds: int) -> list[dict[str, Any]]:
    """A row for each number of boxes an image."""
    rows = []
    for boxes_each in (20, 100):
        founds, truths = findings(5_000, boxes_each)
        answers = [
            list(zip(f.of.tolist(), f.score.tolist(), f.xyxy.tolist(), strict=True)) for f in founds
        ]
        things = [
            list(zip(t.of.tolist(), t.xyxy.tolist(), t.difficult.tolist(), strict=True))
            for t in truths
            if t.difficult is not None
        ]
        plain = partial(plain_evaluation, answers, things)
        own = partial(own_evaluation, founds, truths)
        assert np.allclose(plain(), np.array(own(), dtype=float), atol=1e-9)
        row = ratios(plain, own, rounds)
        rows.append({"what": "VOC AP50", "images": 5_000, "boxes": 5_000 * boxes_each, **row})
    founds, truths = findings(2_000, 20)
    by_pycocotools, by_own = partial(pycocotools, founds, truths), partial(coco, founds, truths)
    assert abs(by_pycocotools() - (by_own() or 0)) < 1e-9
    row = ratios(by_pycocotools, by_own, min(rounds, 3))
    rows.append({"what": "COCO's figures", "images": 2_000, "boxes": 40_000, **row})
    return rows


def pycocotools(founds: list[Found], truths: list[Truth]) -> float:
    """mAP at IoU 0.5 to 0.95, with the others."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    things: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for image, (found, truth) in enumerate(zip(founds, truths, strict=True)):
        for of, (x1, y1, x2, y2) in zip(truth.of.tolist(), truth.xyxy.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            things.append({"id": len(things) + 1, "image_id": image, "category_id": of, "bbox": box,
                           "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
        columns = (found.of.tolist(), found.score.tolist(), found.xyxy.tolist())
        for of, score, (x1, y1, x2, y2) in zip(*columns, strict=True):
            answers.append({"image_id": image, "category_id": of, "score": score,
                            "bbox": [x1, y1, x2 - x1, y2 - y1]})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": k} for k in range(len(founds))],
            "categories": [{"id": k} for k in range(VOC_CLASSES)],
            "annotations": things,
        }
        data.createIndex()
        judge = COCOeval(data, data.loadRes(answers), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0])


def coco(founds: list[Found], truths: list[Truth]) -> float | None:
    """The same by ours, which knows no difficult objects here."""
    plain = [Truth(truth.xyxy, truth.of) for truth in truths]
    return coco_figures(gathered(founds, plain, VOC_CLASSES)).ap()


PARTS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "suppression": suppression,
    "evaluation": evaluation,
}


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
