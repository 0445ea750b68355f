"""A model's answers: from files to results, and of outputs alone to results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from retinue.data.loader import Loader
from retinue.errors import RetinueError, UsageError
from retinue.inference.devices import compute_threads, wait
from retinue.inference.names import EngineName
from retinue.inference.predictor import MEND, Answer, Predictor, load
from retinue.inference.speed import STAGES, by_stages
from retinue.measuring.figures import Measured, Spread, refuse_no_time, typical
from retinue.measuring.machine import TURNS, matrix_product, peak_memory
from retinue.models.anatomy import count_macs
from retinue.sample import Batch, Sample

SECONDS = 10.0
"""How long it is measured by default, about."""
MOST_IMAGES = 256
"""Of those that are named."""
LEAST = 3


def bench_predict(
    model: str | Path,
    images: Iterable[str],
    *,
    batch_size: int = 16,
    engine: EngineName = "auto",
    device: str = "auto",
    seconds: float = SECONDS,
) -> Measured:
    """`images` (the first `MOST_IMAGES` files) to results, `batch_size` at a time, with the engine
    compiled before: images a second; of one image after the other, where the time goes; and of a
    batch, the network's FLOP a second. Raises UsageError where no image can be read."""
    predictor, samples = _opened(model, images, batch_size, engine, device, seconds)
    runs = _repeated(lambda: len(list(predictor.answers(samples, batch_size=batch_size))), seconds)
    stages = by_stages(predictor, samples, min(max(2 * len(samples), 10), 50))
    assert stages is not None
    batch = _batch(predictor, samples, batch_size)
    ((_, inputs),) = list(predictor.inputs(batch))[:1]

    def network() -> int:
        list(predictor.outputs(inputs))
        wait(predictor.device)
        return len(inputs)

    memory = peak_memory(predictor.device)
    rates, products = list[float](), list[float]()
    for _ in range(TURNS):
        rates += _repeated(network, seconds / 4 / TURNS)
        products.append(matrix_product(predictor.device))
    alone = Spread.of(rates)
    flops = _flops(predictor)
    return Measured(
        "predict",
        _facts(predictor, batch_size),
        Spread.of(runs),
        {stage: stages[f"{stage}_ms"] / 1000 for stage in STAGES},
        memory,
        None if flops is None else flops * alone.median,
        max(products),
        others={"network_alone_images_per_second": alone},
    )


def bench_post(
    model: str | Path,
    images: Iterable[str],
    *,
    batch_size: int = 16,
    engine: EngineName = "auto",
    device: str = "auto",
    seconds: float = SECONDS,
) -> Measured:
    """What comes after the network alone, of its outputs for a batch of real `images`: decoding
    and suppression, or scores; views and members merged; results. Raises UsageError where no image
    can be read."""
    predictor, samples = _opened(model, images, batch_size, engine, device, seconds)
    batch = _batch(predictor, samples, batch_size)
    said = [(seen, list(predictor.outputs(each))) for seen, each in predictor.inputs(batch)]
    wait(predictor.device)
    rounds: list[dict[str, float]] = []

    def post() -> int:
        clock = time.perf_counter
        began = clock()
        found = [
            member.task.answers(outputs, seen, mend=MEND)
            for seen, each in said
            for member, outputs in zip(predictor.members, each, strict=True)
        ]
        answered = clock()
        merged = predictor.merged(found)
        joined = clock()
        for finding, sample in zip(merged, batch.samples, strict=True):
            predictor.task.result(finding, sample.key)
        done = clock()
        rounds.append(
            {"answers": answered - began, "merging": joined - answered, "results": done - joined}
        )
        return len(batch)

    runs = Spread.of(_repeated(post, seconds))
    return Measured(
        "post",
        _facts(predictor, len(batch)),
        runs,
        typical(rounds[1:], 1 / runs.median),
        peak_memory(predictor.device),
    )


def _opened(
    model: str | Path,
    images: Iterable[str],
    batch_size: int,
    engine: EngineName,
    device: str,
    seconds: float,
) -> tuple[Predictor, list[Sample]]:
    """The model, compiled, and those images that can be read, at least a batch of them."""
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    refuse_no_time(seconds)
    predictor = load(model, device=device, engine=engine)
    named = [Sample(path) for path in islice(images, MOST_IMAGES)]
    predictor.compile(named)
    answers: list[Answer] = list(predictor.answers(named, batch_size=batch_size))
    good = [answer.sample for answer in answers if not answer.reason]
    if not good:
        raise UsageError("none of the images can be read", where="SOURCE", mend="name others")
    times = -(-batch_size // len(good))
    return predictor, good * times


def _batch(predictor: Predictor, samples: Sequence[Sample], size: int) -> Batch:
    loader = Loader(predictor.intake.view, workers=0)
    return next(loader.batches(predictor.intake.plans(samples[:size], size)))


def _repeated(work: Callable[[], int], seconds: float) -> list[float]:
    """Images a second of each time that `work`, which tells how many it did, is done; the first
    does not count."""
    work()
    rates: list[float] = []
    taken = 0.0
    while len(rates) < LEAST or taken < seconds:
        began = time.perf_counter()
        done = work()
        spent = max(time.perf_counter() - began, 1e-9)
        rates.append(done / spent)
        taken += spent
    return rates


def _flops(predictor: Predictor) -> float | None:
    """Of one view of an image, by all members. None: only exported files themselves know theirs."""
    if not all(member.has_network for member in predictor.members):
        return None
    try:
        size = predictor.preprocessing.size
        macs = [count_macs(member.network, size) for member in predictor.members]
    except (RetinueError, NotImplementedError):
        return None
    return 2.0 * sum(macs)


def _facts(predictor: Predictor, batch: int) -> dict[str, Any]:
    return {
        "network": predictor.description.network,
        "engine": predictor.engine,
        "device": predictor.device,
        "size": list(predictor.preprocessing.size),
        "batch": batch,
        "views": predictor.views,
        "threads": compute_threads(),
    }
