"""`retinue soup` and `retinue ensemble`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from retinue.cli import complete
from retinue.cli.options import Device, Json, Quiet
from retinue.cli.output import print_json, say, table
from retinue.text import visible

if TYPE_CHECKING:
    from retinue.training.combining import Combined

SOUP_EXAMPLES = (
    "Example: retinue soup runs/finetune runs/finetune-2 runs/finetune-3 --out soup.safetensors"
)
ENSEMBLE_EXAMPLES = "Example: retinue ensemble runs/lite0 runs/resnet50 --out both.json"

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL MODEL…",
        help="Model files or run folders.",
        autocompletion=complete.models,
    ),
]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH", help="What is judged on; default: the first run's own."),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="FIGURE", help="What is to be best; default: the task's."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")]


def soup(
    models: Models,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The model file to be written.")
    ] = "soup.safetensors",
    data: Data = None,
    uniform: Annotated[
        bool, typer.Option("--uniform", help="The mean of all, whether they help or not.")
    ] = False,
    metric: Metric = None,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Average the weights of models of one network into one that is no slower.

    From the best down, each model stays that does not make the figure of the validation split
    worse.
    """
    from retinue.training import combining

    how: dict[str, Any] = {"metric": metric, "device": device, "force": force, "quiet": quiet}
    _show(combining.soup(models, out, data=data, uniform=uniform, **how), as_json=as_json)


def ensemble(
    models: Models,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The file to be written.")
    ] = "ensemble.json",
    data: Data = None,
    metric: Metric = None,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Have models answer together, each with the weight that suits the validation split.

    The file is a model to `evaluate` and `predict`.
    """
    from retinue.training import combining

    how: dict[str, Any] = {"metric": metric, "device": device, "force": force, "quiet": quiet}
    _show(combining.ensemble(models, out, data=data, **how), as_json=as_json)


def _show(made: Combined, *, as_json: bool) -> None:
    if as_json:
        members = [
            {"file": one.file, "figure": one.figure, "share": one.share} for one in made.members
        ]
        print_json(
            {
                "model": made.path,
                "metric": made.metric,
                "members": members,
                "figures": made.figures,
                "alike": made.alike,
            }
        )
        return
    rows = [
        [str(one.file), "–" if one.figure is None else f"{one.figure:.4f}", f"{one.share:.3f}"]
        for one in made.members
    ]
    table(["model", made.metric, "share"], rows, right=f"{made.metric} share")
    if made.figures:
        alike = f", all alike {made.alike[made.metric]:.4f}" if made.alike else ""
        say(f"{made.metric} {made.figures[made.metric]:.4f} on the validation split{alike}")
    say(f"model   {visible(made.path)}")
