"""`retinue data`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    as_json: Json = False,
) -> None:
    """What is wrong or remarkable in a data set; never stops at one file.

    Finds unreadable pictures (each is decoded), odd formats and how they are handled, duplicates
    across splits, tiny pictures, imbalance, empty classes, labels without pictures and the reverse.
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

        found = api.check_data(path, task=task, progress=tell, **options)
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
    from pydantic import ValidationError

    from retinue.data.options import DataOptions
    from retinue.errors import UsageError, suggest
    from retinue.training.recipe import parse_override

    options: dict[str, Any] = {}
    for key, value in map(parse_override, overrides):
        *outer, last = key.removeprefix("data.").split(".")
        if [*outer, last] == ["path"]:
            raise UsageError("the path is given already", where="key path", mend="give one path")
        inner = options
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = value
    try:
        DataOptions.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        known = suggest(str(first["loc"][-1]), _fields(first["loc"][:-1]))
        unknown = first["type"] == "extra_forbidden"
        what = "unknown key" if unknown else first["msg"].removeprefix("Value error, ")
        raise UsageError(what, where=f"key {key}", mend=known if unknown else None) from None
    return options


def _fields(place: Sequence[int | str]) -> Iterable[str]:
    """The keys of `DataOptions`, or of the options at this place in it."""
    from retinue.data.options import DataOptions

    fields = DataOptions.model_fields
    for key in place:
        fields = getattr(fields[str(key)].annotation, "model_fields", {})
    return fields


add(app, "check", check, EXAMPLES)
