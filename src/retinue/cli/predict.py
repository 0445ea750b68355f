"""`retinue predict`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from retinue.cli.options import (
    BatchSize,
    Changes,
    Device,
    Json,
    Model,
    OnBadImage,
    Precision,
    PrecisionChoice,
    TtaChoice,
)
from retinue.cli.output import end_with, print_json, say
from retinue.text import counted, visible

if TYPE_CHECKING:
    from retinue.api import EngineName
    from retinue.sample import Result

EXAMPLES = (
    "Example: retinue predict best.safetensors photo.jpg"
    "\n\n"
    "A folder, to files: retinue predict runs/finetune photos/ --out answers --draw"
    "\n\n"
    "From a pipe: find . -name '*.jpg' -print0 | retinue predict runs/finetune - --json"
)


class PredictEngine(StrEnum):
    """What runs the network, or sees to it."""

    auto = "auto"
    torch = "torch"
    onnxruntime = "onnxruntime"
    openvino = "openvino"
    ray = "ray"


def predict(
    model: Model,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Files, folders, patterns, @list.txt, - for paths on standard input; videos,"
            " camera:0, rtsp://…",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="Write the predictions to this folder."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="How the list in --out is written: jsonl (the default), csv, tsv, txt, parquet;"
            " where the answers have places, also voc, coco, yolo.",
        ),
    ] = None,
    draw: Annotated[
        bool, typer.Option("--draw", help="Also write the pictures with the answers drawn in.")
    ] = False,
    crops: Annotated[
        bool, typer.Option("--crops", help="Also cut out what was found, a folder a class.")
    ] = False,
    heatmap: Annotated[
        bool, typer.Option("--heatmap", help="Also write the pictures with the evidence on them.")
    ] = False,
    count: Annotated[bool, typer.Option("--count", help="Count what was found.")] = False,
    zones: Annotated[
        str | None,
        typer.Option("--zones", metavar="FILE", help="Count in these zones, across these lines."),
    ] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Follow things through videos and number them.")
    ] = False,
    every: Annotated[
        int,
        typer.Option(
            "--every", min=1, metavar="N", help="Of videos, look at every N-th frame only."
        ),
    ] = 1,
    tiles: Annotated[
        int | None,
        typer.Option("--tiles", metavar="PIXELS", help="Also look at tiles with this side."),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            "--overlap", metavar="SHARE", help="How much of a tile the next one repeats; 0.2."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="FILE", help="Keep the ids of this COCO file."),
    ] = None,
    changes: Changes = None,
    fps: Annotated[
        int | None,
        typer.Option(
            "--fps", min=1, metavar="N", help="Measure N runs, by stages, and answer nothing."
        ),
    ] = None,
    on_bad_image: Annotated[
        OnBadImage, typer.Option("--on-bad-image", help="Skip unreadable pictures, or stop.")
    ] = OnBadImage.skip,
    tta: Annotated[
        TtaChoice | None,
        typer.Option("--tta", help="Views that are joined; by default as the model says."),
    ] = None,
    engine: Annotated[
        PredictEngine,
        typer.Option(
            "--engine",
            help="What runs the network; auto takes the fastest. ray: several processes or"
            " machines, needs --out, goes on where it stopped.",
        ),
    ] = PredictEngine.auto,
    precision: Precision = PrecisionChoice.fp32,
    actors: Annotated[
        int | None,
        typer.Option("--actors", min=1, metavar="N", help="Of --engine ray: processes."),
    ] = None,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Recognise what is in pictures.

    Without --out, an answer a line on standard output: the path, then the three best names with
    their scores and places, and how many more there are; with --json, all of it, an object a line.
    """
    from retinue import api
    from retinue.errors import UsageError
    from retinue.inference.forms import json_line
    from retinue.options.overrides import parse_overrides

    options = parse_overrides(changes or [])
    needing: dict[str, Any] = {
        "draw": draw, "crops": crops, "heatmap": heatmap, "format": format,
        "reference": reference,
    }  # fmt: skip
    if fps is not None:
        _refuse_beside_fps({
            "out": out, **needing, "count": count, "zones": zones, "track": track,
            "every": every > 1, "tiles": tiles, "overlap": overlap is not None,
            "engine ray": engine is PredictEngine.ray, "actors": actors is not None,
        })  # fmt: skip
        spent = api.speed(
            model, sources, runs=fps, engine=cast("EngineName", engine.value), device=device,
            tta=tta.value if tta is not None else None, options=options,
            precision=precision.value,
        )  # fmt: skip
        print_json(spent) if as_json else _say_speed(spent)
        return
    needing["engine ray"] = engine is PredictEngine.ray
    for name, wished in needing.items():
        if wished and out is None:
            raise UsageError(
                f"--{name} needs a folder to write to", where=f"--{name}", mend="add --out DIR"
            )
    if overlap is not None and tiles is None:
        raise UsageError(
            "there are no tiles that could overlap", where="--overlap", mend="add --tiles PIXELS"
        )
    tiling: dict[str, Any] = {} if overlap is None else {"overlap": overlap}
    done = api.predict(
        model,
        sources,
        out=out,
        format=format or "jsonl",
        draw=draw,
        tta=tta.value if tta is not None else None,
        engine=engine.value,
        precision=precision.value,
        device=device,
        batch_size=batch_size,
        on_bad_image=on_bad_image.value,
        each=(_print_json if as_json else _print) if out is None else None,
        reference=reference,
        crops=crops,
        count=count,
        places=zones,
        heatmap=heatmap,
        tiles=tiles,
        track=track,
        every=every,
        options=options,
        actors=actors,
        **tiling,
    )
    if not done.images and not done.skipped:
        typer.echo("nothing was predicted: the list names no files", err=True)
    if out is not None and as_json:
        counts = {} if done.counts is None else {"counts": done.counts}
        files = {"files": done.files, "skipped": done.skipped}
        print_json({"images": done.images, "frames": done.frames, **files, **counts})
    elif as_json and done.counts is not None:
        say(json_line({"counts": done.counts}).rstrip())
    elif done.counts is not None:
        _say_counts(done.counts)
    if out is not None and not as_json:
        say(done.looked_at())
        for file in done.files:
            say(f"  {visible(file)}{os.sep if file.is_dir() else ''}")
    kept = done.files[0] if engine is PredictEngine.ray else f"{out}/skipped.jsonl"
    end_with(done.skipped, None if out is None else str(kept))


def _refuse_beside_fps(wishes: Mapping[str, Any]) -> None:
    """Raise UsageError for the first option that was given and has no effect there."""
    from retinue.errors import UsageError

    for name, wished in wishes.items():
        if wished:
            raise UsageError(
                f"--fps measures and answers nothing: --{name} has no effect",
                where=f"--{name}",
                mend="leave one of them out",
            )


def _print_json(result: Result) -> None:
    from retinue.inference.forms import json_line

    typer.echo(json_line(result.as_dict()), nl=False)


def _print(result: Result) -> None:
    say("\t".join(visible(field) for field in (result.called(), *result.told())))


def _say_speed(spent: Mapping[str, Any]) -> None:
    for stage in ("decode", "preprocess", "network", "postprocess"):
        say(f"  {stage:<14}{spent[f'{stage}_ms']:>10,.2f} ms")
    say(f"  {'all':<14}{spent['milliseconds']:>10,.2f} ms   {spent['fps']:,.4g} images a second")
    views = f", {spent['views']} views each" if spent["views"] > 1 else ""
    say(
        f"medians of {counted(spent['runs'], 'run')} over {counted(spent['images'], 'image')},"
        f" one after the other; {spent['engine']} on {spent['device']}{views}"
    )


def _say_counts(counts: Mapping[str, Any]) -> None:
    """Each total on a line."""

    def lines(told: Mapping[str, Any], before: str) -> None:
        for key, value in told.items():
            name = f"{before}{visible(key)}"
            if isinstance(value, Mapping):
                lines(value, f"{name}  ")
            else:
                say(f"{name}  {value:,}" if isinstance(value, int) else f"{name}  {visible(value)}")

    lines({key: value for key, value in counts.items() if key != "videos"}, "")
    for video in counts.get("videos", []):
        lines(video, "")
