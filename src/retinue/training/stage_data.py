"""What a stage is trained and judged on: plans, and the batches that come of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from retinue.data.colour import Colour
from retinue.data.loader import BadImages, Loader
from retinue.data.packed import SmallImages
from retinue.data.population import Population
from retinue.data.samplers import Sampler, make_sampler
from retinue.data.views import EvalView, TrainView
from retinue.errors import RetinueError, UsageError
from retinue.inference.names import EngineName
from retinue.models.network import Network
from retinue.run.log import LOGGER, Bar
from retinue.sample import BatchPlan, Preprocessing, Sample
from retinue.text import counted
from retinue.training.features.cache import FeatureCache, root_of
from retinue.training.features.cached_views import CachedViews, NoWayOnError, together
from retinue.training.features.frozen import FrozenPart, Size, TooCoarseError
from retinue.training.features.keys import pixel_code
from retinue.training.features.packed_images import PackedImages
from retinue.training.features.sharing import cuts_on_the_way, firsts_to_learn
from retinue.training.features.shown import Views
from retinue.training.features.wanted import not_cached, unwanted
from retinue.training.feeds import Feed, ImageFeed, image_feed
from retinue.training.options import CacheDtype, StageOptions
from retinue.training.packing import pack, small_images
from retinue.training.plans import StepPlans, in_turn
from retinue.training.recipe import Recipe

NOT_PIXELS = {
    *("path", "format", "images", "pool", "columns", "features", "label_separator", "classes"),
    *("also", "split", "on_bad_image", "workers", "packed"),
}
"""Options of the data that no pixel depends on; what else there may be is part of a cached view's
key."""


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
    unseen: bool = True
    """Whether none of the validation split's images is among those that it learns from."""
    packed: dict[str, Any] | None = None
    """How small its images were made beforehand; None: they are as their files have them."""
    store: PackedImages | None = None
    """Where those are."""

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
        if self.store is not None:
            self.store.close()


@dataclass(frozen=True)
class _Cut:
    """Where a stage's network is cut, and what is to be computed there."""

    stage: StageOptions
    network: Network
    units: int
    """How many lie before it."""
    via: Sequence[int]
    """Where what is computed there goes on from: earlier cuts, descending."""
    sizes: Sequence[Size]
    """Of the images that the stage learns from."""
    before: Mapping[str, Any] | None
    """What `StageData.cached` was, if the stage has had steps already."""
    check: Callable[[], None]
    """Called between portions of long work; may raise."""
    tell: Callable[[float], None]
    """Called with the share of it that is done."""


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
        tell: Callable[[float], None],
        decided: Mapping[str, Any],
        skipped: Mapping[str, str],
    ) -> StageData:
        """For a stage that learns from `samples`. `check` is called between portions of long work,
        and may raise; `tell` with the share of the frozen part that is done.

        `decided`: what `cached` was for each stage that has had steps already; it
        stays so, whatever room the disk has now. `skipped`: files that are known to be bad.

        Raises:
            UsageError: the stage asks for cached features and cannot have them.
        """
        if cut == 0 and stage.name not in decided:
            self._refuse_uncut(stage)
        data = self.images(stage, samples)
        for loader in data.loaders if skipped else ():
            own = {sample.key for sample in loader.samples}
            loader.skipped.update({key: why for key, why in skipped.items() if key in own})
        self._pack(data, samples, check)
        before = decided.get(stage.name)
        if (stage.name in decided and before is None) or cut == 0:
            return data
        sizes = stage.input_sizes(self.preprocessing.size, self.recipe.seed)[1]
        via = self._via(stage, network) if before is None else before.get("via", [])
        self._cache(data, _Cut(stage, network, cut, via, sizes, before, check, tell))
        return data

    def images(self, stage: StageOptions, samples: Sequence[Sample]) -> StageData:
        """The same with nothing cached: every batch is read and rendered anew."""
        recipe, device = self.recipe, self.accelerator.device
        workers = recipe.data.workers
        train = image_feed(recipe, stage, samples, self.preprocessing, device, workers=workers)
        loaders = [train.loader]
        size_of, _ = stage.input_sizes(self.preprocessing.size, recipe.seed)
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
            loaders.append(
                Loader(
                    view, self.validation, workers=workers, bad_images=bad,
                    pinned=device.type == "cuda",
                )
            )  # fmt: skip
            validation = ImageFeed(loaders[1], Colour(self.preprocessing), device)
        judged = in_turn(
            self.validation,
            self.preprocessing.size,
            recipe.evaluation.batch_size,
            world=self.accelerator.num_processes,
            rank=self.accelerator.process_index,
        )
        known = {sample.key for sample in self.validation}
        unseen = not any(sample.key in known for sample in samples)
        return StageData(train, plans, validation, judged, None, loaders, unseen)

    def absent(
        self,
        stage: StageOptions,
        data: StageData,
        network: Network,
        cut: int,
        via: Sequence[int] = (),
    ) -> float:
        """The share of the views of `data`, the stage's images, that the cache does not hold; they
        are computed `via` these cuts."""
        cache = self._store()
        sizes = stage.input_sizes(self.preprocessing.size, self.recipe.seed)[1]
        if not os.path.isdir(cache.root):
            return 1.0
        with ExitStack() as stack:
            probe = _Cut(stage, network, cut, via, sizes, None, lambda: None, lambda done: None)
            made = self._views(data, probe, cache, stack, stage.cache_dtype)
            missing = sum(len(views.missing(size)) for views in made for size in views.sizes)
            return missing / max(sum(map(len, made)), 1)

    def _via(self, stage: StageOptions, network: Network) -> list[int]:
        """Where what is computed for the stage goes on from: earlier cuts, descending."""
        stages = self.recipe.stages
        index = [each.name for each in stages].index(stage.name)
        return cuts_on_the_way(stages, index, network, firsts_to_learn(stages, network))

    def _store(self) -> FeatureCache:
        asked = self.recipe.cache
        return FeatureCache(root_of(asked.folder), round(asked.max_gb * 1e9))

    def _refuse_uncut(self, stage: StageOptions) -> None:
        key = f"key stages.{self.recipe.stages.index(stage)}"
        mend = "train less of the network (trainable=head, say), or "
        what = f"nothing of stage {stage.name} can be cached: the network has no place to be cut"
        for asked, name, without in (
            (stage.cache_features == "on", "cache_features", "set cache_features=auto"),
            (stage.views is not None, "views", "leave views out"),
        ):
            if asked:
                raise UsageError(
                    f"{what} before the first unit that learns",
                    where=f"{key}.{name}",
                    mend=mend + without,
                )

    # --- images made small, once -----------------------------------------------------------------

    def _pack(self, data: StageData, samples: Sequence[Sample], check: Callable[[], None]) -> None:
        """Let `data`'s training images come from the cache, if they are to be small."""
        assert isinstance(data.train, ImageFeed)
        view = data.train.loader.view
        if not isinstance(view, TrainView) or not isinstance(view.opening, SmallImages):
            return
        store = PackedImages(self._store(), view.opening.side, self.preprocessing)
        data.store = view.opening.store = store
        data.packed = pack(store, samples, self.recipe, self.accelerator, self.bar, check)

    # --- the frozen part, once -------------------------------------------------------------------

    def _cache(self, data: StageData, cut: _Cut) -> None:
        """Put cached views in the place of `data`'s images, if that is wanted and there is room."""
        why = unwanted(cut.stage) or self._cached(data, cut)
        if why is not None:
            if cut.stage.cache_features == "on":
                raise not_cached(cut.stage, why)
            LOGGER.info("the frozen part runs with every batch: %s", why)

    def _cached(self, data: StageData, cut: _Cut) -> str | None:
        """Do it; or why that cannot be done."""
        dtype = cut.stage.cache_dtype
        if cut.before is not None:
            dtype = cut.before.get("dtype", "float16")  # what there was before it was recorded
        while True:
            try:
                why = self._cached_as(dtype, data, cut)
            except TooCoarseError as error:
                dtype = error.finer
                LOGGER.warning("%s: all are kept as %s", error, dtype)
                if cut.before is None:  # no later stage keeps them so
                    cut = replace(cut, via=[])
                continue
            except NoWayOnError as error:
                if cut.before is not None:
                    raise RetinueError(str(error), where=f"stage {cut.stage.name}") from error
                LOGGER.warning("%s; the frozen part is computed as a whole", error)
                cut = replace(cut, via=[])
                continue
            if why is None or not cut.via:
                return why
            cut = replace(cut, via=[])  # what a later stage keeps may come when that begins

    def _cached_as(self, dtype: CacheDtype, data: StageData, cut: _Cut) -> str | None:
        """Do it with features that are kept as `dtype`."""
        cache = self._store()
        if self.accelerator.is_main_process:
            cache.tidy()
        with ExitStack() as unless_done:
            made = self._views(data, cut, cache, unless_done, dtype)
            why = self._no_room(cache, made)
            if why is not None:
                if cut.before is None:
                    return why
                LOGGER.warning("the features of stage %s stay cached, but %s", cut.stage.name, why)
            whole = max(sum(map(len, made)), 1)
            before = 0
            for views, split in zip(made, ("train", "val"), strict=False):
                views.settle(made[0].engine)  # one for both, once the first has come to it
                self._compute(
                    views,
                    f"{cut.stage.name}, {split}",
                    cut.check,
                    lambda done, before=before: cut.tell((before + done) / whole),  # type: ignore[misc]
                )
                before += len(views)
                if any(gather_object([views.bytes_missing()])):
                    raise RetinueError(
                        "the frozen part was computed, but a process does not find it in the cache",
                        where=repr(str(cache.root)),
                        mend="set cache.folder to one that all processes see, or"
                        " cache_features=off",
                    )
            unless_done.pop_all()
        data.train = made[0]
        if len(made) > 1:
            data.validation = made[1]
        kept = together([views.kept() for views in made])
        what = counted(kept.views, "cached view")
        LOGGER.info("%s: %s in %s, %s", cut.stage.name, what, dtype, kept.told())
        data.cached = {
            **kept._asdict(),
            "dtype": dtype,
            "units": cut.units,
            "via": list(cut.via),
            "views": made[0].views,
            "engine": made[0].engine,
            "spaces": sorted({name for views in made for name in views.spaces}),
        }
        return None

    def _no_room(self, cache: FeatureCache, made: Sequence[CachedViews]) -> str | None:
        """Make room for what is missing; or why there is none."""
        judged: list[str | None] = [None]
        # Cache and disk may look different to another process, which therefore does not look.
        if self.accelerator.is_main_process:
            need = sum(views.bytes_missing(made[0].engine) for views in made)
            judged = [cache.make_room(need) if need else None]
        broadcast_object_list(judged)
        return judged[0]

    def _views(
        self,
        data: StageData,
        cut: _Cut,
        cache: FeatureCache,
        stack: ExitStack,
        dtype: CacheDtype,
    ) -> list[CachedViews]:
        """Of the training split, and of the validation split if there is one, kept as `dtype`;
        `stack` closes them."""
        device = self.accelerator.device
        automatic: EngineName = "auto" if device.type == "cpu" else "torch"
        engine: EngineName = automatic if cut.before is None else cut.before["engine"]
        if device.type != "cpu":
            engine = "torch"  # whatever it was where the training began
        augment = cut.stage.augment
        plain: dict[str, Any] = {
            "preprocessing": self.preprocessing.as_dict(),
            "pixels": pixel_code(),
        }
        if shaping := self.recipe.data.model_dump(mode="json", exclude=NOT_PIXELS):
            plain["data"] = shaping
        own, judged = data.train, data.validation
        assert isinstance(own, ImageFeed)
        kind = next((type(s.target) for s in own.loader.samples if s.target is not None), None)
        varied = plain | {
            "augment": augment.model_dump(mode="json"),
            "seed": self.recipe.seed if augment.draws else None,
            "places": kind is not None and kind.places,  # the border depends on it
        }
        if (small := small_images(self.recipe, self.preprocessing)) is not None:
            varied["packed"] = small.side
        part = partial(FrozenPart, cut.network, cut.units, device, dtype=dtype, via=cut.via)
        frozen = part(teacher=self.teacher, taught_by=self.taught_by)
        views = Views(own.loader, own.colour, varied, cut.sizes, cut.stage.views or 1)
        made = [CachedViews(frozen, views, cache, engine)]
        stack.callback(made[0].close)
        if isinstance(judged, ImageFeed):
            views = Views(judged.loader, judged.colour, plain, [self.preprocessing.size])
            made.append(CachedViews(part(), views, cache, made[0].engine))
            stack.callback(made[1].close)
        return made

    def _compute(
        self,
        views: CachedViews,
        text: str,
        check: Callable[[], None],
        tell: Callable[[int], None],
    ) -> None:
        alone = self.accelerator.num_processes == 1

        def each_chunk(done: int, total: int) -> None:
            self.bar.advance(done)
            tell(done)
            if alone:  # the check is a collective operation
                check()

        self.bar.begin(f"{text}: frozen part", len(views))
        # One process computes; the others find it computed. The cache is shared.
        failed: RetinueError | TooCoarseError | NoWayOnError | None = None
        if self.accelerator.is_main_process:
            try:
                views.compute(each_chunk, lambda line: LOGGER.info("%s: %s", text, line))
            except (RetinueError, TooCoarseError, NoWayOnError) as error:
                failed = error
        why = (failed.what, failed.where, failed.mend) if isinstance(failed, RetinueError) else None
        coarse = failed.dtype if isinstance(failed, TooCoarseError) else None
        no_way = str(failed) if isinstance(failed, NoWayOnError) else None
        told: list[Any] = [why, coarse, no_way, views.engine, views.skipped.copy()]
        broadcast_object_list(told)
        if failed is not None:
            raise failed
        if told[0] is not None:
            what, where, mend = told[0]
            raise RetinueError(what, where=where, mend=mend)
        if told[1] is not None:
            raise TooCoarseError(told[1])
        if told[2] is not None:
            raise NoWayOnError(told[2])
        if not alone:
            views.take_over(*told[3:])


def sampler_of(stage: StageOptions, samples: Sequence[Sample], seed: int) -> Sampler[Any]:
    """A stage's sampler. Raises UsageError where these samples do not allow it."""
    return make_sampler(
        stage.sampler,
        Population.of_samples(samples),
        batch_size=stage.batch_size,
        seed=seed,
        epoch_steps=stage.epoch_steps,
    )
