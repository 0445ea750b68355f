"""Making training images small beforehand, where the recipe says so (`data.packed`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from retinue.data.loader import worker_count
from retinue.data.packed import SmallImages, side_of
from retinue.run.log import LOGGER, Bar
from retinue.sample import Preprocessing, Sample
from retinue.text import counted
from retinue.training.features.packed_images import PackedImages
from retinue.training.recipe import Recipe


def small_images(recipe: Recipe, preprocessing: Preprocessing) -> SmallImages | None:
    """How the training's images are opened; None: as they are. All stages share what is kept."""
    inputs = [
        size
        for stage in recipe.stages
        for size in stage.input_sizes(preprocessing.size, recipe.seed)[1]
    ]
    side = side_of(recipe.data.packed, inputs)
    return None if side is None else SmallImages(side)


def pack(
    store: PackedImages,
    samples: Sequence[Sample],
    recipe: Recipe,
    accelerator: Accelerator,
    bar: Bar,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Make what `store` lacks of `samples`, if there is room; gives what the run writes down.
    `check` is called between portions, and may raise."""
    packed, absent = store.take(samples)
    workers = worker_count(recipe.data.workers)
    why: list[str | None] = [None]
    if len(absent) and accelerator.is_main_process:
        count = counted(len(absent), "image")
        LOGGER.info("making %s small once, at most %d pixels", count, store.side)
        bar.begin("making images small", len(absent))

        def each(done: int) -> None:
            bar.advance(done)
            if accelerator.num_processes == 1:  # the check is a collective operation
                check()

        why = [store.fill(samples, absent, workers, each)]
    broadcast_object_list(why)
    if len(absent) or accelerator.num_processes > 1:
        packed, absent = store.take(samples)
    if why[0] is not None:
        LOGGER.warning(
            "%d of %d images are shrunk again in every epoch: %s",
            packed.of - packed.images,
            packed.of,
            why[0],
        )
    return {"side": store.side, "images": packed.images, "spaces": list(packed.spaces)}
