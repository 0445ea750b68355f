"""Weights that Darknet wrote (`.weights`): a header and one run of floats, without names or shapes.

Which float belongs where follows from the network alone; its layout cuts the run.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

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


_Sizes = dict[str, dict[str, tuple[int, ...]]]
"""Layer → tensor → shape."""

_NORM = ("bias", "weight", "running_mean", "running_var")
"""In a file's order; the kernel comes after them."""


def cut(
    floats: Tensor,
    shapes: Mapping[str, tuple[int, ...]],
    layers: Iterable[str],
    *,
    of_classes: Sequence[str] = (),
    network: str,
) -> dict[str, Tensor]:
    """`floats` (n,) as tensors by our names, for a network with tensors of `shapes`.

    `layers`, in the file's order, are the names of modules: of one with `conv` and `norm`, or of a
    convolution with a bias, or a linear layer. Those `of_classes` may have other numbers of rows in
    the file, all in the same ratio to ours. A file may end behind any layer: Darknet saves the
    first N of a network.

    Raises:
        RetinueError: a number of floats that does not go with the network.
    """
    sizes: _Sizes = {}
    for layer in layers:
        if f"{layer}.norm.weight" in shapes:
            kernel = shapes[f"{layer}.conv.weight"]
            sizes[layer] = {f"{layer}.norm.{part}": (kernel[0],) for part in _NORM}
            sizes[layer][f"{layer}.conv.weight"] = kernel
        else:
            sizes[layer] = {key: shapes[key] for key in (f"{layer}.bias", f"{layer}.weight")}
    found: _Sizes | None = sizes
    if len(floats) != (total := _floats(sizes)):
        found = _with_classes(len(floats), sizes, of_classes) or _first(len(floats), sizes)
    if not found:
        raise RetinueError(
            f"the weights belong to another network: {len(floats):,} floats, where {network} with"
            f" as many classes as here has {total:,}",
            mend="choose the network that they were made for",
        )
    tensors, at = {}, 0
    for parts in found.values():
        for key, shape in parts.items():
            end = at + math.prod(shape)
            tensors[key] = floats[at:end].reshape(shape)
            at = end
    return tensors


def _floats(sizes: _Sizes) -> int:
    return sum(math.prod(shape) for parts in sizes.values() for shape in parts.values())


def _with_classes(count: int, sizes: _Sizes, of_classes: Sequence[str]) -> _Sizes | None:
    """`sizes` with other rows for the classes, so that there are `count` floats; None: there are no
    such rows."""
    varying = _floats({layer: sizes[layer] for layer in of_classes})
    if not varying:
        return None
    ratio = Fraction(count - _floats(sizes) + varying, varying)
    changed = dict(sizes)
    for layer in of_classes:
        rows = ratio * sizes[layer][f"{layer}.bias"][0]
        if rows.denominator > 1 or rows < 1:
            return None
        changed[layer] = {key: (int(rows), *shape[1:]) for key, shape in sizes[layer].items()}
    return changed


def _first(count: int, sizes: _Sizes) -> _Sizes | None:
    """The first layers of `sizes`, as many as have `count` floats; None: no number of them."""
    taken: _Sizes = {}
    for layer, parts in sizes.items():
        taken[layer] = parts
        count -= _floats({layer: parts})
        if count <= 0:
            return taken if count == 0 else None
    return None
