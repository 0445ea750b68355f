"""Cached views of a few small images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch

from retinue.data.colour import Colour
from retinue.data.loader import BadImages, Loader
from retinue.data.options import AugmentOptions, ColourOptions
from retinue.data.population import Population
from retinue.data.targets.one_class import OneClass
from retinue.data.views import TrainView
from retinue.sample import Batch, BatchPlan, Pixels, Preprocessing, Row, Sample
from retinue.training.features.cache import FeatureCache
from retinue.training.features.cached_views import CachedViews
from retinue.training.features.frozen import FrozenPart
from retinue.training.features.shown import Views

COUNT, VIEWS, CUT = 7, 2, 2

HOW = Preprocessing(size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1), crop_fraction=1.0)

CPU = torch.device("cpu")

VARIED = AugmentOptions(crop_scale=(0.5, 1), colour=ColourOptions(brightness=0.3))


def pixels(number: int) -> Pixels:
    return np.random.default_rng(number).integers(0, 256, (40, 36 + number, 3)).astype(np.uint8)


def samples_of(order: Sequence[int] = range(COUNT), name: str = "") -> list[Sample]:
    """Noise, each image of another width."""
    return [
        Sample(f"{name}{k}", lambda k=k: pixels(k), OneClass(k % 3, 3), weight=1 + k)  # type: ignore[misc]
        for k in order
    ]


def network(seed: int = 0) -> tiny.Tiny:
    torch.manual_seed(seed)
    network = tiny.Tiny(num_classes=3).eval()
    network.name, network.arguments = "tiny", {"num_classes": 3}
    return network


def views_of(
    folder: Path,
    samples: Sequence[Sample] | None = None,
    *,
    augment: AugmentOptions = VARIED,
    seed: int = 0,
    views: int = VIEWS,
    sizes: Sequence[tuple[int, int]] = ((32, 32),),
    bad_images: BadImages = "stop",
    frozen: FrozenPart | None = None,
    compute: bool = True,
) -> CachedViews:
    samples = samples_of() if samples is None else samples
    strata = ("" if s.target is None else s.target.stratum() for s in samples)
    view = TrainView(augment, HOW, seed, Population.of(strata))
    made = CachedViews(
        frozen or FrozenPart(network(), CUT, CPU),
        Views(
            Loader(view, samples, workers=1, bad_images=bad_images),
            Colour(HOW, augment.colour, seed),
            {"augment": augment.model_dump(mode="json"), "seed": seed},
            sizes,
            views,
        ),
        FeatureCache(folder, 10**9),
        "torch",
    )
    if compute:
        made.compute(lambda done, total: None, lambda line: None)
    return made


def plan_of(
    views: CachedViews, epoch: int, size: tuple[int, int] = (32, 32), keys: Any = None
) -> BatchPlan:
    samples = views._samples
    keys = range(len(samples)) if keys is None else keys
    rows = [Row(k, (samples[k % len(samples)],), samples[k % len(samples)].weight) for k in keys]
    return BatchPlan(rows, size, epoch, total=3.0)


def epoch_of(views: CachedViews, epoch: int, **changes: Any) -> Batch:
    (batch,) = views.batches([plan_of(views, epoch, **changes)])
    return batch


def same(one: Batch, other: Batch) -> None:
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.targets["label"], other.targets["label"])
    assert torch.equal(one.weight, other.weight)
    assert np.array_equal(one.to_original, other.to_original)
    assert np.array_equal(one.original_size, other.original_size)
    assert [s.key for s in one.samples] == [s.key for s in other.samples]
