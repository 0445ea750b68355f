"""`retinue explain`."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from retinue.cli.options import Device, Json, Model, OnBadImage
from retinue.cli.output import end_with, print_json, say
from retinue.text import counted, visible

if TYPE_CHECKING:
    from retinue.explaining.explained import Explained

EXAMPLES = (
    "Example: retinue explain best.safetensors photo.jpg --out why"
    "\n\n"
    "What speaks for another class: retinue explain runs/finetune photo.jpg --target tulip -o why"
    "\n\n"
    "Side by side: retinue explain runs/b0 photos/ --beside runs/b4 --out why"
)


class Method(StrEnum):
    """How it is found out."""

    auto = "auto"
    gradcam = "gradcam"
    gradcam_plus_plus = "gradcam++"
    scorecam = "scorecam"
    rollout = "rollout"
    heatmap = "heatmap"


class Sheet(StrEnum):
    """What the network holds."""

    kernels = "kernels"
    features = "features"
    positions = "positions"


def explain(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE…",
            help="Files, folders, patterns, @list.txt, - for paths on standard input.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Write the pictures to this folder.")
    ],
    method: Annotated[
        list[Method] | None,
        typer.Option(
            "--method",
            help="By default what suits the network; several stand side by side.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="CLASS", help="What speaks for it; default: for the best class."
        ),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside", metavar="MODEL", help="Another model, shown beside the first; repeatable."
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Whether it matters: the score as those pixels go, and as they come."
        ),
    ] = False,
    sheet: Annotated[
        list[Sheet] | None,
        typer.Option(
            "--sheet",
            help="Also draw the first layer's kernels, the maps of each level for an image, or how"
            " alike a transformer's positions are.",
            show_default=False,
        ),
    ] = None,
    on_bad_image: Annotated[
        OnBadImage, typer.Option("--on-bad-image", help="Skip unreadable pictures, or stop.")
    ] = OnBadImage.skip,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Show what a model's answer rests on.

    Writes each picture with colours on it: red where it holds most of what speaks for the class,
    blue where nothing does.
    """
    from retinue import api

    done = api.explain(
        model,
        images,
        out=out,
        method=[one.value for one in method or [Method.auto]],
        target=target,
        beside=beside or [],
        check=check,
        sheets=[one.value for one in sheet or []],
        device=device,
        on_bad_image=on_bad_image.value,
        each=None if as_json else _print,
    )
    if as_json:
        told = [one.as_dict() for one in done.results]
        print_json({"images": told, "files": done.files, "skipped": done.skipped})
    else:
        say(counted(done.images, "image"))
        for file in done.files:
            say(f"  {visible(file)}{os.sep if file.is_dir() else ''}")
    end_with(done.skipped, f"{out}/skipped.jsonl")


def _print(explained: Explained) -> None:
    say("\t".join(visible(field) for field in (explained.called(), *explained.told())))
