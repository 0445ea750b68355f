"""What a recipe would come to, told before its first step: what cannot work is refused, what hardly
anyone means is doubted aloud."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from retinue.data.sources import Dataset
from retinue.errors import RetinueError, UsageError
from retinue.models.anatomy import on_meta
from retinue.models.network import Network
from retinue.models.registry import create_model, find
from retinue.training.recipe import Recipe
from retinue.training.schedules import warmup_steps
from retinue.training.stage import cut_of
from retinue.weights import catalogue
from retinue.weights.layout import layouts
from retinue.weights.resolution import names_a_file

FROM_SCRATCH = "`retinue train scratch` trains without weights"
REACH = 64
"""How many pixels up and down a size that works is looked for."""


def network_arguments(recipe: Recipe) -> dict[str, Any]:
    """The network's keywords that the recipe gives."""
    model = recipe.model
    given = {"dropout": model.dropout, "drop_path": model.drop_path, "head": model.head}
    return {**{k: v for k, v in given.items() if v is not None}, **model.arguments}


def refuse_unfit_model(recipe: Recipe) -> None:
    """Try weights, arguments, stages and input size together, without data, memory or downloads.

    Weights of one's own can bring arguments and a size: what they are is only tried once they are
    read. Raises UsageError.
    """
    name, weights = recipe.model.name, recipe.model.weights
    if weights is not None and (weights.startswith("hub:") or names_a_file(weights)):
        return
    arguments = network_arguments(recipe)
    if weights is not None:
        arguments = {**_published_arguments(name, weights), **arguments}
    try:
        with torch.device("meta"):
            network = create_model(name, **arguments)
    except UsageError as error:
        where = error.where or "key model.arguments"
        raise UsageError(error.what, where=where, mend=error.mend) from error
    if weights is None:
        _refuse_frozen_statistics(recipe, network)
        published = network.preprocessing
    else:
        published = find(name).prepared(catalogue.find(name, weights))
    if recipe.input.size is not None or weights is None:
        refuse_size(recipe, network, recipe.input.applied(published).size)


def refuse_size(
    recipe: Recipe, network: Network, size: tuple[int, int], *, begun: bool = False
) -> None:
    """Raise UsageError, with what would work, if `network` cannot take images of `size` (height,
    width). It is tried on the meta device: shapes without numbers."""
    shadow: Network = on_meta(network)
    failure = _failure(shadow, size)
    if failure is None:
        return
    native = network.preprocessing.size
    if not isinstance(failure, UsageError) and _failure(shadow, native) is not None:
        return  # it is not the size: the meta device cannot run this network
    ways = _ways(recipe, shadow, size)
    where = "input.size" if recipe.input.size is not None else "model.arguments"
    reason = (str(failure.args[0]).strip().splitlines() or [""])[0]
    raise UsageError(
        f"{recipe.model.name} cannot take images of {size[0]} × {size[1]} pixels: {reason}",
        where=f"key {where}",
        mend=f"{'start a new training with' if begun else 'set'} {' or '.join(ways)}",
    )


def doubts(recipe: Recipe, network: Network, dataset: Dataset) -> list[str]:
    """What is possible, but hardly meant."""
    found = []
    first = recipe.stages[0]
    if recipe.model.weights is None and cut_of(network, first.trainable, "key stages.0.trainable"):
        found.append(
            f"stage {first.name} trains only a part of the network, and what is frozen is random,"
            f" because model.weights is null; {FROM_SCRATCH}"
        )
    images = len(dataset.splits["train"])
    for index, stage in enumerate(recipe.stages):
        each = images // min(stage.batch_size, images)
        total = stage.steps or (stage.epochs or 0) * each
        if warmup_steps(stage.schedule, each) >= total:
            length = "steps" if stage.steps else "epochs"
            found.append(
                f"stage {stage.name}: the warm-up takes all of its {total} steps, so that it never"
                f" learns at lr {stage.optimizer.lr:g}; lower stages.{index}.schedule.warmup_epochs"
                f" or raise stages.{index}.{length}"
            )
    return found


def _published_arguments(name: str, tag: str) -> dict[str, Any]:
    """What the catalogue's weights `tag` want the network to be built with."""
    try:
        entry = catalogue.find(name, tag)
    except UsageError as error:
        mend = (error.mend or "").replace("weights=None", f"model.weights=null ({FROM_SCRATCH})")
        raise UsageError(error.what, where="key model.weights", mend=mend) from error
    layout = next(x for x in layouts(find(name).family) if x.source == entry.layout)
    return {**layout.arguments, **entry.arguments}


def _refuse_frozen_statistics(recipe: Recipe, network: Network) -> None:
    """BatchNorm that is frozen before it has seen an image normalises nothing."""
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
        return
    for index, stage in enumerate(recipe.stages):
        if stage.frozen_batchnorm:
            raise UsageError(
                f"stage {stage.name} keeps BatchNorm as the weights have it, but there are none"
                " (model.weights is null): it would normalise nothing",
                where=f"key stages.{index}.frozen_batchnorm",
                mend=f"{FROM_SCRATCH}; or give weights",
            )
        if stage.trainable == "all":
            return  # its statistics are there from now on


def _failure(shadow: Network, size: tuple[int, int]) -> Exception | None:
    """What the network on the meta device says to images of `size`, evaluating and training."""
    images = torch.empty(2, 3, *size, device="meta")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for training in (False, True):
            try:
                shadow.train(training)(images)
            except (RetinueError, RuntimeError) as error:
                return error
    return None


def _ways(recipe: Recipe, shadow: Network, size: tuple[int, int]) -> list[str]:
    """Settings that would work in place of `size`."""
    ways = []
    side = size[0] if size[0] == size[1] else None
    if side is not None and shadow.arguments.get("image_size") not in (None, side):
        try:
            with torch.device("meta"):
                other = create_model(recipe.model.name, **{**shadow.arguments, "image_size": side})
        except UsageError:
            pass
        else:
            if _failure(on_meta(other), size) is None:
                ways.append(f"model.arguments.image_size={side}")
    height, width = shadow.preprocessing.size
    native = str(height) if height == width else f"[{height}, {width}]"
    if side is not None and not ways:
        near = (n for d in range(1, REACH + 1) for n in (side - d, side + d) if n > 0)
        nearest = next((n for n in near if _failure(shadow, (n, n)) is None), None)
        if nearest is not None:
            ways.append(f"input.size={nearest}")
    if f"input.size={native}" not in ways and _failure(shadow, (height, width)) is None:
        ways.append(f"input.size={native}")
    return ways or ["another input.size"]
