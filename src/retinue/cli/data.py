"""`retinue data`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from retinue.cli.options import Json, add
from retinue.cli.output import end_with, print_json, say, table
from retinue.report.text import visible

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
    as_json: Json = False,
) -> None:
    """What is wrong or remarkable in a data set; never stops at one file.

    Finds unreadable pictures (each is decoded), odd formats and how they are handled, duplicates
    across splits, tiny pictures, imbalance, empty classes, labels without pictures and the reverse.
    Exit code 3 if pictures cannot be read.
    """
    from retinue import api
    from retinue.training.recipe import parse_override

    options = {k.removeprefix("data."): v for k, v in map(parse_override, overrides or [])}
    found = api.check_data(path, **options)
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)
    end_with(_unreadable(found))


add(app, "check", check, EXAMPLES)


def _show(found: Any) -> None:
    """`found`: a `retinue.data.check.CheckReport`."""
    rows = [[str(cell) for cell in row] for row in found.rows()]
    table(["what", "count", "detail"], rows, right="count")
    say(f"checked {visible(found.path)}")


def _unreadable(found: Any) -> dict[str, str]:
    return dict(found.unreadable)
