"""`retinue predict`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from retinue.cli.options import BatchSize, Device, Engine, EngineChoice, Json, Model, TtaChoice
from retinue.cli.output import end_with, print_json, say
from retinue.text import counted, visible

if TYPE_CHECKING:
    from retinue.sample import Result

EXAMPLES = (
    "Example: retinue predict best.safetensors photo.jpg"
    "\n\n"
    "A folder, to files: retinue predict runs/finetune photos/ --out answers --draw"
    "\n\n"
    "From a pipe: find . -name '*.jpg' -print0 | retinue predict runs/finetune - --json"
)


class OnBadImage(StrEnum):
    """What becomes of a picture that cannot be read."""

    skip = "skip"
    stop = "stop"


def predict(
    model: Model,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Files, folders, patterns, @list.txt, or - for paths on standard input.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="Write the predictions to this folder."),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Of the list in --out: jsonl, csv, tsv, txt, parquet; where the answers have"
            " places, also voc, coco, yolo.",
        ),
    ] = "jsonl",
    draw: Annotated[
        bool, typer.Option("--draw", help="Also write the pictures with the answers drawn in.")
    ] = False,
    on_bad_image: Annotated[
        OnBadImage, typer.Option("--on-bad-image", help="Skip unreadable pictures, or stop.")
    ] = OnBadImage.skip,
    tta: Annotated[
        TtaChoice | None,
        typer.Option("--tta", help="Views that are averaged; by default as the model says."),
    ] = None,
    engine: Engine = EngineChoice.auto,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Recognise what is in pictures.

    Without --out, an answer a line on standard output: the path, then names and scores; with
    --json, a JSON object a line.
    """
    from retinue import api
    from retinue.errors import UsageError

    if draw and out is None:
        raise UsageError("--draw needs a folder to draw into", where="--draw", mend="add --out DIR")
    done = api.predict(
        model,
        sources,
        out=out,
        format=format,
        draw=draw,
        tta=tta.value if tta is not None else None,
        engine=engine.value,
        device=device,
        batch_size=batch_size,
        on_bad_image=on_bad_image.value,
        each=(_print_json if as_json else _print) if out is None else None,
    )
    if not done.images and not done.skipped:
        typer.echo("nothing was predicted: the list names no files", err=True)
    if out is not None and as_json:
        print_json({"images": done.images, "files": done.files, "skipped": done.skipped})
    elif out is not None:
        say(counted(done.images, "image"))
        for file in done.files:
            say(f"  {visible(file)}")
    end_with(done.skipped, None if out is None else f"{out}/skipped.jsonl")


def _print_json(result: Result) -> None:
    from retinue.inference.forms import json_line

    typer.echo(json_line(result.as_dict()), nl=False)


def _print(result: Result) -> None:
    answers = (f"{visible(name)} {score:.1%}" for name, score in result.answers())
    fields = [visible(result.path), *answers]
    say("\t".join(fields))
