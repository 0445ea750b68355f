"""`retinue train`."""

from __future__ import annotations

from typing import Annotated

import typer

from retinue.cli.options import Json, Quiet
from retinue.cli.output import end_with, figures, print_json, say
from retinue.text import visible

EXAMPLES = (
    "Example: retinue train finetune data=photos/ model=efficientnet_lite0 stages.1.epochs=5"
    "\n\n"
    "Resume:  retinue train runs/finetune --resume"
    "\n\n"
    "Train on: retinue train runs/finetune --resume stages.1.epochs=20"
)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A shipped recipe's name, a YAML file, or with --resume the run folder.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Override any field of the recipe: data=PATH, seed=1, stages.1.epochs=5 …",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="RUN", help="The run folder; by default runs/RECIPE."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run folder given as RECIPE.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a network as a recipe says, evaluate it and write its report.

    An interrupted training (Ctrl-C, a power cut) goes on with --resume as if nothing had happened.
    A run folder is never overwritten: the next one gets a number.
    """
    from retinue import api
    from retinue.errors import UsageError
    from retinue.options.overrides import parse_override

    if resume and out is not None:
        raise UsageError(
            "a training goes on in its own folder",
            where="--out",
            mend="leave it out, or start a new training from the run's recipe.yaml",
        )
    changes = dict(parse_override(text) for text in overrides or [])
    run = api.train(recipe, out=out, resume=resume, quiet=quiet, overrides=changes)
    if not run.figures:
        return  # of several processes, only the first one tells
    page = run.folder / "report.html"
    if as_json:
        print_json(
            {
                "run": run.folder,
                "model": run.best,
                "report": page if page.is_file() else None,
                "figures": run.figures,
                "skipped": run.skipped,
            }
        )
    else:
        figures(run.figures)
        say(f"model   {visible(run.best)}")
        if page.is_file():
            say(f"report  {visible(page)}")
    end_with(run.skipped)
