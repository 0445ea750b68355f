"""`retinue train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from retinue.cli.options import Json, Quiet
from retinue.cli.output import end_with, figures, print_json, say
from retinue.text import visible

if TYPE_CHECKING:
    from retinue.training.session import Plan

EXAMPLES = (
    "Example: retinue train finetune data=photos/ model=efficientnet_lite0 stages.1.epochs=5"
    "\n\n"
    "Resume:  retinue train runs/finetune --resume"
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
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be trained and how long it takes, and end."),
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

    if resume and (out is not None or overrides):
        raise UsageError(
            "a resumed training takes neither overrides nor --out",
            where=visible((overrides or ["--out"])[0]),
            mend="its recipe.yaml starts a new training with them",
        )
    changes = dict(parse_override(text) for text in overrides or [])
    if dry_run:
        if resume:
            raise UsageError("a dry run is of a new training", where="--dry-run --resume")
        _show(api.train(recipe, dry_run=True, quiet=quiet, overrides=changes), as_json=as_json)
        return
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


def _show(plan: Plan, *, as_json: bool) -> None:
    """What a dry run found, on standard output."""
    if as_json:
        print_json(plan.as_dict())
        return
    for line in plan.lines():
        say(visible(line))
