"""A server in this process, on a port of its own; and pictures to send it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
from PIL import Image

from retinue.inference.predictor import load
from retinue.serving import server
from retinue.serving.decoding import Decoders
from retinue.serving.models import Load
from retinue.serving.server import Service
from retinue.serving.settings import Settings

ON_TORCH = partial(load, engine="torch", device="cpu")


def picture(
    size: tuple[int, int] = (80, 60), form: str = "PNG", *, seed: int = 0, **how: Any
) -> bytes:
    """Coloured noise of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), form, **how)


def encoded(image: Image.Image, form: str = "PNG", **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **how)
    return out.getvalue()


def lights() -> bytes:
    """A red and a green rectangle on black, which `bright` finds: 10–30 × 10–40 and 50–90 × 20–50
    of 100 × 60."""
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[10:40, 10:30, 0] = 255
    pixels[20:50, 50:90, 1] = 255
    return encoded(Image.fromarray(pixels))


def quick(**changes: Any) -> Settings:
    """Settings for tests: any port, one process that decodes, no waiting at the end."""
    values = {"port": 0, "decoders": 1, "lame_duck": 0.0, "watch": 0.0, "batch_size": 4}
    return Settings(**{**values, **changes})


class _Kept(Decoders):
    """Processes that all servers of a test run share: starting one takes as long as a test."""

    def close(self) -> None:
        pass


_kept: dict[Any, _Kept] = {}


def _decoders(count: int | None, *, most_pixels: int, time: float, replaced: Any) -> Decoders:
    if count != 1:
        return Decoders(count, most_pixels=most_pixels, time=time, replaced=replaced)
    how = (most_pixels, time)
    if how not in _kept:
        _kept[how] = _Kept(1, most_pixels=most_pixels, time=time)
    return _kept[how]


@contextmanager
def serving(
    models: dict[str, Path],
    settings: Settings | None = None,
    *,
    ready: bool = True,
    load: Load = ON_TORCH,
) -> Iterator[tuple[Service, httpx.Client]]:
    """The service, and a client of it, from when it is ready on."""
    with patch.object(server, "Decoders", _decoders):
        service = Service(models, settings or quick(), say=lambda line: None, load=load)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            service.run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=service.address, timeout=30) as client:
            if ready:
                wait_until(lambda: service.house.ready or failed)
            if failed:
                raise failed[0]
            yield service, client
    finally:
        service.stop()
        thread.join(20)
    assert not thread.is_alive()


def begun(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """`retinue serve` as people start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "retinue.cli", "serve", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def started(*arguments: object, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """The process, and its address."""
    process = begun(*arguments, "--port", "0", **environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"at (http://\S+)$", line.strip())
    if found is None:
        process.kill()
        raise AssertionError(process.communicate())
    return process, found[1]


def wait_until(done: Any, seconds: float = 20.0) -> None:
    """Until `done()`; TimeoutError."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("it did not come to be")
        time.sleep(0.01)
