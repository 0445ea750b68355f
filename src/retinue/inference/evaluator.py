"""Judging a network on a split: the same way in training, from the command line, and by engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from retinue.data.colour import Colour
from retinue.data.loader import BadImages, Loader
from retinue.data.samplers import epoch_plan
from retinue.data.views import EvalView
from retinue.errors import BadImageError, RetinueError
from retinue.inference.engines import Engine, TorchEngine
from retinue.inference.tta import turned, views
from retinue.sample import Batch, Preprocessing, Sample
from retinue.tasks.task import Task

Progress = Callable[[int, int], None]
"""Called after each batch with the number of images done and the number of all."""


@dataclass(frozen=True)
class Evaluation:
    """What came out."""

    figures: dict[str, Any]
    """The task's figures, and `images`, `images_per_second`, `engine`, `tta`: JSON values."""
    table: pa.Table
    """`predictions.parquet`: a row for each image that could be read."""
    skipped: dict[str, str]
    """The images that could not, and why."""


def evaluate(
    engine: Engine | nn.Module,
    task: Task,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    *,
    tta: str = "none",
    batch_size: int = 32,
    device: str = "cpu",
    workers: int | Literal["auto"] = "auto",
    bad_images: Literal["stop", "drop"] = "drop",
    progress: Progress | None = None,
) -> Evaluation:
    """The task's figures for `engine` (or a network, run by PyTorch on `device`) on `samples`.

    Every image counts once, whatever its weight in training. Bad images are left out and named in
    `skipped`, or raise BadImageError (`stop`). `images_per_second` is over everything: reading,
    decoding, all views of the test-time augmentation. A network's training modes are put back.
    """
    if not samples:
        raise RetinueError("there are no images to evaluate")
    runner = engine if isinstance(engine, Engine) else TorchEngine(engine, device=device)
    orientations = views(tta)
    equal = [replace(sample, weight=1.0) for sample in samples]
    loader = Loader(equal, EvalView(preprocessing), workers=workers, bad_images=_mode(bad_images))
    colour = Colour(preprocessing)
    meter = task.meter()
    start, done = time.perf_counter(), 0
    for batch in loader.batches(epoch_plan(len(equal), batch_size, shuffle=False)):
        batch = batch.to(device)
        meter.update(look(runner, task, colour, batch, orientations), batch)
        done += len(batch)
        if progress is not None:
            progress(done, len(equal))
    seconds = time.perf_counter() - start
    if len(loader.skipped) and _nothing_left(equal, loader.skipped):
        raise BadImageError(dict(loader.skipped), mend="no readable image is left to evaluate")
    figures = meter.compute()
    figures["images_per_second"] = round(done / seconds, 2)
    figures["engine"] = runner.name
    figures["tta"] = tta
    return Evaluation(figures, meter.table(), dict(loader.skipped))


def look(
    engine: Engine, task: Task, colour: Colour, batch: Batch, orientations: Sequence[int]
) -> Tensor:
    """The network's output for the uint8 images of `batch`, several views of them merged."""
    outputs = []
    for orientation in orientations:
        output = engine(colour(turned(batch, orientation)))
        assert isinstance(output, Tensor), "a whole network answers with one tensor"
        outputs.append(output)
    return outputs[0] if len(outputs) == 1 else task.merge_views(outputs)


def example_inputs(
    samples: Sequence[Sample], preprocessing: Preprocessing, count: int = 8
) -> Tensor:
    """Normalised real images, float32 (≤ count, 3, height, width), for `compile_engine`.

    Spread evenly over `samples`, so that there are several classes among them; bad images are left
    out. BadImageError if none of those tried can be read.
    """
    tried = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round())
    chosen = [samples[int(i)] for i in tried]
    loader = Loader(chosen, EvalView(preprocessing), workers=0, bad_images="drop")
    (batch,) = loader.batches([np.arange(len(chosen))])
    assert batch.weight is not None
    good = torch.tensor([path not in loader.skipped for path in batch.paths])
    if not good.any():
        raise BadImageError(dict(loader.skipped))
    return Colour(preprocessing)(batch)[good]


def _mode(bad_images: str) -> BadImages:
    return "stop" if bad_images == "stop" else "drop"


def _nothing_left(samples: Sequence[Sample], skipped: dict[str, str]) -> bool:
    return all(sample.path in skipped for sample in samples)
