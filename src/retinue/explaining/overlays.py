"""What a page shows of its images' explanations, made while the model is at hand."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from retinue.errors import BadImageError, RetinueError
from retinue.explaining.explanation import Explanation
from retinue.explaining.methods import explain_sample
from retinue.inference.heat import painted
from retinue.inference.predictor import Predictor, original
from retinue.page.pictures import OVERLAYS, PICTURES, lacking, overlays_table, pictures_table
from retinue.page.record import read_run
from retinue.page.section import Unexplained
from retinue.sample import Pixels, Sample
from retinue.text import utf8

_SIDE = 320
"""The longer side of a picture in pixels."""
_SECONDS = 30
"""No further picture is begun after that."""

log = logging.getLogger("retinue")


def for_the_page(
    predictor: Predictor, samples: Sequence[Sample], folder: Path, judged: Collection[str]
) -> dict[str, pa.Table]:
    """What the page of the run or evaluation in `folder` shows and finds in none of its files, by
    the table's name: `overlays`, what its mistakes rest on, and `pictures`, images that lie in no
    file of their own, as in shards, unless the task has `judged` them into tables already. Those of
    an earlier judgement there are removed."""
    for name in (OVERLAYS, PICTURES):
        if Path(name).stem not in judged:
            (folder / name).unlink(missing_ok=True)
    record = read_run(folder)
    sections, found = predictor.task.sections(), {}
    if wanted := sections.to_explain(record):
        found["overlays"] = overlays(predictor, samples, wanted)
    within = any(one.read is not None and not os.path.isfile(one.key) for one in samples)
    if within and "pictures" not in judged:
        shown = set(lacking(record, sections.builders))
        reads = {path: one.read for one in samples if (path := utf8(one.key)) in shown and one.read}
        if reads:
            found["pictures"] = pictures_table(reads, _SIDE)
    return found


def overlays(
    predictor: Predictor, samples: Sequence[Sample], wanted: Sequence[Unexplained]
) -> pa.Table:
    """`overlays.parquet`: of each image in `wanted` what that class rests on, as the method that
    suits the network shows it; of a slow one the first, so that a training's end does not wait for
    them. Empty where no method suits, which is logged, and why."""
    known: Mapping[str, Sample] = {utf8(sample.key): sample for sample in samples}
    pictures: dict[tuple[str, str], Any] = {}
    begun = time.monotonic()
    for path, name in wanted:
        if path not in known:
            continue
        if pictures and time.monotonic() - begun > _SECONDS:
            log.info("the report explains %d of its %d mistakes", len(pictures), len(wanted))
            break
        try:
            found = explain_sample(predictor, known[path], target=name or None)
            pixels = original(known[path], predictor.preprocessing)
        except BadImageError:
            continue
        except RetinueError as error:
            log.info("the report shows no explanations: %s", error.what)
            break
        pictures[path, name] = Image.fromarray(_small(pixels, found))
    return overlays_table(pictures)


def _small(pixels: Pixels, found: Explanation) -> Pixels:
    height, width = pixels.shape[:2]
    ratio = min(1.0, _SIDE / max(height, width))
    size = max(round(width * ratio), 1), max(round(height * ratio), 1)
    shown, heat = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in (pixels, found.heat))
    return painted(np.asarray(shown, np.uint8), np.asarray(heat, np.float32))
