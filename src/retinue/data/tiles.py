"""Parts of large images: where they lie, and as samples of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retinue.data.cpus import usable_cpus
from retinue.data.dimensions import dimensions, upright
from retinue.sample import ImageSize, Sample

Window = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels of the upright original."""


def windows(size: ImageSize, side: int, overlap: float) -> list[Window]:
    """The tiles of an image of `size` (width, height), row by row, `side` pixels wide and high, or
    as much as there is; one alone where it is no larger than that.

    Neighbours share `overlap` of the side, and more where the image ends: the last one of a row or
    column is shifted inwards.
    """
    across, down = (min(side, length) for length in size)
    return [
        (x, y, x + across, y + down)
        for y in _starts(size[1], side, overlap)
        for x in _starts(size[0], side, overlap)
    ]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    step = max(round(side * (1 - overlap)), 1)
    last = max(length - side, 0)
    return [*range(0, last, step), last]


def tiled(
    samples: Sequence[Sample], side: int, overlap: float, *, whole: bool = True
) -> list[Sample]:
    """The tiles of each image in turn; with `whole`, the image itself before them. One that is no
    larger than a tile, or that cannot be read, stays as it is."""
    stored = dimensions([s.key for s in samples], [s.read for s in samples], usable_cpus() + 4)
    found: list[Sample] = []
    for sample, size in zip(samples, upright(stored).tolist(), strict=True):
        parts = windows(size, side, overlap) if min(size) > 0 else []
        several = len(parts) > 1
        if whole or not several:
            found.append(sample)
        if several:
            found += [replace(sample, part=part) for part in parts]
    return found
