"""`retinue data`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retinue.cli.options import Json, add
from retinue.cli.output import end_with, name_skipped, print_json, say, table
from retinue.text import visible

if TYPE_CHECKING:
    from retinue.data.check import CheckReport

EXAMPLES = (
    "Example: retinue data check photos/"
    "\n\n"
    "A table: retinue data check labels.csv images=photos/ --json"
)

app = typer.Typer(no_args_is_help=True, help="Look at a data set before it is trained on.")


@app.callback()
def _data() -> None:
    """Look at a data set before it is trained on."""


def check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder or a table.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Fields of the recipe's data section: images=PATH, format=table …",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="What the data is for: a recipe's task."),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(
            "--input-size",
            metavar="PIXELS",
            min=1,
            help="Side of the network's input, at which marked objects are measured.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """What is wrong or remarkable in a data set; never stops at one file.

    Finds unreadable pictures (each is decoded), odd formats and how they are handled, duplicates
    across splits, tiny pictures, imbalance, empty classes, labels without pictures and the reverse;
    of objects marked in them: how many and how large, and marks that make no sense.
    Exit code 1 if training would refuse the data set, 3 if pictures cannot be read.
    """
    from retinue import api
    from retinue.run.log import console

    options = _options(overrides or [])
    with console(None) as bar:
        bar.begin("looking at the images", 0)

        def tell(done: int, total: int) -> None:
            if not done:
                bar.begin("looking at the images", total)
            bar.advance(done)

        found = api.check_data(path, task=task, progress=tell, input_size=side, **options)
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)
    if found.refused:
        name_skipped(found.unreadable)
        raise typer.Exit(1)
    end_with(found.unreadable)


def _show(found: CheckReport) -> None:
    for note in found.notes:
        say(visible(note))
    rows = [[str(cell) for cell in row] for row in found.rows()]
    table(["what", "count", "detail"], rows, right="count")


def _options(overrides: list[str]) -> dict[str, Any]:
    """Fields of `DataOptions`; dots reach nested ones (`split.train=0.9`)."""
    from retinue.data.options import DataOptions
    from retinue.errors import UsageError
    from retinue.options.overrides import parse_override
    from retinue.options.refusal import validated

    given = {key.removeprefix("data."): v for key, v in map(parse_override, overrides)}
    if {"path", "data"} & set(given):
        raise UsageError("the path is given already", where="key path", mend="give one path")
    return validated(DataOptions, given, "the options")


add(app, "check", check, EXAMPLES)
