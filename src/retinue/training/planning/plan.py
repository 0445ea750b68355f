"""How long a training will take, told before its first step, and its recipe fitted to a budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from accelerate.utils import broadcast_object_list

from retinue.data.sources import judged_split
from retinue.errors import RetinueError
from retinue.run.forecast import Forecast, spoken
from retinue.run.log import LOGGER
from retinue.training.environment import is_main
from retinue.training.planning.budget import fitted_to_budget
from retinue.training.planning.estimate import Estimate, estimated
from retinue.training.planning.lengths import images_to_label, samples_of_stages
from retinue.training.planning.precision import settled
from retinue.training.planning.rehearsal import Rehearsal
from retinue.training.recipe import Recipe
from retinue.training.training import Training


def planned(training: Training) -> tuple[Training, Estimate | None, list[str]]:
    """`training` with its precision settled, and with its recipe fitted to its budget, if it has
    one that it was not yet fitted to; what it will take, None where that cannot be told; and lines
    that say what was settled and fitted.

    All processes do the same, and take what the first one has found.

    Raises:
        UsageError: the budget is too small.
    """
    training, lines = settled(training)
    recipe = training.recipe
    found: list[Any] = [recipe, None, [], None]
    try:
        rehearsal = Rehearsal(training)
        judged = training.splits[judged_split(recipe.evaluation.split, training.splits)]
        judging = rehearsal.judging(judged)

        def estimate(of: Recipe) -> Estimate:
            return estimated(
                of,
                rehearsal.rates(of),
                judging,
                images=[len(s) for s in samples_of_stages(of, training.splits)],
                epoch_steps=training.epoch_steps,
                labelled=images_to_label(of, training.splits),
                validated=len(training.splits.get("val", ())),
                judged=len(judged),
            )

        budget = recipe.budget
        if budget is not None and not budget.fitted:
            estimate(recipe)  # the timing is a part of the time, too
            spent = training.clock.total
            fitted, told, notes = fitted_to_budget(
                recipe, training.learner.network, budget.seconds, estimate, spent=spent
            )
            done = budget.model_copy(update={"fitted": True})
            fitted = fitted.model_copy(update={"budget": done})
            time = budget.time if isinstance(budget.time, str) else spoken(budget.time)
            said = f"fitted to the budget of {time}"
            found = [fitted, told, [f"{said}: {note}" for note in notes] or [f"{said} as it is"]]
        else:
            found = [recipe, estimate(recipe), []]
        found.append(None)
    except RetinueError as error:
        found[3] = error
    except (RuntimeError, ValueError, TypeError) as error:
        # Whatever it is, the training itself meets and names it.
        found[3] = RetinueError(f"how long it takes cannot be timed ({error})")
    if training.settings.world > 1:
        broadcast_object_list(found)
    recipe, told, notes, failed = found
    if failed is not None:
        if recipe.budget is not None and not recipe.budget.fitted:
            raise failed
        LOGGER.info("%s", failed.what)
        return training, None, lines
    return replace(training, recipe=recipe), told, [*lines, *notes]


def begin_forecast(training: Training, estimate: Estimate | None) -> None:
    """The bar and the clock of `training` tell from now on how long all of it will take."""
    if estimate is not None and is_main():
        training.clock.forecast = Forecast(estimate.parts())
        training.bar.left = training.clock.forecast.left
