"""A process that decodes pictures, one after the other: `python -m retinue.serving.decode_worker`.

What a picture does to its decoder (ends it, keeps it busy, takes all memory) it does here, and the
server starts another. It imports no torch, so it is there at once and small.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from PIL import Image

from retinue.data import complaints, formats
from retinue.data.dimensions import header_size
from retinue.data.views import EvalView, View, WholeView, open_image
from retinue.errors import BadImageError
from retinue.sample import Preprocessing, Sample
from retinue.serving.frames import receive, send

BYTES_A_PIXEL = 48
"""That a decoder may take, all copies counted."""


def main() -> None:
    """Reads frames from standard input until it ends."""
    Image.MAX_IMAGE_PIXELS = None  # whoever serves has said how many are too many
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server drains first, then closes the pipe
    logging.getLogger("retinue").setLevel(logging.ERROR)
    cv2.setNumThreads(1)
    _bound(int(sys.argv[1]))
    with complaints.told_once(), suppress(BrokenPipeError):
        send(sink, {"ready": True})
        while (frame := receive(source)) is not None:
            answer, pixels = look(*frame)
            send(sink, answer, pixels)


def look(asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], memoryview]:
    """`asked`: `name`, `most_pixels`, `preprocessing`, `whole`. The picture as the model takes it,
    uint8 of a `shape` (height, width, 3), with its `to_original` and `size`; or an `error` of a
    `code`."""
    nothing = memoryview(b"")
    name = asked["name"]
    extra = formats.extra_for(data[:64])
    if extra is not None and not formats.installed(extra):
        return {"code": "unsupported", "error": formats.needs(extra)}, nothing
    how = Preprocessing.from_dict(asked["preprocessing"])
    try:
        width, height = header_size(data, name)
        if width * height > asked["most_pixels"]:
            much = f"{width} × {height} pixels are more than {asked['most_pixels']:,}"
            return {"code": "too_large", "error": much}, nothing
        sample = Sample(name, lambda: data)
        view: View = EvalView(how)
        size = how.size
        if asked["whole"]:
            view, size = WholeView(how), open_image(sample, how).size[::-1]
        out = np.empty((*size, 3), np.uint8)
        seen, _ = view.render([sample], key=0, epoch=0, size=size, out=out)
    except BadImageError as error:
        return {"code": "bad_image", "error": next(iter(error.reasons.values()))}, nothing
    told = {"to_original": seen.to_original.tolist(), "size": list(seen.original_size),
            "shape": list(out.shape)}  # fmt: skip
    return told, memoryview(out.data).cast("B")


def _bound(pixels: int) -> None:
    """Take no more memory than pictures of so many pixels do."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            own = int(file.read().split()[0]) * resource.getpagesize()
        most = own + pixels * BYTES_A_PIXEL + (1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError, ValueError):  # not this system's way
        return


if __name__ == "__main__":
    main()
