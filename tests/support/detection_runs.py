"""Runs of detectors that are made up, with photographs that are noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from retinue.data.targets.boxes import Boxes
from retinue.sample import Sample
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.meter import DetectionMeter

NAMES = ["cat", "dog", "<b>人</b>"]

SIZE = (120, 90)

Change = Callable[[np.ndarray], np.ndarray]


def run_of(
    folder: Path,
    change: Change = lambda boxes: boxes,
    *,
    images: int = 8,
    names: list[str] = NAMES,
    photographs: bool = True,
    objects: int = 2,
    **more: Any,
) -> Path:
    """A run whose detector finds each object, but for the first of the last image, which it takes
    for a dog; and one box an image that lies anywhere, the first one with confidence."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    meter = DetectionMeter(names, tables=True)
    for k in range(images):
        path = folder / f"{k}.png"
        if photographs:
            Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(path)
        corner = np.array([[5, 50], [60, 5]])[:objects] + rng.integers(0, 5, (objects, 2))
        boxes = np.concatenate([corner, corner + np.array([30, 25])], axis=1).astype(np.float32)
        of = np.arange(objects) % 2
        said = of.copy()
        if k == images - 1:
            said[:1] = 1
        far = np.array([[100, 60, 118, 85]], np.float32)
        score = np.append(np.full(objects, 0.9), 0.95 if k == 0 else 0.1).astype(np.float32)
        found = Candidates(
            np.concatenate([change(boxes), far]), score, np.append(said, 0).astype(np.int64), SIZE
        )
        meter.update([found], [Sample(str(path), None, Boxes.made(boxes, of.tolist()))])
    figures = {**meter.compute(), "task": "detection", "split": "test", **more}
    (folder / "metrics.json").write_text(json.dumps(figures))
    (folder / "classes.json").write_text(json.dumps(names))
    for name, table in meter.tables().items():
        pq.write_table(table, folder / f"{name}.parquet")
    return folder
