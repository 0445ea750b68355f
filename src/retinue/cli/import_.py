"""`retinue import`."""

from __future__ import annotations

from typing import Annotated

import typer

from retinue.cli.output import say
from retinue.text import visible

EXAMPLES = "Example: retinue import yolov3-tiny.cfg yolov3-tiny.weights --names coco.names"


def import_(
    description: Annotated[
        str, typer.Argument(metavar="NET.cfg", help="The file that describes the network.")
    ],
    weights: Annotated[
        str, typer.Argument(metavar="NET.weights", help="The file that holds its numbers.")
    ],
    names: Annotated[
        str | None, typer.Option("--names", metavar="FILE", help="The classes, one a line.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="By default beside the weights: NAME.safetensors."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Make a model file of a network that another program has trained: Darknet.

    It can be evaluated, used and trained on like any other model.
    """
    from retinue import api

    say(visible(api.import_model(description, weights, names=names, out=out, force=force)))
