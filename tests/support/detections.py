"""Made-up detections, and plain references for what is worked out from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retinue.evaluation.detection_errors import Errors, errors, taken
from retinue.evaluation.detections import Detections, Found, Truth
from retinue.evaluation.matching import Matches, match

NO_BOXES = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))

_A_PIXEL = np.array([0, 0, 1, 1])


def found(*rows: tuple[float, ...]) -> Found:
    """Each (class, score, x1, y1, x2, y2)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Found(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64))


def truth(
    *rows: tuple[float, ...],
    difficult: tuple[int, ...] = (),
    crowd: tuple[int, ...] = (),
    not_exhaustive: tuple[int, ...] = (),
) -> Truth:
    """Each (class, x1, y1, x2, y2); `difficult` and `crowd` name rows."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    flags = [np.isin(np.arange(len(table)), list(chosen)) for chosen in (difficult, crowd)]
    return Truth(table[:, 1:], table[:, 0].astype(np.int64), *flags, not_exhaustive)


def judged(of: Detections, confidence: float | Sequence[float | None]) -> tuple[Matches, Errors]:
    """Matches, and errors of the boxes that score `confidence` or more."""
    matches = match(of)
    return matches, errors(of, matches, taken(of, confidence))


def scene(
    images: int = 60,
    classes: int = 4,
    *,
    seed: int = 0,
    flags: bool = True,
    clutter: int = 8,
    whole: bool = False,
    digits: int = 2,
) -> tuple[list[Found], list[Truth]]:
    """Objects of all sizes, and boxes of which some fit well, some badly, some twice, some have
    another class and `clutter` an image lie anywhere. The last class never has an object. Scores of
    `digits` digits are often equal; `whole`: corners are whole pixels."""
    rng = np.random.default_rng(seed)
    founds, truths = [], []
    for _ in range(images):
        n = int(rng.integers(0, 9))
        corner, size = rng.uniform(0, 300, (n, 2)), np.exp(rng.uniform(2, 5.3, (n, 2)))
        boxes = np.concatenate([corner, corner + size], axis=1)
        of = rng.integers(0, max(classes - 1, 1), n)
        picked = rng.choice(n, rng.integers(0, 2 * n + 1)) if n else np.zeros(0, dtype=np.int64)
        side = np.tile(size[picked], (1, 2))
        near = boxes[picked] + rng.normal(0, rng.choice([0.02, 0.08, 0.25]), side.shape) * side
        near = np.concatenate(
            [near.reshape(-1, 2, 2).min(1), near.reshape(-1, 2, 2).max(1)], axis=1
        )
        corner, size = rng.uniform(0, 300, (clutter, 2)), np.exp(rng.uniform(2, 5, (clutter, 2)))
        far = np.concatenate([corner, corner + size], axis=1)
        swapped = rng.random(len(picked)) < 0.15
        names = np.where(swapped, rng.integers(0, classes, len(picked)), of[picked])
        score = np.concatenate([rng.beta(3, 2, len(picked)), rng.beta(1, 3, clutter)])
        everything = np.concatenate([near, far])
        if whole:
            boxes, everything = (np.round(part) + _A_PIXEL for part in (boxes, everything))
        founds.append(
            Found(
                everything.astype(np.float32),
                np.round(score, digits).astype(np.float32),
                np.concatenate([names, rng.integers(0, classes, clutter)]).astype(np.int64),
            )
        )
        given = (rng.random(n) < 0.15, rng.random(n) < 0.1) if flags else (None, None)
        open_to = tuple(np.flatnonzero(rng.random(classes) < 0.1).tolist()) if flags else ()
        truths.append(Truth(boxes.astype(np.float32), of.astype(np.int64), *given, open_to))
    return founds, truths


def plain_voc(
    founds: list[Found], truths: list[Truth], classes: int, iou: float = 0.5
) -> list[tuple[float, float] | None]:
    """A class: (average precision as of 2010, as of 2007), or None without objects. As a loop, box
    by box, in the arithmetic of the devkit: whole pixels from 1 on, of which the last one belongs
    to the box. That is what x1 + 1, y1 + 1, x2, y2 are for corners as ours."""
    told: list[tuple[float, float] | None] = []
    for k in range(classes):
        objects: list[list[list[float]]] = []
        hard: list[list[bool]] = []
        for t in truths:
            rows = [j for j in range(len(t.of)) if t.of[j] == k]
            objects.append([[t.xyxy[j][0] + 1, t.xyxy[j][1] + 1, *t.xyxy[j][2:]] for j in rows])
            hard.append([bool(t.difficult is not None and t.difficult[j]) for j in rows])
        taken = [[False] * len(rows) for rows in objects]
        positives = sum(not difficult for rows in hard for difficult in rows)
        if positives == 0:
            told.append(None)
            continue
        boxes = []
        for i, f in enumerate(founds):
            for j in range(len(f.of)):
                if f.of[j] == k:
                    boxes.append((float(f.score[j]), i, f.xyxy[j]))
        boxes.sort(key=lambda box: -box[0])
        hits = alarms = 0
        recall, precision = [], []
        for _, i, (x1, y1, x2, y2) in boxes:
            x1, y1 = x1 + 1, y1 + 1
            best, place = -1.0, -1
            for j, (a1, b1, a2, b2) in enumerate(objects[i]):
                wide = min(x2, a2) - max(x1, a1) + 1
                high = min(y2, b2) - max(y1, b1) + 1
                if wide > 0 and high > 0:
                    union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1)
                    overlap = wide * high / (union - wide * high)
                    if overlap > best:
                        best, place = overlap, j
            if best >= iou:
                if not hard[i][place]:
                    if taken[i][place]:
                        alarms += 1
                    else:
                        hits, taken[i][place] = hits + 1, True
            else:
                alarms += 1
            if hits + alarms:
                recall.append(hits / positives)
                precision.append(hits / (hits + alarms))
        area = before = 0.0
        for j, r in enumerate(recall):
            area += (r - before) * max(precision[j:])
            before = r
        eleven = 0.0
        for step in range(11):
            at = step * 0.1 if step <= 5 else 1 - (10 - step) * 0.1  # as MATLAB makes 0:0.1:1
            eleven += (
                max((p for p, r in zip(precision, recall, strict=True) if r >= at), default=0) / 11
            )
        told.append((area, eleven))
    return told
