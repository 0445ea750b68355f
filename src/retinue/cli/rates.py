"""`retinue rates`."""

from __future__ import annotations

from typing import Annotated

import typer

from retinue.cli.options import Json, Overrides, Quiet, Recipe
from retinue.cli.output import print_json, say
from retinue.cli.train import recipe_and_overrides
from retinue.text import visible

EXAMPLES = (
    "Example: retinue rates finetune photos/ --plot rates.png"
    "\n\n"
    "Another stage: retinue rates finetune photos/ --stage blocks batch_size=64"
)


def rates(
    context: typer.Context,
    recipe: Recipe,
    overrides: Overrides = None,
    stage: Annotated[
        str | None,
        typer.Option("--stage", metavar="NAME", help="Stage to test (default: the first)."),
    ] = None,
    low: Annotated[float, typer.Option("--low", help="The rate of the first step.")] = 1e-6,
    high: Annotated[float, typer.Option("--high", help="That of the last.")] = 1.0,
    steps: Annotated[int, typer.Option("--steps", help="Of the test.")] = 100,
    plot: Annotated[
        str | None, typer.Option("--plot", metavar="FILE", help="A PNG file of the losses.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Try learning rates, from a low one up, in one short training.

    The loss first stays, then falls, then runs away. A rate around where it falls fastest, or a
    tenth of where it is lowest, is one to begin with.
    """
    from retinue.training.rate_range import rate_range

    recipe, changes = recipe_and_overrides([recipe, *(overrides or [])], context)
    found = rate_range(
        recipe,
        stage=stage,
        low=low,
        high=high,
        steps=steps,
        plot=plot,
        quiet=quiet,
        overrides=changes,
    )
    if as_json:
        print_json(found.as_dict())
        return
    say(f"stage {visible(found.stage)}, {len(found.rates)} steps up to {found.rates[-1]:.2g}")
    if found.steepest is None or found.lowest is None:
        say("  the loss does not fall at any rate")
    else:
        say(f"  falls fastest   {found.steepest:.2g}")
        say(f"  lowest          {found.lowest:.2g}, a tenth of which is {found.lowest / 10:.2g}")
    say(f"  the recipe's    {found.began:.2g}")
    if plot is not None:
        say(f"plot    {visible(plot)}")
