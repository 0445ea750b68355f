"""Whether a stage's features are to be cached, and what is said where they cannot be."""

from __future__ import annotations

from contextlib import suppress

from retinue.errors import UsageError
from retinue.training.features.cache import FeatureCache, root_of
from retinue.training.options import StageOptions
from retinue.training.recipe import Recipe


def not_cached(stage: StageOptions, why: str) -> UsageError:
    """What to raise for a stage whose features are to be cached, and cannot be."""
    return UsageError(
        f"the features of stage {stage.name} cannot be cached: {why}",
        where="key cache_features",
        mend="cache_features=auto",
    )


def refuse_closed_cache(recipe: Recipe) -> None:
    """Raise UsageError for a stage whose features are to be cached where nothing can be written,
    and nothing is. (Where something is, it may be all that is needed.)"""
    for stage in recipe.stages:
        if stage.cache_features == "on" and unwanted(stage) is None:
            cache = FeatureCache(root_of(recipe.cache.folder), 0)
            why = cache.closed()
            there = False
            with suppress(OSError):
                there = bool(cache.sizes())
            if why is not None and not there:
                raise not_cached(stage, why)


def unwanted(stage: StageOptions) -> str | None:
    """Why the stage does not want its frozen part to be cached; None: it does."""
    if stage.cache_features == "off":
        return "cache_features is off"
    if stage.augment.mixes_pixels:
        return "the augmentation mixes pixels of several images"
    if stage.augment.draws and stage.views is None:
        return "the augmentation is drawn anew in every epoch (views=K caches K of them)"
    return None
