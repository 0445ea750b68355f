"""How fast a model answers: one image at a time, and many together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch

from retinue.data.loader import Loader, in_order
from retinue.data.views import EvalView
from retinue.inference.predictor import Predictor
from retinue.sample import Batch, Sample

SECONDS = 0.7
"""About so long each of the two is measured."""
RUNS = 30
"""At most so often."""


def measured(
    predictor: Predictor, samples: Sequence[Sample], *, most: int = 32
) -> dict[str, Any] | None:
    """`latency_ms` of one image, `images_per_second` of `batch` at a time (`most` or fewer, so that
    it takes no longer than it has to), `engine`, `device` and `views`; None where no image can be
    read.

    From the decoded image of the network's input size to the task's finding, so without reading and
    decoding; all views of the test-time augmentation included. Medians, after a first answer that
    does not count.
    """
    loader = Loader(EvalView(predictor.preprocessing), workers=0, bad_images="drop")
    chosen = list(samples[:most])
    (whole,) = loader.batches(in_order(chosen, len(chosen), predictor.preprocessing.size))
    good = np.flatnonzero((whole.weight > 0).numpy())
    if not len(good):
        return None
    one = _picked(whole, good[:1])
    latency = _seconds(lambda: predictor.findings(one))
    size = max(1, min(most, int(SECONDS / latency)))
    several = _picked(whole, np.resize(good, size))
    together = _seconds(lambda: predictor.findings(several))
    return {
        "latency_ms": round(1000 * latency, 3),
        "images_per_second": round(size / together, 2),
        "batch": size,
        "engine": predictor.engine,
        "device": predictor.device,
        "views": predictor.views,
    }


def _seconds(answer: Callable[[], Any]) -> float:
    """What `answer` takes."""
    answer()
    taken: list[float] = []
    while not taken or (sum(taken) < SECONDS and len(taken) < RUNS):
        began = time.perf_counter()
        answer()
        taken.append(time.perf_counter() - began)
    return max(median(taken), 1e-9)


def _picked(batch: Batch, rows: Any) -> Batch:
    """Those rows of it, in that order, without targets."""
    return replace(
        batch,
        images=batch.images[rows.tolist()].contiguous(memory_format=torch.channels_last),
        samples=[batch.samples[row] for row in rows],
        keys=batch.keys[rows],
        weight=batch.weight[rows.tolist()],
        to_original=batch.to_original[rows],
        original_size=batch.original_size[rows],
        targets={},
    )
