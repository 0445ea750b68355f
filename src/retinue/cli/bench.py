"""`retinue bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from retinue.cli import benchmark
from retinue.cli.line import TAKE_ANY
from retinue.cli.options import (
    BatchSize,
    Device,
    Engine,
    EngineChoice,
    Json,
    Model,
    Overrides,
    Quiet,
    Recipe,
    add,
)
from retinue.cli.output import print_json, say
from retinue.cli.train import recipe_and_overrides
from retinue.text import visible

if TYPE_CHECKING:
    from retinue.measuring.figures import Measured

app = typer.Typer(no_args_is_help=True, help="How fast the parts of the work are on this machine.")

Stage = Annotated[
    str | None,
    typer.Option("--stage", metavar="NAME", help="Stage to measure (default: the first)."),
]
Seconds = Annotated[float, typer.Option("--seconds", help="How long to measure, in seconds.")]
Images = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE...", help="Pictures, as for predict; the first 256 count."),
]


@app.callback()
def _bench() -> None:
    """How fast the parts of the work are on this machine."""


Bench = Callable[..., "Measured"]


def _of_training(bench: Callable[[], Bench]) -> Callable[..., None]:
    """A command that measures what a recipe trains. Its help is the docstring of `bench`, and need
    not wait for what that imports."""

    def command(
        context: typer.Context,
        recipe: Recipe,
        overrides: Overrides = None,
        stage: Stage = None,
        seconds: Seconds = 20.0,
        quiet: Quiet = False,
        as_json: Json = False,
    ) -> None:
        name, changes = recipe_and_overrides([recipe, *(overrides or [])], context)
        found = bench()(name, stage=stage, seconds=seconds, quiet=quiet, overrides=changes)
        _tell(found, as_json=as_json)

    command.__doc__ = bench.__doc__
    return command


def _of_model(bench: Callable[[], Bench]) -> Callable[..., None]:
    """The same for what a model answers."""

    def command(
        model: Model,
        images: Images,
        engine: Engine = EngineChoice.auto,
        device: Device = "auto",
        batch_size: BatchSize = 16,
        seconds: Seconds = 10.0,
        as_json: Json = False,
    ) -> None:
        from retinue.inference.inputs import expand

        found = bench()(
            model,
            expand(images, sys.stdin),
            batch_size=batch_size,
            engine=engine.value,
            device=device,
            seconds=seconds,
        )
        _tell(found, as_json=as_json)

    command.__doc__ = bench.__doc__
    return command


def train() -> Bench:
    """A training's steps: images a second, and the shares of waiting for images, colour, forward,
    backward and optimiser.

    Nothing stays of it. What the network's part comes to stands beside what a large matrix product
    reaches in the same run.
    """
    from retinue.measuring.training import bench_train

    return bench_train


def data() -> Bench:
    """A training's images without its steps: images a second as they are read ahead; in one
    thread, the shares of reading, decoding, rendering and colour.

    A training cannot be faster than that. `data.packed=auto` makes images small once.
    """
    from retinue.measuring.input import bench_data

    return bench_data


def predict() -> Bench:
    """Pictures to results: images a second; the shares of decoding, preprocessing, network and
    post-processing of one picture after the other; the network's FLOP a second."""
    from retinue.measuring.answering import bench_predict

    return bench_predict


def post() -> Bench:
    """What comes after the network alone: decoding and suppression of objects, or scores; merging
    of views and models; results."""
    from retinue.measuring.answering import bench_post

    return bench_post


def _tell(found: Measured, *, as_json: bool) -> None:
    if as_json:
        print_json(found.as_dict())
        return
    for line in found.lines():
        say(visible(line))


add(app, "train", _of_training(train), "Example: retinue bench train finetune photos/", TAKE_ANY)
add(
    app,
    "data",
    _of_training(data),
    "Example: retinue bench data finetune photos/ data.packed=auto",
    TAKE_ANY,
)
add(app, "predict", _of_model(predict), "Example: retinue bench predict runs/finetune photos/")
add(app, "post", _of_model(post), "Example: retinue bench post runs/finetune photos/")
add(app, "formats", benchmark.benchmark, benchmark.EXAMPLES)
