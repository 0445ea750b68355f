"""How fast a model answers: one image at a time, many together, and by stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from retinue.data.views import EvalView
from retinue.errors import BadImageError
from retinue.inference.devices import wait
from retinue.inference.engine import channels_last
from retinue.inference.predictor import MEND, Predictor
from retinue.nested import is_tensor
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
    loader = predictor.loader(bad_images="drop")
    chosen = list(samples[:most])
    # Of images that come as they are, those of the first one's size.
    whole = next(loader.batches(predictor.intake.plans(chosen, len(chosen))))
    good = np.flatnonzero(np.asarray(whole.weight) > 0)
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


STAGES = ("decode", "preprocess", "network", "postprocess")
"""What an image goes through, one after the other."""


def by_stages(
    predictor: Predictor, samples: Sequence[Sample], runs: int, *, decoding: float | None = None
) -> dict[str, Any] | None:
    """What one image after the other takes, from the file's bytes to the result: milliseconds of
    each of the `STAGES`, `milliseconds` of all, and images a second, `fps`; None where no image can
    be read.

    Medians of `runs` runs over `samples` in turn, after a first that does not count; the stages
    follow each other, nothing is read ahead. `decode` includes reading the file; `decoding`:
    seconds of it that were measured before, of frames that are in memory. `preprocess` is resizing,
    normalising and the way to the device, for all views of the test-time augmentation;
    `postprocess` all that the task makes of outputs.
    """
    good = [sample for sample in samples if _readable(sample, predictor)]
    if not good or runs < 1:
        return None
    predictor.compile(good)
    taken: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for run in range(-1, runs):
        sample = good[run % len(good)]
        seconds = _one(predictor, sample)
        if run >= 0:
            for stage, each in zip(STAGES, seconds, strict=True):
                taken[stage].append(each)
    spent = {stage: median(each) for stage, each in taken.items()}
    if decoding is not None:
        spent["decode"] = decoding
    total = sum(spent.values())
    return {
        **{f"{stage}_ms": round(1000 * value, 3) for stage, value in spent.items()},
        "milliseconds": round(1000 * total, 3),
        "fps": round(1 / max(total, 1e-9), 2),
        "runs": runs,
        "images": len(good),
        "engine": predictor.engine,
        "device": predictor.device,
        "views": predictor.views,
    }


def _readable(sample: Sample, predictor: Predictor) -> bool:
    try:
        EvalView(predictor.preprocessing).decoded(sample, predictor.preprocessing.size)
    except BadImageError:
        return False
    return True


def _one(predictor: Predictor, sample: Sample) -> tuple[float, float, float, float]:
    """Seconds of each stage for one image."""
    view, size = EvalView(predictor.preprocessing), predictor.preprocessing.size
    clock = time.perf_counter
    start = clock()
    view.decoded(sample, size)
    decode = clock() - start
    # Rendering decodes once more; what it takes beyond that is the resizing.
    start = clock()
    loader = predictor.loader()
    (batch,) = loader.batches(predictor.intake.plans([sample], 1))
    resize = max(clock() - start - decode, 0.0)
    start = clock()
    views = list(predictor.inputs(batch))
    wait(predictor.device)
    prepare = clock() - start
    start = clock()
    said = [(seen, list(predictor.outputs(inputs))) for seen, inputs in views]
    wait(predictor.device)
    network = clock() - start
    start = clock()
    found = [
        member.task.answers(outputs, seen, mend=MEND)
        for seen, each in said
        for member, outputs in zip(predictor.members, each, strict=True)
    ]
    (finding,) = predictor.merged(found)
    predictor.task.result(finding, sample.key)
    return decode, resize + prepare, network, clock() - start


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
    images: Any = batch.images
    if is_tensor(images):
        images = channels_last(images[rows.tolist()])
    else:
        images = images.transpose(0, 2, 3, 1)[rows].transpose(0, 3, 1, 2)
    return replace(
        batch,
        images=images,
        samples=[batch.samples[row] for row in rows],
        keys=batch.keys[rows],
        weight=batch.weight[rows.tolist()],
        to_original=batch.to_original[rows],
        original_size=batch.original_size[rows],
        targets={},
    )
