"""A server in this process, on a port of its own; and pictures to send it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from retinue.inference.predictor import load
from retinue.serving.server import Service
from retinue.serving.settings import Settings


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


@contextmanager
def serving(
    models: dict[str, Path], settings: Settings | None = None, *, ready: bool = True, **how: Any
) -> Iterator[tuple[Service, httpx.Client]]:
    """The service, and a client of it, from when it is ready on."""
    service = Service(
        models, settings or quick(), say=lambda line: None,
        load=partial(load, **{"engine": "torch", "device": "cpu", **how}),
    )  # fmt: skip
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


def wait_until(done: Any, seconds: float = 20.0) -> None:
    """Until `done()`; TimeoutError."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("it did not come to be")
        time.sleep(0.01)
