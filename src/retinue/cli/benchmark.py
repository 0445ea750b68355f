"""`retinue bench formats`, which was `retinue benchmark` before there were others."""

from __future__ import annotations

from typing import Annotated

import typer

from retinue.cli.export import Format, Numbers
from retinue.cli.options import Json, Model
from retinue.cli.output import print_json, say, table
from retinue.text import visible

EXAMPLES = (
    "Example: retinue bench formats runs/finetune"
    "\n\n"
    "Two formats in two precisions: retinue bench formats best.safetensors --to onnx --to openvino "
    "--precision fp32 --precision int8"
)


def benchmark(
    model: Model,
    to: Annotated[
        list[Format] | None,
        typer.Option("--to", help="Only this format; repeatable; default: all."),
    ] = None,
    precision: Annotated[
        list[Numbers] | None, typer.Option("--precision", help="Repeatable; default: fp32.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="SOURCE",
            help="Measured on these, as of predict; repeatable; default: the model's own.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the formats and engines on this machine: size, latency, throughput, agreement.

    Latency is of one image, throughput of up to 16 at a time, both from decoded pixels to the
    answer, on the CPU. What computes, and in what numbers, is what the libraries tell.
    """
    from retinue import api

    rows = api.benchmark(
        model,
        formats=[one.value for one in to] if to else None,
        precisions=[one.value for one in precision] if precision else ("fp32",),
        images=images or None,
    )
    if as_json:
        print_json([row.as_dict() for row in rows])
        return
    headings = "format precision engine provider computes MB ms images/s error"
    table(
        headings.split(),
        [
            [
                row.format, row.precision, row.engine, row.provider, row.computes,
                _shown(row.bytes / 1e6, ",.1f"), _shown(row.latency_ms, ",.2f"),
                _shown(row.images_per_second, ",.1f"), _shown(row.error, ".1e"),
            ]
            for row in rows
            if not row.why
        ],
        right="MB ms images/s error",
    )  # fmt: skip
    for row in rows:
        if row.why:
            say(f"{row.format}, {row.precision}, {row.engine}: {visible(row.why)}")


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
