"""Which stages of a training have a part of the way in common: the frozen part of one goes on where
that of a later one ends, and is made of what that one keeps anyway."""

from __future__ import annotations

from collections.abc import Sequence

from retinue.models.network import Network
from retinue.training.features.wanted import unwanted
from retinue.training.options import StageOptions
from retinue.training.stage import cut_before, first_to_learn
from retinue.training.stage_samples import Tiles


def next_on_the_way(
    stages: Sequence[StageOptions], index: int, network: Network, firsts: Sequence[int]
) -> int | None:
    """The first of the `stages` after `index` whose frozen part is the beginning of that one's,
    with the same weights, and that caches the same views; None: there is none. `firsts`: the first
    unit of `network` that learns in each.

    What is kept as int8 is nothing to go on with: that would lose as much again.
    """
    stage, first = stages[index], firsts[index]
    cut = cut_before(network, first)
    if unwanted(stage) is not None or stage.cache_dtype == "int8":
        return None
    for number in range(index + 1, len(stages)):
        if isinstance(stages[number].data, Tiles):  # other images from there on
            return None
        if stages[number].from_best:  # weights of before stage `index`, maybe
            first = min([first, *firsts[:index]])
        earlier = cut_before(network, firsts[number])
        # What has learnt by then lies behind `first`.
        if 0 < earlier < cut and earlier <= first and _alike(stage, stages[number]):
            return number
        first = min(first, firsts[number])
    return None


def cuts_on_the_way(
    stages: Sequence[StageOptions], index: int, network: Network, firsts: Sequence[int]
) -> list[int]:
    """Where the frozen part of stage `index` can be computed via, descending: the cuts of the later
    stages that are on its way, one after the other. `firsts`: see `next_on_the_way`."""
    found: list[int] = []
    while (number := next_on_the_way(stages, index, network, firsts)) is not None:
        found.append(cut_before(network, firsts[number]))
        index = number
    return found


def firsts_to_learn(stages: Sequence[StageOptions], network: Network) -> list[int]:
    """The first unit that learns in each of the `stages`."""
    return [
        first_to_learn(network, stage.trainable, f"key stages.{index}.trainable")
        for index, stage in enumerate(stages)
    ]


def _alike(stage: StageOptions, later: StageOptions) -> bool:
    """Whether both cache the same views of an image, in the same way."""
    return (
        unwanted(later) is None
        and later.augment == stage.augment
        and later.sizes == stage.sizes
        and later.cache_dtype == stage.cache_dtype
    )
