"""`retinue export`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from retinue.cli.options import Json, Model
from retinue.cli.output import print_json, say
from retinue.text import few, visible

EXAMPLES = (
    "Example: retinue export runs/finetune --to timm"
    "\n\n"
    "As a pickle: retinue export best.safetensors --to torchvision --out flowers.pth"
)


class Target(StrEnum):
    """Who will read what is written."""

    timm = "timm"
    torchvision = "torchvision"


def export(
    model: Model,
    to: Annotated[Target, typer.Option("--to", help="The library that will load the file.")],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help=".safetensors, .pth or .pt; default: NAME.LIBRARY.safetensors beside the model.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model's tensors as a state dict that timm or torchvision loads.

    The file is read back before it takes its name, and must give the very same tensors. What is
    printed says which network to build there, and ends with code that prepares images for it.
    """
    from retinue import api
    from retinue.exporting import preparing

    exported = api.export(model, to.value, out=out, force=force)
    if as_json:
        print_json(exported.as_dict())
        return
    say(visible(exported.path))
    say(f"  network       {exported.construction.code()}")
    say(f"  weights       network.load_state_dict({visible(exported.load())})")
    say(f"  images        {preparing.words(exported.preprocessing)}")
    say(f"  classes       {few(exported.classes, 5)}")
    if exported.temperature != 1.0:
        say(f"  scores        softmax of the logits divided by {exported.temperature:.6g}")
    if exported.tta != "none":
        say(f"  answers       of one view; retinue's are means over several, tta={exported.tta}")
    say("")
    say(exported.prepare())
