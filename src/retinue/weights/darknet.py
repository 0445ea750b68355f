"""Weights that Darknet wrote (`.weights`): a header and one run of floats, without names or shapes.

Which float belongs where follows from the network alone; its layout cuts the run.
"""

from __future__ import annotations

import struct

import numpy as np
import torch
from torch import Tensor

from retinue.errors import RetinueError

FLOATS = "darknet/floats"
"""The one key of the state that `read` returns."""


def read(data: bytes, *, where: str | None = None) -> dict[str, Tensor]:
    """The floats of a file, float32 of shape (n,), as `FLOATS`.

    The header is the version (three int32, little-endian: major, minor, revision) and the number of
    images seen: 8 bytes since version 0.2, 4 bytes before. `where`: the file, for errors.

    Raises:
        RetinueError: no such file, or one that is cut off.
    """
    if len(data) < 12:
        raise RetinueError("damaged weights: too short for Darknet's header", where=where)
    major, minor, _ = struct.unpack_from("<3i", data)
    if not (0 <= major < 1000 and 0 <= minor < 1000):
        raise RetinueError(
            f"no weights of Darknet's, or of an unknown version, {major}.{minor}", where=where
        )
    start = 12 + (8 if (major, minor) >= (0, 2) else 4)
    if len(data) <= start or (len(data) - start) % 4:
        raise RetinueError("damaged weights: Darknet's file is cut off", where=where)
    floats = np.frombuffer(data, "<f4", offset=start).astype(np.float32)  # a copy, writable
    return {FLOATS: torch.from_numpy(floats)}
