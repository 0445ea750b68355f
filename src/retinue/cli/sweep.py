"""`retinue sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retinue.cli.options import Json, Overrides, Quiet, Recipe
from retinue.cli.output import figures, print_json, say
from retinue.cli.train import recipe_and_overrides
from retinue.text import visible

EXAMPLES = (
    "Example: retinue sweep linear-probe photos/ --over lr=1e-4..1e-2 --over batch_size=16,32,64"
    "\n\n"
    "Resume:  retinue train runs/linear-probe-sweep --resume"
)


def sweep(
    context: typer.Context,
    recipe: Recipe,
    overrides: Overrides = None,
    over: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="KEY=LOW..HIGH", help="What is searched; or KEY=A,B,C."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="How many trainings.")] = 20,
    seed: Annotated[int, typer.Option("--sweep-seed", help="Of the search.")] = 0,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="RUN", help="By default runs/RECIPE-sweep."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search for values of a recipe: Optuna proposes, trainings judge on validation.

    Trials that fall behind are ended early. Needs `pip install 'retinue\\[sweep]'`.
    """
    from retinue import api
    from retinue.training.studies import sweep as search

    recipe, changes = recipe_and_overrides([recipe, *(overrides or [])], context)
    run = search.start(
        recipe,
        changes,
        over or [],
        trials=trials,
        seed=seed,
        out=None if out is None else Path(out),
        quiet=quiet,
    )
    page = api.write_report(run.folder)
    if as_json:
        told = {"run": run.folder, "model": run.best, "report": page, "figures": run.figures}
        print_json(told)
        return
    figures(run.figures)
    say(f"model   {visible(run.best)}")
    say(f"report  {visible(page)}")
    say(f"trials  {visible(run.folder / 'study.json')}")
