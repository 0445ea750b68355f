"""Training images on their way to the network: read, decoded, rendered, coloured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, count
from typing import Any

from retinue.arrays import ImageSize, Matrix, Size
from retinue.data.decode import Decoded
from retinue.data.loader import Loader, worker_count
from retinue.data.views import Opening, Source, TrainView
from retinue.inference.devices import wait
from retinue.measuring.figures import Measured, Spread, typical
from retinue.measuring.machine import peak_memory
from retinue.measuring.training import SECONDS, Measuring, tried
from retinue.sample import Batch, BatchPlan, Preprocessing, Sample
from retinue.training.feeds import ImageFeed
from retinue.training.options import StageOptions
from retinue.training.session import RecipeLike
from retinue.training.trial import TrialOver

PARTS = ("read", "decode", "render", "colour")
FEW = 32
"""Images that are looked at part by part at a time."""


class _Timed(Opening):
    """Another one, timed."""

    def __init__(self, inner: Opening, spent: dict[str, float]) -> None:
        self._inner = inner
        self.spent = spent

    def open(self, sample: Sample, how: Preprocessing) -> Source:
        """See `Opening`."""
        began = time.perf_counter()
        source = self._inner.open(sample, how)
        self.spent["read"] += time.perf_counter() - began
        return _TimedSource(source, self.spent)

    def frame(self, sample: Sample, size: ImageSize) -> tuple[ImageSize, Matrix]:
        """See `Opening`."""
        return self._inner.frame(sample, size)


class _TimedSource:
    """Another one, timed."""

    def __init__(self, inner: Source, spent: dict[str, float]) -> None:
        self._inner = inner
        self._spent = spent
        self.size, self.nbytes = inner.size, inner.nbytes
        self.scale = inner.scale

    def decode(self, at_least: Size | None = None) -> Decoded:
        """See `Source`."""
        began = time.perf_counter()
        decoded = self._inner.decode(at_least)
        self._spent["decode"] += time.perf_counter() - began
        return decoded


class _Fed(Measuring):
    """A training that is only fed."""

    def begin(self, seconds: float) -> None:
        """See `Measuring`."""
        super().begin(seconds)
        self.rates: list[float] = []
        self.apart: list[dict[str, float]] = []

    def _epoch(self, stage: StageOptions) -> None:
        feed = self.data.train
        assert isinstance(feed, ImageFeed)
        self._whole(feed)
        self._by_parts(feed)
        raise TrialOver

    def _plans(self) -> Iterator[BatchPlan]:
        """Epoch after epoch."""
        return chain.from_iterable(self.plans.epoch(epoch) for epoch in count())

    def _whole(self, feed: ImageFeed) -> None:
        """Batches as the training gets them, read ahead by all threads; the first few, which are
        read while nobody waits, do not count."""
        began, taken = time.perf_counter(), 0.0
        batches = feed.batches(self._plans())
        for seen, batch in enumerate(batches, 1):
            wait(self.device)
            now = time.perf_counter()
            if seen > 3:
                self.rates.append(len(batch) / (now - began))
                taken += now - began
            began = now
            if seen > 7 and taken > self.seconds / 2:
                break
        close = getattr(batches, "close", None)
        if close is not None:
            close()

    def _by_parts(self, feed: ImageFeed) -> None:
        """In one thread, a few images at a time."""
        view = feed.loader.view
        assert isinstance(view, TrainView)
        spent = dict.fromkeys(PARTS, 0.0)
        inner, view.opening = view.opening, _Timed(view.opening, spent)
        loader = Loader(view, feed.loader.samples, workers=0, bad_images=feed.loader.bad_images)
        taken = 0.0
        try:
            for plan in self._plans():
                small = replace(plan, rows=plan.rows[:FEW])
                spent.update(dict.fromkeys(PARTS, 0.0))
                began = time.perf_counter()
                (batch,) = loader.batches([small])
                whole = time.perf_counter() - began
                coloured = self._coloured(feed, batch)
                spent["colour"] = coloured
                spent["render"] = whole - spent["read"] - spent["decode"]
                taken += whole + coloured
                self.apart.append({part: spent[part] / len(batch) for part in PARTS})
                if len(self.apart) > 3 and taken > self.seconds / 2:
                    return
        finally:
            view.opening = inner

    def _coloured(self, feed: ImageFeed, batch: Batch) -> float:
        began = time.perf_counter()
        feed.colour.varied(batch.images.to(self.device), batch.keys, batch.epoch)
        wait(self.device)
        return time.perf_counter() - began


def bench_data(
    recipe: RecipeLike,
    *,
    stage: str | None = None,
    seconds: float = SECONDS,
    quiet: bool = True,
    overrides: Mapping[str, Any] | None = None,
) -> Measured:
    """Batches of the recipe's `stage` (by default its first) without a step: images a second as
    its threads read ahead; and in one thread, where the time of an image goes. What is packed is
    packed first, and not measured. Raises UsageError for what makes no sense."""
    plain = {"cache_features": "off", "views": None}
    changes = {**(overrides or {}), "precision": "fp32"}  # nothing is computed in it
    trainer, own = tried(_Fed, recipe, stage, seconds, changes, plain, quiet=quiet)
    apart = trainer.apart[1:]
    alone = Spread.of([1 / sum(each.values()) for each in apart])
    return Measured(
        "data",
        {
            "stage": own.name,
            "size": list(trainer.maker.preprocessing.size),
            "batch": own.batch_size,
            "packed": trainer.recipe.data.packed,
            "device": str(trainer.device),
            "threads": trainer.settings.threads,
            "workers": worker_count(trainer.recipe.data.workers),
        },
        Spread.of(trainer.rates),
        typical(apart, 1 / alone.median),
        peak_memory(trainer.device),
        others={"images_per_second_and_core": alone},
    )
