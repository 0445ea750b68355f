"""`retinue drift`."""

from __future__ import annotations

from typing import Annotated

import typer

from retinue.cli.options import Device, Engine, EngineChoice, Json, Model
from retinue.cli.output import end_with, print_json, say, table, telling
from retinue.text import visible

EXAMPLES = "Example: retinue drift runs/finetune last-week/"


def drift(
    model: Model,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="NEW", help="New pictures: files, folders, patterns, @list.txt."),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="OLD",
            help="Pictures to compare with; by default those that the run was trained on.",
        ),
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=20, help="Of either, at most so many are looked at.")
    ] = 500,
    engine: Engine = EngineChoice.auto,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Whether new pictures are like those that a model was trained on.

    Compares how they look (brightness, contrast, colour, sharpness, size), how sure the model is of
    them and what it answers, and says in a sentence each what has changed by more than chance.
    """
    from retinue import api
    from retinue.run.log import console

    with console(None) as bar:
        tell = telling(bar, "looking at the images")
        found = api.drift(
            model,
            sources,
            against=against,
            images=images,
            engine=engine.value,
            device=device,
            progress=tell,
        )
    if as_json:
        print_json(found.as_dict())
    else:
        for line in found.told():
            say(visible(line))
        rows = [
            [one.name, f"{one.known:.3g}", f"{one.new:.3g}", f"{one.distance:.2f}", one.verdict]
            for one in found.shifts
        ]
        if rows:
            table(["what", "training data", "new", "distance", "verdict"], rows)
    end_with(found.skipped)
