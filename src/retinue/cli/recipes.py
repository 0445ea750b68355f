"""`retinue recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retinue.cli.complete import shipped
from retinue.cli.options import Json
from retinue.cli.output import print_json, say, table
from retinue.text import visible

EXAMPLES = "Example: retinue recipes finetune --copy mine.yaml"


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Show this recipe.",
            show_default=False,
            autocompletion=shipped,
        ),
    ] = None,
    copy: Annotated[
        Path | None,
        typer.Option("--copy", metavar="FILE", help="Copy the recipe to a new file, to edit it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the shipped recipes, show one, or copy one to edit."""
    from retinue.errors import UsageError
    from retinue.training import written_recipes as module

    if name is None:
        if copy is not None:
            raise UsageError("which recipe should be copied?", mend="put its name before --copy")
        headers = {known: module.header(text) for known, text in module.shipped().items()}
        if as_json:
            print_json([{"name": k, **about.model_dump()} for k, about in headers.items()])
            return
        table(
            ["recipe", "what", "cost", "figure"],
            [[known, about.title, about.cost, about.figure] for known, about in headers.items()],
        )
        return
    _, text = module.read_text(name)
    if copy is not None:
        _copy(text, copy)
        say(f"{name} → {visible(copy)}")
    elif as_json:
        from retinue.training.recipe import load_recipe  # the schema takes seconds to import

        print_json(load_recipe(name).model_dump(mode="json"))
    else:
        typer.echo(text, nl=False)


def _copy(text: str, target: Path) -> None:
    from retinue.errors import UsageError
    from retinue.files import write_text

    if target.is_dir():
        raise UsageError("this is a folder", where=str(target), mend="name a file, mine.yaml")
    if target.exists():
        raise UsageError("the file is there already", where=str(target), mend="choose another name")
    write_text(target, text)
