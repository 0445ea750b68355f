"""Which batches a stage trains and is judged on: from images, or from a cached trunk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from retinue.data.colour import Colour
from retinue.data.loader import BadImages, Loader
from retinue.data.mixing import Mixing
from retinue.data.sources import Dataset
from retinue.data.views import EvalView, TrainView
from retinue.errors import UsageError
from retinue.inference.engines import EngineName
from retinue.models.network import Network
from retinue.sample import Preprocessing, Sample
from retinue.training import trunk
from retinue.training.console import LOGGER, Bar
from retinue.training.feeds import Feed, ImageFeed
from retinue.training.options import StageOptions
from retinue.training.recipe import Recipe
from retinue.training.run_folder import RunFolder
from retinue.training.validation import ValidationBatches


class Supplies:
    """Builds the feeds of a run's stages."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        preprocessing: Preprocessing,
        accelerator: Accelerator,
        run: RunFolder,
        bar: Bar,
    ) -> None:
        self.trunk: dict[str, Any] | None = None
        """How the present stage's frozen part is computed; None if it runs with every batch."""
        self._recipe = recipe
        self._dataset = dataset
        self._preprocessing = preprocessing
        self._accelerator = accelerator
        self._cache = run.path / "cache"
        self._bar = bar
        self._loaders: list[Loader] = []
        self._engine: EngineName = "auto"

    def begin(
        self,
        stage: StageOptions,
        network: Network,
        cut: int,
        check: Callable[[], None],
        decided: Mapping[str, Any],
    ) -> tuple[Feed, ValidationBatches | None]:
        """The feed of the training split, and the batches of the validation split if there is one.

        `check` is called between portions of long work, and may raise. `decided`: what `trunk` was
        for each stage that has had steps already; it stays so, whatever room the disk has now.
        """
        self._loaders = []
        self.trunk = None
        feed: Feed = self._training_feed(stage)
        # Every image counts once in a figure, whatever its weight in training.
        samples = [replace(s, weight=1.0) for s in self._dataset.splits.get("val", [])]
        validation: Feed = self._validation_feed(samples)
        before = decided.get(stage.name)
        if stage.name in decided:
            cached = before is not None
        else:
            cached = cut > 0 and self._may_cache(stage, network, cut)
        if before is not None:
            self._engine = before["engine"]
        else:
            self._engine = "auto" if self._accelerator.device.type == "cpu" else "torch"
        if cached:
            views = stage.views or 1
            train = self._dataset.splits["train"]
            feed = self._cached(stage, network, cut, feed, train, "train", views, check)
            if samples:
                validation = self._cached(stage, network, cut, validation, samples, "val", 1, check)
        if not samples:
            return feed, None
        size = self._recipe.evaluation.batch_size
        paths = [sample.path for sample in samples]
        return feed, ValidationBatches(validation, paths, size, self._accelerator)

    def skipped(self) -> dict[str, str]:
        """Files that another was put in place of, with the reasons."""
        found: dict[str, str] = {}
        for loader in self._loaders:
            found |= loader.skipped.copy()  # its threads may be adding to it
        return found

    def finish(self, stage: StageOptions) -> None:
        """Remove what was cached for `stage`."""
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            shutil.rmtree(self._cache, ignore_errors=True)

    def _training_feed(self, stage: StageOptions) -> ImageFeed:
        recipe, augment = self._recipe, stage.augment
        mixing = None
        if augment.mixes_pixels:
            mixing = Mixing(augment.mixing, recipe.seed)
        view = TrainView(augment, self._preprocessing, recipe.seed)
        colour = Colour(self._preprocessing, augment.colour, recipe.seed)
        loader = self._loader(self._dataset.splits["train"], view)
        classes = len(self._dataset.classes)
        return ImageFeed(loader, colour, self._accelerator.device, mixing, classes)

    def _validation_feed(self, samples: list[Sample]) -> ImageFeed:
        loader = self._loader(samples, EvalView(self._preprocessing))
        return ImageFeed(loader, Colour(self._preprocessing), self._accelerator.device)

    def _loader(self, samples: list[Sample], view: TrainView | EvalView) -> Loader:
        data = self._recipe.data
        skip: BadImages = "drop" if isinstance(view, EvalView) else "substitute"
        bad: BadImages = "stop" if data.on_bad_image == "stop" else skip
        loader = Loader(samples, view, workers=data.workers, bad_images=bad)
        self._loaders.append(loader)
        return loader

    def _may_cache(self, stage: StageOptions, network: Network, cut: int) -> bool:
        judged = [self._why_not(stage, network, cut)]
        broadcast_object_list(judged)  # the disk's room may look different to another process
        why = judged[0]
        if why is None:
            return True
        if stage.cache_features == "on":
            raise UsageError(
                f"the features of stage {stage.name} cannot be cached: {why}",
                where="key cache_features",
                mend="cache_features=auto",
            )
        LOGGER.info("the frozen part runs with every batch: %s", why)
        return False

    def _why_not(self, stage: StageOptions, network: Network, cut: int) -> str | None:
        if stage.cache_features == "off":
            return "cache_features is off"
        if stage.augment.mixes_pixels:
            return "the augmentation mixes pixels of several images"
        if stage.cache_features == "auto" and stage.augment.draws and stage.views is None:
            return "the augmentation is drawn anew in every epoch (views=K caches K of them)"
        splits = self._dataset.splits
        images = len(splits["train"]) * (stage.views or 1) + len(splits.get("val", []))
        size = trunk.measure(network, cut, self._preprocessing.size, images)
        if (self._cache / f"{stage.name}-train").exists():
            return None  # begun before an interruption, when there was room
        return trunk.check_budget(size, self._cache, self._recipe.cache.max_gb)

    def _cached(
        self,
        stage: StageOptions,
        network: Network,
        cut: int,
        feed: Feed,
        samples: list[Sample],
        split: str,
        views: int,
        check: Callable[[], None],
    ) -> Feed:
        facts = {
            "preprocessing": self._preprocessing.as_dict(),
            "augment": stage.augment.model_dump(mode="json") if split == "train" else None,
            "seed": self._recipe.seed,
            "paths": [sample.path for sample in samples],
            "labels": [sample.label for sample in samples],
        }

        def each_chunk(done: int, total: int) -> None:
            self._bar.advance(done)
            if self._accelerator.num_processes == 1:  # the check is a collective operation
                check()

        def make() -> Feed:
            return trunk.cache_trunk(
                network,
                cut,
                feed,
                count=len(samples),
                views=views,
                folder=self._cache / f"{stage.name}-{split}",
                facts=facts,
                engine=self._engine,
                device=self._accelerator.device,
                each_chunk=each_chunk,
                say=LOGGER.info,
            )

        self._bar.begin(f"{stage.name}: frozen part, {split}", len(samples) * views)
        if self._accelerator.num_processes > 1:
            # One process computes; the others find it computed. The run folder is shared.
            if self._accelerator.is_main_process:
                make()
            self._accelerator.wait_for_everyone()
        cached = make()
        assert isinstance(cached, trunk.CachedFeed)
        if split == "train":
            self.trunk = {"units": cut, "views": cached.views, "engine": cached.engine}
        return cached
