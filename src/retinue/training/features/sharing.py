"""Which stages of a training have a part of the way in common: the frozen part of one goes on where
that of another ends, and is made of what that one keeps anyway."""

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
    """Another one of the `stages` whose frozen part is the beginning of that of stage `index`, with
    the same weights, and that caches the same views: the first of the later ones, or else the last
    of the earlier ones; None: there is none. `firsts`: the first unit of `network` that learns in
    each.

    What is kept as int8 is nothing to go on with: that would lose as much again.
    """
    if unwanted(stages[index]) is not None or stages[index].cache_dtype == "int8":
        return None
    each = [*range(index + 1, len(stages)), *range(index - 1, -1, -1)]
    cuts = [cut_before(network, first) for first in firsts]
    return next(
        (
            number
            for number in each
            if 0 < cuts[number] < cuts[index]
            and _alike(stages[index], stages[number])
            and cuts[number]
            <= _learnt_between(stages, min(index, number), max(index, number), firsts)
        ),
        None,
    )


def _learnt_between(
    stages: Sequence[StageOptions], start: int, end: int, firsts: Sequence[int]
) -> int:
    """The first unit whose weights may be others, or whose images are, when stage `end` begins than
    when stage `start` did."""
    between = stages[start + 1 : end + 1]
    if any(isinstance(stage.data, Tiles) for stage in between):
        return 0
    # The best weights so far may be of before stage `start`.
    since = 0 if any(stage.from_best for stage in between) else start
    return min(firsts[since:end])


def cuts_on_the_way(
    stages: Sequence[StageOptions], index: int, network: Network, firsts: Sequence[int]
) -> list[int]:
    """Where the frozen part of stage `index` can be computed via, descending: the cuts of the
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
