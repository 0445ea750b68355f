"""Stages that are run through several times: the model labels images, learns from them, labels them
anew."""

from __future__ import annotations

from collections.abc import Sequence

from retinue.errors import UsageError, suggest
from retinue.training.options import RoundsOptions, StageOptions
from retinue.training.stage_samples import PseudoLabels, Subset, Tiles, WithValidation

_KEY = "key rounds"


def unrolled(stages: Sequence[StageOptions], rounds: RoundsOptions) -> tuple[StageOptions, ...]:
    """`stages`, those that `rounds` repeats as often as it says; the second time they are called
    `NAME-2`, and so on. Raises UsageError where there is nothing to repeat."""
    names = [stage.name for stage in stages]
    if rounds.first is None:
        found = [k for k, stage in enumerate(stages) if isinstance(stage.data, PseudoLabels)]
        if not found:
            raise UsageError(
                "no stage labels images, so there is nothing that a further round would change",
                where=_KEY,
                mend="name the first stage of a round (rounds.first), or leave rounds out",
            )
        first = found[0]
    elif rounds.first in names:
        first = names.index(rounds.first)
    else:
        raise UsageError(
            f"there is no stage {rounds.first!r}",
            where=f"{_KEY}.first",
            mend=suggest(rounds.first, names) or f"there are {', '.join(names)}",
        )
    for stage in stages[first:] if rounds.times > 1 else ():
        if isinstance(stage.data, Subset | Tiles | WithValidation):
            raise UsageError(
                f"stage {stage.name} changes its samples each time ({stage.data.name}), those that"
                " it has changed the round before, too",
                where=_KEY,
                mend="let the rounds begin after it (rounds.first), or leave its data out",
            )
    again = [
        stage.model_copy(update={"name": f"{stage.name}-{number}"})
        for number in range(2, rounds.times + 1)
        for stage in stages[first:]
    ]
    doubled = {stage.name.casefold() for stage in again} & {name.casefold() for name in names}
    if doubled:
        raise UsageError(
            f"a stage is called {sorted(doubled)[0]!r} already, as one of a further round would be",
            where=_KEY,
            mend="give that stage another name",
        )
    return (*stages, *again)
