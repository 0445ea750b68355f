"""What a stage is trained and judged on: plans, and the batches that come of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from retinue.data.colour import Colour
from retinue.data.loader import BadImages, Loader
from retinue.data.mixing import Mixing
from retinue.data.population import Population
from retinue.data.samplers import Sampler, make_sampler
from retinue.data.views import EvalView, TrainView
from retinue.errors import UsageError
from retinue.inference.engines import EngineName
from retinue.models.network import Network
from retinue.run.log import LOGGER, Bar
from retinue.sample import Batch, BatchPlan, Preprocessing, Sample
from retinue.training.features.cache import FeatureCache, default_root
from retinue.training.features.cached_views import CachedViews
from retinue.training.features.frozen import FrozenPart
from retinue.training.options import StageOptions
from retinue.training.plans import StepPlans, in_turn
from retinue.training.recipe import Recipe


class Feed(Protocol):
    """Batches with `inputs` for the network's unit `cut`."""

    cut: int

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

    def batches(self, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """See `Feed`."""
        for batch in self.loader.batches(plans):
            usable = batch.weight.numpy() > 0  # before it lies on the device
            height, width = batch.images.shape[2:]
            batch = batch.to(self.device)
            batch.inputs = self.colour.varied(batch.images, batch.keys, batch.epoch)
            if self.mixing is not None:
                plan = self.mixing.plan(batch.keys, batch.epoch, usable, (height, width))
                batch.inputs = self.mixing.apply(batch.inputs, plan)
                kind = next((type(s.target) for s in batch.samples if s.target is not None), None)
                if kind is not None:
                    there = plan.on(batch.inputs.device)
                    batch.targets = kind.mix_batch(batch.targets, there.partner, there.share)
            yield batch


@dataclass
class StageData:
    """A stage's batches."""

    train: Feed
    plans: StepPlans
    validation: Feed | None
    """None: there is no validation split."""
    judged: Sequence[BatchPlan]
    """The plans of the validation split, this process's part of them."""
    cached: dict[str, Any] | None = None
    """How the frozen part is computed; None: it runs with every batch."""
    loaders: Sequence[Loader] = ()

    def skipped(self) -> dict[str, str]:
        """Files that another was put in place of, with the reasons."""
        found: dict[str, str] = {}
        for loader in self.loaders:
            found |= loader.skipped.copy()  # its threads may be adding to it
        return found

    def close(self) -> None:
        """Let go of cached views."""
        for feed in (self.train, self.validation):
            if isinstance(feed, CachedViews):
                feed.close()


@dataclass(frozen=True)
class StageDataMaker:
    """Makes the data of a run's stages."""

    recipe: Recipe
    validation: Sequence[Sample]
    preprocessing: Preprocessing
    accelerator: Accelerator
    bar: Bar
    teacher: nn.Module | None = None
    taught_by: str | None = None

    def make(
        self,
        stage: StageOptions,
        samples: Sequence[Sample],
        network: Network,
        cut: int,
        *,
        check: Callable[[], None],
        decided: Mapping[str, Any],
        skipped: Mapping[str, str],
    ) -> StageData:
        """For a stage that learns from `samples`. `check` is called between portions of long work,
        and may raise. `decided`: what `cached` was for each stage that has had steps already; it
        stays so, whatever room the disk has now. `skipped`: files that are known to be bad."""
        recipe, device = self.recipe, self.accelerator.device
        workers = recipe.data.workers
        train = image_feed(recipe, stage, samples, self.preprocessing, device, workers=workers)
        loaders = [train.loader]
        size_of, sizes = stage.input_sizes(self.preprocessing.size, recipe.seed)
        plans = StepPlans(
            samples,
            sampler_of(stage, samples, recipe.seed),
            train.loader.view,
            size_of,
            accumulate=stage.accumulate,
            world=self.accelerator.num_processes,
            rank=self.accelerator.process_index,
        )
        validation: Feed | None = None
        if self.validation:
            bad: BadImages = "stop" if recipe.data.on_bad_image == "stop" else "drop"
            view = EvalView(self.preprocessing)
            loaders.append(Loader(view, self.validation, workers=workers, bad_images=bad))
            validation = ImageFeed(loaders[1], Colour(self.preprocessing), device)
        for loader in loaders:
            own = {sample.key for sample in loader.samples}
            loader.skipped.update({key: why for key, why in skipped.items() if key in own})
        judged = in_turn(
            self.validation,
            self.preprocessing.size,
            recipe.evaluation.batch_size,
            world=self.accelerator.num_processes,
            rank=self.accelerator.process_index,
        )
        data = StageData(train, plans, validation, judged, None, loaders)
        before = decided.get(stage.name)
        if (stage.name in decided and before is None) or cut == 0:
            return data
        self._cache(stage, data, network, cut, sizes, before, check)
        return data

    # --- the frozen part, once -------------------------------------------------------------------

    def _cache(
        self,
        stage: StageOptions,
        data: StageData,
        network: Network,
        cut: int,
        sizes: Sequence[tuple[int, int]],
        before: Mapping[str, Any] | None,
        check: Callable[[], None],
    ) -> None:
        """Put cached views in the place of `data`'s images, if that is wanted and there is room."""
        why = self._unwanted(stage)
        made: list[CachedViews] = []
        if why is None:
            folder = self.recipe.cache.folder
            root = default_root() if folder is None else Path(folder).expanduser()
            cache = FeatureCache(root, round(self.recipe.cache.max_gb * 1e9))
            made = self._views(stage, data, network, cut, sizes, before, cache)
            need = sum(views.bytes_missing() for views in made)
            if before is None and need:
                judged = [cache.make_room(need) if self.accelerator.is_main_process else None]
                broadcast_object_list(judged)  # the disk may look different to another process
                why = judged[0]
        if why is not None:
            for views in made:
                views.close()
            if stage.cache_features == "on":
                raise UsageError(
                    f"the features of stage {stage.name} cannot be cached: {why}",
                    where="key cache_features",
                    mend="cache_features=auto",
                )
            LOGGER.info("the frozen part runs with every batch: %s", why)
            return
        for views, split in zip(made, ("train", "val"), strict=False):
            self._compute(views, f"{stage.name}: frozen part, {split}", check)
        data.train = made[0]
        if len(made) > 1:
            data.validation = made[1]
        data.cached = {"units": cut, "views": made[0].views, "engine": made[0].engine}

    def _unwanted(self, stage: StageOptions) -> str | None:
        if stage.cache_features == "off":
            return "cache_features is off"
        if stage.augment.mixes_pixels:
            return "the augmentation mixes pixels of several images"
        if stage.augment.draws and stage.views is None:
            return "the augmentation is drawn anew in every epoch (views=K caches K of them)"
        return None

    def _views(
        self,
        stage: StageOptions,
        data: StageData,
        network: Network,
        cut: int,
        sizes: Sequence[tuple[int, int]],
        before: Mapping[str, Any] | None,
        cache: FeatureCache,
    ) -> list[CachedViews]:
        device = self.accelerator.device
        automatic: EngineName = "auto" if device.type == "cpu" else "torch"
        engine: EngineName = automatic if before is None else before["engine"]
        prepared = self.preprocessing.as_dict()
        varied = {
            "preprocessing": prepared,
            "augment": stage.augment.model_dump(mode="json"),
            "seed": self.recipe.seed,
        }
        frozen = FrozenPart(network, cut, device, self.teacher, self.taught_by)
        own = data.train
        assert isinstance(own, ImageFeed)
        made = [
            CachedViews(
                frozen, own.loader, own.colour, data.plans.samples, cache,
                views=stage.views or 1, sizes=sizes, draws=varied, engine=engine,
            )
        ]  # fmt: skip
        if isinstance(data.validation, ImageFeed):
            untaught = FrozenPart(network, cut, device)
            made.append(
                CachedViews(
                    untaught, data.validation.loader, data.validation.colour, self.validation,
                    cache, views=1, sizes=[self.preprocessing.size],
                    draws={"preprocessing": prepared}, engine=made[0].engine,
                )
            )  # fmt: skip
        return made

    def _compute(self, views: CachedViews, text: str, check: Callable[[], None]) -> None:
        alone = self.accelerator.num_processes == 1

        def each_chunk(done: int, total: int) -> None:
            self.bar.advance(done)
            if alone:  # the check is a collective operation
                check()

        self.bar.begin(text, len(views))
        # One process computes; the others find it computed. The cache is shared.
        if self.accelerator.is_main_process:
            views.compute(each_chunk, LOGGER.info)
        if not alone:
            engine = [views.engine]
            broadcast_object_list(engine)
            views.engine = engine[0]
            views.refresh()


def sampler_of(stage: StageOptions, samples: Sequence[Sample], seed: int) -> Sampler[Any]:
    """A stage's sampler. Raises UsageError where these samples do not allow it."""
    return make_sampler(
        stage.sampler,
        _population(samples),
        batch_size=stage.batch_size,
        seed=seed,
        epoch_steps=stage.epoch_steps,
    )


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
    view = TrainView(augment, preprocessing, recipe.seed, _population(samples))
    bad: BadImages = "stop" if recipe.data.on_bad_image == "stop" else "substitute"
    loader = Loader(view, samples, workers=workers, bad_images=bad)
    colour = Colour(preprocessing, augment.colour, recipe.seed)
    mixing = Mixing(augment.mixing, recipe.seed) if augment.mixes_pixels else None
    return ImageFeed(loader, colour, device, mixing)


def _population(samples: Sequence[Sample]) -> Population:
    return Population.of(
        ("" if s.target is None else s.target.stratum() for s in samples),
        (s.weight for s in samples),
        shards=_shards(samples),
        names=[() if s.target is None else s.target.names() for s in samples],
    )


def _shards(samples: Sequence[Sample]) -> list[str] | None:
    """The file that each sample's image lies in, where its source says so."""
    found = [getattr(sample.read, "shard", None) for sample in samples]
    return None if None in found else [str(shard) for shard in found]
