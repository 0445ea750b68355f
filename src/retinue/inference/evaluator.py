"""Judging a predictor on a split: the same way after training, from the command line, by engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa

from retinue.data.loader import Loader
from retinue.errors import BadImageError, RetinueError
from retinue.figures import refuse_not_finite
from retinue.inference.predictor import MEND, Predictor
from retinue.sample import Sample
from retinue.tasks.task import Finding

Progress = Callable[[int, int], None]
"""Called after each batch with the number of images done and the number of all."""


@dataclass(frozen=True)
class Evaluation:
    """What came out."""

    figures: dict[str, Any]
    """The task's figures, and `images_per_second`, `engine`, `tta`: JSON values."""
    tables: dict[str, pa.Table]
    """Parquet files by name; `predictions` has a row for each image that could be read."""
    skipped: dict[str, str]
    """The images that could not, and why."""


def evaluate(
    predictor: Predictor,
    samples: Sequence[Sample],
    *,
    batch_size: int = 32,
    bad_images: Literal["stop", "drop"] = "drop",
    split: str = "",
    progress: Progress | None = None,
) -> Evaluation:
    """The figures of what `predictor` finds in `samples`.

    Every image counts once, whatever its weight in training. Bad images are left out and named in
    `skipped`, or raise BadImageError (`stop`). `images_per_second` is over everything: reading,
    decoding, all views of the test-time augmentation. With `engine=auto` few images are answered
    by what answers at once (`Predictor.compile_if_worth`). RetinueError for a figure that is not
    finite; `split` is what the samples are called there.
    """
    if not samples:
        raise RetinueError("there are no images to evaluate")
    predictor.compile_if_worth(samples)
    meter = predictor.task.meter(tables=True)
    start = time.perf_counter()
    skipped = take_in(
        predictor, samples, meter, batch_size=batch_size, bad_images=bad_images, progress=progress
    )
    seconds = time.perf_counter() - start
    figures = meter.compute()
    refuse_not_finite(figures, split, mend=MEND)
    figures["images_per_second"] = round(len(samples) / seconds, 2)
    figures["engine"] = predictor.engine
    figures["tta"] = predictor.tta
    return Evaluation(figures, meter.tables(), skipped)


class Collector(Protocol):
    """Takes findings in, as a `Meter` does."""

    def update(self, findings: Sequence[Finding], samples: Sequence[Sample]) -> None:
        """What was found in the images of `samples`."""


def take_in(
    predictor: Predictor,
    samples: Sequence[Sample],
    into: Collector,
    *,
    batch_size: int = 32,
    bad_images: Literal["stop", "drop"] = "drop",
    progress: Progress | None = None,
) -> dict[str, str]:
    """What `predictor` finds in `samples`, of which there are some, goes `into` a meter; the bad
    ones among them are returned, with the reasons.

    Raises:
        BadImageError: none of them can be read, or with `stop` one.
    """
    loader = Loader(
        predictor.intake.view, samples, workers=predictor.workers, bad_images=bad_images
    )
    done = 0
    for batch in loader.batches(predictor.intake.plans(samples, batch_size)):
        real = [k for k, weight in enumerate(batch.weight.tolist()) if weight > 0]
        if real:
            findings = predictor.findings(batch)
            into.update([findings[k] for k in real], [batch.samples[k] for k in real])
        done += len(batch)
        if progress is not None:
            progress(done, len(samples))
    if all(sample.key in loader.skipped for sample in samples):
        raise BadImageError(dict(loader.skipped), mend="no readable image is left to evaluate")
    return dict(loader.skipped)
