"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from retinue.cli import complete

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        autocompletion=complete.recipes,
        help="A shipped recipe's name, a YAML file, or pictures.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATA] KEY=VALUE",
        autocompletion=complete.overrides,
        help="The pictures, and any field of the recipe, as for `train`.",
        show_default=False,
    ),
]


class EngineChoice(StrEnum):
    """What runs the network."""

    auto = "auto"
    torch = "torch"
    onnxruntime = "onnxruntime"
    openvino = "openvino"


class PrecisionChoice(StrEnum):
    """In what numbers the network computes."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class TtaChoice(StrEnum):
    """Test-time augmentation: the views whose answers are averaged."""

    none = "none"
    flip = "flip"
    dihedral = "dihedral"


class OnBadImage(StrEnum):
    """What becomes of a picture that cannot be read."""

    skip = "skip"
    stop = "stop"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model file (best.safetensors) or a run folder.",
        autocompletion=complete.models,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the outcome.")]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")
]
Engine = Annotated[
    EngineChoice, typer.Option("--engine", help="What runs the network; auto takes the fastest.")
]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(
        "--precision",
        help="bf16 where that is faster here; int8, whose cost is told. A little is lost.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change what is answered: confidence=0.3, say; repeatable.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")]


def add(
    app: typer.Typer,
    name: str,
    function: Callable[..., Any],
    examples: str,
    settings: dict[str, Any] | None = None,
    *,
    hidden: bool = False,
) -> None:
    """Make `function` the command `name`; its docstring is the help, each paragraph flowing.
    `settings`: Click's, of its context. `hidden`: an older name, which still works."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    made = app.command(name, help=text, epilog=examples, context_settings=settings, hidden=hidden)
    made(function)
