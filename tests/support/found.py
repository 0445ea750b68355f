"""Boxes for a detector's meter."""

from __future__ import annotations

from typing import Any

import numpy as np
from detections import scene

from retinue.data.targets.boxes import Boxes
from retinue.evaluation.detections import Found
from retinue.sample import Sample
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.meter import DetectionMeter

NAMES = ["cat", "dog", "人", "bird"]

SIZE = (640, 480)


def candidates(*rows: tuple[float, ...]) -> Candidates:
    """Each (class, score, x1, y1, x2, y2)."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    return Candidates(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64), SIZE)


def split(images: int = 30, seed: int = 0) -> list[tuple[Candidates, Sample]]:
    """Each found box comes twice, a little aside and below it in score, as before suppression."""
    founds, truths = scene(images, 4, seed=seed, digits=6)
    rows = []
    for i, (f, t) in enumerate(zip(founds, truths, strict=True)):
        again = Found(f.xyxy + np.float32(0.01), f.score * np.float32(0.5), f.of)
        both = [np.concatenate(pair) for pair in zip(
            (f.xyxy, f.score, f.of), (again.xyxy, again.score, again.of), strict=True)]  # fmt: skip
        target = Boxes.made(
            t.xyxy, t.of.tolist(), difficult=t.difficult, crowd=t.crowd,
            not_exhaustive=t.not_exhaustive,
        )  # fmt: skip
        rows.append(
            (Candidates(both[0], both[1], both[2], SIZE), Sample(f"{i:03}.jpg", None, target))
        )
    return rows


def meter_of(
    rows: list[tuple[Candidates, Sample]], batch: int = 7, **options: Any
) -> DetectionMeter:
    meter = DetectionMeter(NAMES, **options)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        meter.update([found for found, _ in part], [sample for _, sample in part])
    return meter
