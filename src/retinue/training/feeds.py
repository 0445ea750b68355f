"""What gives the batches of plans: here, images that are read and rendered anew.

Cached features give them, too: `retinue.training.features.cached_views`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

import torch

from retinue.data.colour import Colour
from retinue.data.loader import BadImages, Loader
from retinue.data.mixing import Mixing
from retinue.data.population import Population
from retinue.data.views import TrainView
from retinue.data.work import Work
from retinue.sample import Batch, BatchPlan, Preprocessing, Sample
from retinue.training.options import StageOptions
from retinue.training.packing import small_images
from retinue.training.recipe import Recipe
from retinue.transfer import beside, on_device


class Feed(Protocol):
    """Batches with `inputs` for the network's unit `cut`."""

    cut: int

    @property
    def work(self) -> Work:
        """What was done for its batches so far."""

    def batches(self, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """A batch for each plan, on the device."""


class ImageFeed:
    """Reads and renders in the loader's threads; colour and mixing on the device."""

    cut = 0

    def __init__(
        self, loader: Loader, colour: Colour, device: torch.device, mixing: Mixing | None = None
    ) -> None:
        self.loader = loader
        self.colour = colour
        self.device = device
        self.mixing = mixing
        self._stream = beside(device)

    @property
    def work(self) -> Work:
        """See `Feed`."""
        return self.loader.work

    def batches(self, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """See `Feed`."""
        for batch in self.loader.batches(plans):
            usable = batch.weight.numpy() > 0  # before it lies on the device
            height, width = batch.images.shape[2:]
            batch = on_device(batch, self.device, self._stream)
            batch.inputs = self.colour.varied(batch.images, batch.keys, batch.epoch)
            if self.mixing is not None:
                plan = self.mixing.plan(batch.keys, batch.epoch, usable, (height, width))
                batch.inputs = self.mixing.apply(batch.inputs, plan)
                kind = next((type(s.target) for s in batch.samples if s.target is not None), None)
                if kind is not None:
                    there = plan.on(batch.inputs.device)
                    batch.targets = kind.mix_batch(batch.targets, there.partner, there.share)
            yield batch


def image_feed(
    recipe: Recipe,
    stage: StageOptions,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    workers: int | Literal["auto"],
) -> ImageFeed:
    """A stage's training images, varied as its options say."""
    augment = stage.augment
    population = Population.of_samples(samples)
    opening = small_images(recipe, preprocessing)
    view = TrainView(augment, preprocessing, recipe.seed, population, opening)
    bad: BadImages = "stop" if recipe.data.on_bad_image == "stop" else "substitute"
    pinned = device.type == "cuda"
    loader = Loader(view, samples, workers=workers, bad_images=bad, pinned=pinned)
    colour = Colour(preprocessing, augment.colour, recipe.seed, augment.policy)
    mixing = Mixing(augment.mixing, recipe.seed) if augment.mixes_pixels else None
    return ImageFeed(loader, colour, device, mixing)
