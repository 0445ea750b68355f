"""`retinue export`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from retinue.cli.options import Json, Model
from retinue.cli.output import print_json, say

EXAMPLES = (
    "Example: retinue export runs/finetune --to onnx"
    "\n\n"
    "For images of one size, in 16 bits: retinue export best.safetensors --to openvino "
    "--size 256x192 --precision fp16"
    "\n\n"
    "For timm: retinue export best.safetensors --to timm --out flowers.pth"
)


class Format(StrEnum):
    """The formats."""

    onnx = "onnx"
    openvino = "openvino"
    torchscript = "torchscript"
    torch_export = "torch-export"
    litert = "litert"


_OTHERS = ("timm", "torchvision", "savedmodel", "keras", "coreml")
Target = StrEnum(  # type: ignore[misc]
    "Target", {one.name: one.value for one in Format} | {name: name for name in _OTHERS}
)
"""What is written: a format, or a library's state dict; and what is written elsewhere."""


class Numbers(StrEnum):
    """In what numbers an export computes."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


def export(
    model: Model,
    to: Annotated[
        Target, typer.Option("--to", help="The format; timm and torchvision: a state dict.")
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="By default beside the model."),
    ] = None,
    precision: Annotated[
        Numbers, typer.Option("--precision", help="The numbers that it computes in.")
    ] = Numbers.fp32,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, metavar="N", help="Always N at a time; default: any."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="HxW", help="Of the images, 256x192 say; any; default: the model's."
        ),
    ] = None,
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end", help="Takes whole uint8 images, gives answers: all in one graph."
        ),
    ] = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="SOURCE",
            help="Proven on these, as of predict; repeatable; default: the model's own.",
        ),
    ] = None,
    most_lost: Annotated[
        float,
        typer.Option(
            "--most-lost", min=0, metavar="SHARE", help="What int8 may cost of the main figure."
        ),
    ] = 0.02,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model in another program's format.

    The file is read back from disk before it takes its name, and must answer real images as the
    model does, from the image file on; otherwise nothing is written. It says of itself what it
    answers, so `retinue predict FILE photo.jpg` works, and NAME.proof.json beside it says how near
    it is. For timm and torchvision the tensors are written as a state dict.
    """
    from retinue import api

    sides: Any = None if size is None else _sides(size)
    done = api.export(
        model, to.value, out=out, force=force, precision=precision.value, batch=batch, size=sides,
        end_to_end=end_to_end, images=images or None, most_lost=most_lost,
    )  # fmt: skip
    if as_json:
        print_json(done.as_dict())
        return
    for line in done.lines():
        say(line)


def _sides(text: str) -> int | tuple[int, int] | str:
    """`224`, `256x192` (height, width), `any`."""
    from retinue.errors import UsageError

    parts = text.lower().replace("×", "x").split("x")
    if text.lower() == "any":
        return "any"
    if len(parts) > 2 or not all(
        part.isascii() and part.isdecimal() and int(part) for part in parts
    ):
        raise UsageError(
            f"{text!r} is no size", where="--size", mend="say 224, 256x192 (height first), or any"
        )
    sides = tuple(map(int, parts))
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])
