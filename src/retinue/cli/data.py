"""`retinue data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retinue.cli.options import Json, add
from retinue.cli.output import end_with, name_skipped, print_json, say, table, telling
from retinue.text import visible

if TYPE_CHECKING:
    from retinue.data.check import CheckReport

EXAMPLES = (
    "Example: retinue data check photos/"
    "\n\n"
    "A table: retinue data check labels.csv images=photos/ --json"
)

app = typer.Typer(no_args_is_help=True, help="Check, convert and view data sets.")


Where = Annotated[str, typer.Argument(metavar="PATH", help="A folder, table or file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Fields of the recipe's data section: images=PATH, format=csv, on_bad_image=skip …",
        show_default=False,
    ),
]


@app.callback()
def _data() -> None:
    """Check, convert and view data sets."""


def check(
    path: Where,
    overrides: Overrides = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="TASK",
            help="What the data is for: a recipe's task; by default it is recognised.",
        ),
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
        tell = telling(bar, "looking at the images")
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
    from retinue.options.overrides import parse_overrides
    from retinue.options.refusal import validated

    given = parse_overrides(overrides, "data.")
    if {"path", "data"} & set(given):
        raise UsageError("the path is given already", where="key path", mend="give one path")
    return validated(DataOptions, given, "the options")


def view(
    path: Where,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="A new folder; by default NAME-view here."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="What the data is for; recognised by default."),
    ] = None,
    side: Annotated[
        int,
        typer.Option("--side", metavar="PIXELS", min=32, max=2048, help="Of the small pictures."),
    ] = 320,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the view of other data that lies there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a page on which a data set can be looked through in a browser.

    Small pictures with their labels or what is marked in them, by class, split and name, however
    many images there are. The page needs no server and asks nobody on the network; the same command
    makes it anew, and takes the pictures of files that have not changed as they are.
    """
    from retinue import api
    from retinue.run.log import console

    with console(None) as bar:
        tell = telling(bar, "looking at the images")
        made = api.view_data(
            path, out, task=task, side=side, force=force, progress=tell,
            **_options(overrides or []),
        )  # fmt: skip
    if as_json:
        print_json({"page": made.page, "images": made.images, "unreadable": made.unreadable,
                    "notes": made.notes})  # fmt: skip
    else:
        for note in made.notes:
            say(visible(note))
        say(visible(made.page))
    end_with(made.unreadable, str(made.page))


def convert(
    source: Where,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A new folder.")],
    overrides: Overrides = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="FORMAT", help="tfrecord, webdataset, voc, coco, yolo or csv."
        ),
    ] = "coco",
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the pictures; by default they are linked.")
    ] = False,
    megabytes: Annotated[
        float | None,
        typer.Option(
            "--shard-mb", metavar="MB", min=0.001, help="About the size of a shard; by default 128."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a data set in another format: images with a class as shards, marked objects as files.

    Into tfrecord and webdataset, images that have a class each are copied as they are, several
    shards at a time; an interrupted conversion goes on when it is started again.
    What the format cannot hold is named and counted. Marks that make no sense are refused, as in
    training; on_bad_image=skip leaves them out. Splits stay as they are. Where the data has none,
    YOLO's get those that a training would draw, the other formats with split.seed=0.
    """
    from retinue import api
    from retinue.run.log import console

    given = _options(overrides or [])
    with console(None) as bar:
        tell = telling(bar, "writing the images")
        done = api.convert_data(
            source, out, to, copy=copy, megabytes=megabytes, progress=tell, **given
        )
    if as_json:
        print_json(done.as_dict())
        return
    for note in done.notes:
        say(visible(note))
    for what, number in done.lost.items():
        say(f"lost: {what} ({number:,})")
    say(done.told())


def anchors(
    path: Where,
    overrides: Overrides = None,
    side: Annotated[
        int | None,
        typer.Option("--input-size", metavar="PIXELS", min=1, help="Side of the network's input."),
    ] = None,
    levels: Annotated[int, typer.Option("--levels", min=1, help="Maps of the network.")] = 3,
    each: Annotated[int, typer.Option("--each", min=1, help="Anchors for each of them.")] = 3,
    plot: Annotated[
        str | None, typer.Option("--plot", metavar="FILE", help="Write a PNG of sizes and anchors.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Which anchors fit the objects of a data set, and how well.

    Clusters of the sizes that the training objects have at the network's input.
    """
    from retinue import api

    found = api.fit_anchors(
        path, input_size=side, levels=levels, each=each, plot=plot, **_options(overrides or [])
    )
    if as_json:
        print_json(found.as_dict())
        return
    for line in (*found.notes, *found.doubts):
        say(visible(line))
    table(["what", "value"], [list(row) for row in found.rows()])
    if plot is not None:
        say(f"written to {visible(plot)}")


add(app, "check", check, EXAMPLES)
add(
    app,
    "view",
    view,
    "Example: retinue data view photos/ --out photos-view"
    "\n\n"
    "A table: retinue data view labels.csv images=photos/",
)
add(
    app,
    "convert",
    convert,
    "Example: retinue data convert marked/ coco/ --to coco"
    "\n\n"
    "Shards: retinue data convert photos/ shards/ --to tfrecord",
)
add(app, "anchors", anchors, "Example: retinue data anchors photos/ --input-size 640")
