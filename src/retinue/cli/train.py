"""`retinue train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retinue.cli import complete
from retinue.cli.line import sorted_words
from retinue.cli.options import Json, Quiet
from retinue.cli.output import end_with, figures, print_json, say
from retinue.tasks.shipped import SHIPPED
from retinue.text import visible

if TYPE_CHECKING:
    from retinue.training.session import Plan

USUAL = " or ".join(there.usual for there in SHIPPED.values())

EXAMPLES = (
    "Example: retinue train photos/"
    "\n\n"
    "With more said: retinue train finetune photos/ model=efficientnet_lite0 stages.1.epochs=5"
    "\n\n"
    "What is best for the pictures, in ten minutes: retinue train auto photos/ budget=10m"
    "\n\n"
    "Cross-validation: retinue train finetune photos/ folds=5"
    "\n\n"
    "Resume:  retinue train runs/finetune --resume"
    "\n\n"
    "Train on: retinue train runs/finetune --resume stages.1.epochs=20"
)


def train(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            autocompletion=complete.recipes,
            help="A shipped recipe's name, auto, a YAML file, or with --resume the run folder. A"
            f" folder, table or file of pictures: the usual recipe for it, {USUAL}.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATA] KEY=VALUE",
            autocompletion=complete.overrides,
            help="The pictures, and any field of the recipe: data=PATH, seed=1, lr=1e-4,"
            " stages.1.epochs=5 …; --seed 1 is the same.",
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

    if resume and out is not None:
        raise UsageError(
            "a training goes on in its own folder",
            where="--out",
            mend="leave it out, or start a new training from the run's recipe.yaml",
        )
    recipe, changes = recipe_and_overrides([recipe, *(overrides or [])], context)
    if dry_run:
        if resume:
            raise UsageError("a dry run plans a new training", where="--dry-run --resume")
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
                **({"parts": [part.folder for part in run.parts]} if run.parts else {}),
                "report": page if page.is_file() else None,
                "figures": run.figures,
                "skipped": run.skipped,
            }
        )
    else:
        figures(run.figures)
        for model in [run.best] if run.best is not None else [part.best for part in run.parts]:
            say(f"model   {visible(model)}")
        if page.is_file():
            say(f"report  {visible(page)}")
    end_with(run.skipped, str(run.folder / "environment.json"))


def _show(plan: Plan, *, as_json: bool) -> None:
    """What a dry run found, on standard output."""
    if as_json:
        print_json(plan.as_dict())
        return
    for line in plan.lines():
        say(visible(line))


def recipe_and_overrides(
    words: Sequence[str], context: typer.Context
) -> tuple[str, dict[str, Any]]:
    """The recipe and the overrides of a line in any order; a second path is the data."""
    from retinue.errors import UsageError
    from retinue.files import nearest

    alone, changes = sorted_words(words, context)
    if len(alone) > 1:
        path = Path(alone[1])
        if not path.exists() and len(path.parts) == 1 and not path.suffix:
            raise UsageError(
                f"{alone[1]!r} is no folder or table of pictures",
                where="second argument",
                mend=f"an override looks like key=value, for example seed=1; {nearest(path)}",
            )
        if "data" in changes or len(alone) > 2:
            other = alone[2] if len(alone) > 2 else changes["data"]
            raise UsageError(
                f"the data is given twice, {alone[1]!r} and {str(other)!r}",
                mend="give one folder or table; a folder may hold train/, val/ and test/",
            )
        changes["data"] = alone[1]
    if not alone and (data := changes.pop("data", None)) is not None:
        alone = [str(data)]
    if not alone:
        raise UsageError("no recipe is named", mend="retinue train finetune data=PHOTOS")
    return alone[0], changes
