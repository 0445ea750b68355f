"""`retinue evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from retinue.cli.options import (
    BatchSize,
    Device,
    Engine,
    EngineChoice,
    Json,
    Model,
    Precision,
    PrecisionChoice,
    TtaChoice,
)
from retinue.cli.output import end_with, figures, print_json, say
from retinue.text import visible

EXAMPLES = (
    "Example: retinue evaluate runs/finetune"
    "\n\n"
    "Other data: retinue evaluate best.safetensors more-photos/ --json"
)


def evaluate(
    model: Model,
    photos: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="Folder, table or file; default: the run's own.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH", help="The same as DATA.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="SPLIT",
            help="train, val or test; auto: the first of test, val, train.",
        ),
    ] = "auto",
    engine: Engine = EngineChoice.auto,
    precision: Precision = PrecisionChoice.fp32,
    tta: Annotated[
        TtaChoice | None,
        typer.Option(
            "--tta",
            help="Average over views; default: as the model was judged.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="Write metrics.json and predictions."),
    ] = None,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """The figures of a model on labelled pictures."""  # fmt: skip
    from retinue import api

    _check_split(split)
    data = _one(photos, data)
    judged = api.evaluate(
        model,
        data=data,
        split=split,  # type: ignore[arg-type]
        engine=engine.value,
        precision=precision.value,
        tta=None if tta is None else tta.value,
        out=out,
        device=device,
        batch_size=batch_size,
        quiet=False,
    )
    if as_json:
        print_json(judged)
    else:
        figures(judged, own=data is None)
        if out is not None:
            say(f"written to {visible(out)}")
    end_with(judged.get("skipped") or {}, None if out is None else f"{out}/metrics.json")


def _one(photos: str | None, data: str | None) -> str | None:
    """The data, given in one of two places."""
    from retinue.errors import UsageError

    if photos is not None and data is not None:
        raise UsageError(
            f"the data is given twice, {photos!r} and {data!r}",
            where="--data",
            mend="give one folder or table",
        )
    return data if photos is None else photos


def _check_split(split: str) -> None:
    from retinue.errors import UsageError, suggest

    known = ("auto", "train", "val", "test")
    if split not in known:
        mend = suggest(split, known) or f"there are {', '.join(known)}"
        raise UsageError(f"unknown split {split!r}", where="--split", mend=mend)
