"""`retinue serve`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from retinue.cli import complete
from retinue.cli.options import (
    Changes,
    Device,
    Engine,
    EngineChoice,
    Precision,
    PrecisionChoice,
    TtaChoice,
)
from retinue.cli.output import say
from retinue.serving.keys import VARIABLE, read_keys
from retinue.serving.settings import MEBIBYTE, Settings

EXAMPLES = (
    "Example: retinue serve runs/finetune"
    "\n\n"
    "Two models, with pictures to try: retinue serve flowers=runs/finetune coco=coco.safetensors"
    " --samples photos/"
    "\n\n"
    "For others: retinue serve best.safetensors --host 0.0.0.0 --key-file keys.txt"
)
_DEFAULT = Settings()


class LogFormat(StrEnum):
    """How requests are noted on standard error."""

    auto = "auto"
    json = "json"
    text = "text"


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…",
            help="Model files or run folders; NAME=PATH to rename one.",
            autocompletion=complete.models,
        ),
    ],
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; 0.0.0.0: everywhere.")
    ] = _DEFAULT.host,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="0: any free port.")
    ] = _DEFAULT.port,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            metavar="FILE",
            help=f"API keys, one a line; or the variable {VARIABLE}, between commas.",
            show_default=False,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A host name that the server answers to; repeatable.",
        ),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples",
            metavar="DIR",
            help="Folder of pictures to try on the page.",
            show_default=False,
        ),
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch pictures from URLs in requests.")
    ] = False,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Most images in a batch.")
    ] = _DEFAULT.batch_size,
    latency: Annotated[
        float,
        typer.Option(
            "--latency",
            metavar="MS",
            min=0,
            help="Longest wait of an image for others to join its batch.",
        ),
    ] = 1000 * _DEFAULT.latency,
    queue: Annotated[
        int, typer.Option("--queue", min=1, help="Most images of a model in progress; beyond, 429.")
    ] = _DEFAULT.queue,
    max_mb: Annotated[
        int, typer.Option("--max-mb", min=1, help="Largest request body, in MiB.")
    ] = _DEFAULT.max_bytes // MEBIBYTE,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, help="Most pixels of a picture.")
    ] = _DEFAULT.max_pixels,
    max_images: Annotated[
        int, typer.Option("--max-images", min=1, help="Most pictures in a request.")
    ] = _DEFAULT.max_images,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="S", min=0.1, help="Seconds from the body to the answer."
        ),
    ] = _DEFAULT.answer_time,
    engine: Engine = EngineChoice.auto,
    precision: Precision = PrecisionChoice.fp32,
    tta: Annotated[
        TtaChoice | None,
        typer.Option(
            "--tta", help="Average over views; default: as the model file says.", show_default=False
        ),
    ] = None,
    changes: Changes = None,
    device: Device = "auto",
    log: Annotated[
        LogFormat, typer.Option("--log", help="Format of the request log on standard error.")
    ] = LogFormat.auto,
) -> None:
    """Answer over HTTP: POST /v1/predict, and a page to try it at /.

    A request is a picture, a form with pictures, or JSON with base64; /docs tells all addresses. A
    model file that is replaced is taken up without a pause. SIGTERM and Ctrl-C end it when every
    request under way is answered.
    """
    from retinue import api
    from retinue.options.overrides import parse_overrides

    settings = Settings(
        host=host,
        port=port,
        keys=read_keys(key_file),
        hosts=tuple(allow_host or ()),
        samples=samples,
        urls=allow_urls,
        batch_size=batch_size,
        latency=latency / 1000,
        queue=queue,
        max_bytes=max_mb * MEBIBYTE,
        max_pixels=max_pixels,
        max_images=max_images,
        answer_time=timeout,
    )
    api.serve(
        models,
        settings=settings,
        device=device,
        engine=engine.value,
        precision=precision.value,
        tta=None if tta is None else tta.value,
        options=parse_overrides(changes or []),
        log_format=log.value,
        say=say,
    )
