"""Fitting a training to a time: how long its stages are, how many views, and how much learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from retinue.errors import UsageError
from retinue.models.network import Network
from retinue.run.forecast import spoken
from retinue.training.options import StageOptions
from retinue.training.planning.estimate import Estimate
from retinue.training.planning.lengths import learning, told, with_epochs, with_steps
from retinue.training.recipe import Recipe
from retinue.training.stage import cut_before, first_to_learn

AIM = 0.9
"""The share of the time that the estimate may fill: estimates are no promises."""
MOST = 3.0
"""How many times longer than the recipe says its stages become where there is time."""
LEAST = 0.5
"""Where they would become shorter than this share, less of the network learns instead."""
CUTS = ("50%", "25%", "12%", "head")
"""What still learns then: the most of these that will do."""
VIEWS = 4
"""Of each image, of a stage whose images were drawn anew before it was cut."""


def fitted_to_budget(
    recipe: Recipe,
    network: Network,
    seconds: float,
    estimate: Callable[[Recipe], Estimate],
    *,
    spent: float = 0.0,
) -> tuple[Recipe, Estimate, list[str]]:
    """`recipe` made to take about `AIM` of `seconds`, what it will take, and lines that say what
    changed. `estimate` tells what a recipe takes whose stages differ from it; `spent` of the
    seconds have gone by.

    The epochs of all stages become longer or shorter by one factor, and the views with them; where
    that is less than `LEAST`, less of the network learns, so that more of it is computed once; what
    was freshly drawn always learns.

    Raises:
        UsageError: one epoch of every stage takes longer, whatever learns.
    """
    allowed = AIM * (seconds - spent)
    best: tuple[float, Recipe] | None = None
    shortest = float("inf")
    for cut in _cuts(recipe, network):

        def taken(factor: float, cut: Recipe = cut) -> float:
            return estimate(_scaled(cut, factor)).total_s

        shortest = min(shortest, taken(0.0))
        factor = _largest(lambda f, taken=taken: taken(f) <= allowed)  # type: ignore[misc]
        if factor is not None and (best is None or factor > best[0]):
            best = factor, cut
            if factor >= LEAST:
                break
    if best is None:
        raise UsageError(
            f"an epoch of every stage takes about {spoken(max(shortest, 1))} here, whatever learns:"
            f" too long for {spoken(seconds)}, of which {spoken(spent)} have gone by",
            where="key budget",
            mend=f"budget={_rounded((spent + shortest) / AIM)}, fewer images,"
            " or a smaller network or input",
        )
    fitted = _scaled(best[1], best[0])
    changed = [
        f"stage {new.name}: {learning(new)}, {told(new)}"
        f" (the recipe says {old.trainable}, {told(old)})"
        for old, new in zip(recipe.stages, fitted.stages, strict=True)
        if (old.trainable, told(old)) != (new.trainable, told(new))
    ]
    return fitted, estimate(fitted), changed


def _cuts(recipe: Recipe, network: Network) -> Iterator[Recipe]:
    """`recipe`, then with less and less that learns."""
    yield recipe
    before = recipe.stages
    for trainable in CUTS:
        stages = tuple(_cut(stage, trainable, network) for stage in recipe.stages)
        if stages != before:
            yield recipe.model_copy(update={"stages": stages})
        before = stages


def _cut(stage: StageOptions, trainable: str, network: Network) -> StageOptions:
    """`stage` with no more learning than `trainable`, and what was freshly drawn: frozen, that
    would stay as it is."""
    first = first_to_learn(network, trainable, "key budget")
    if first > network.first_drawn:
        first = network.first_drawn
        trainable = network.units()[first].name
    if first <= first_to_learn(network, stage.trainable, "key budget"):
        return stage
    cut = stage.model_copy(update={"trainable": trainable})
    drawn_anew = cut.views is None and cut.augment.draws and not cut.augment.mixes_pixels
    if cut_before(network, first) > 0 and drawn_anew and cut.cache_features == "auto":
        return cut.model_copy(update={"views": min(VIEWS, cut.epochs or VIEWS)})
    return cut


def _scaled(recipe: Recipe, factor: float) -> Recipe:
    """`recipe` with stages `factor` times as long, each of an epoch or step at least."""
    stages = []
    for stage in recipe.stages:
        free = stage.model_copy(update={"min_steps": None, "max_steps": None})
        if free.epochs is not None:
            stages.append(with_epochs(free, max(int(free.epochs * factor), 1)))
        else:
            stages.append(with_steps(free, max(int((free.steps or 1) * factor), 1)))
    return recipe.model_copy(update={"stages": tuple(stages)})


def _largest(fits: Callable[[float], bool]) -> float | None:
    """The largest factor up to `MOST` that fits, to a hundredth; None if none does."""
    if not fits(0.0):
        return None
    low, high = 0, round(MOST * 100)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle / 100):
            low = middle
        else:
            high = middle - 1
    return low / 100


def _rounded(seconds: float) -> str:
    """A budget that holds `seconds`."""
    whole = int(seconds) + 1
    return f"{whole}s" if whole < 120 else f"{-(-whole // 60)}m"
