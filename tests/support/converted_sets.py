"""Data sets of boxes in another format."""

from __future__ import annotations

from pathlib import Path

from box_sets import READERS, Box, found

from retinue.data.conversion import Conversion, convert
from retinue.data.options import DataOptions
from retinue.data.sources import Dataset


def converted(path: Path, out: Path, to: str, *, copy: bool = False, **more: object) -> Conversion:
    return convert(DataOptions(path=str(path), **more), READERS, out, to, copy=copy)


def near(dataset: Dataset) -> dict[str, list[Box]]:
    """By file names alone, corners to a hundredth."""
    return {
        name.rsplit("/", 1)[-1]: [
            (box[0], *(round(v, 2) + 0.0 for v in box[1:]))
            for box in boxes  # type: ignore[misc]
        ]
        for name, boxes in found(dataset).items()
    }


def parts(dataset: Dataset) -> dict[str, list[str]]:
    return {
        split: sorted(s.name.rsplit("/", 1)[-1] for s in samples)
        for split, samples in dataset.splits.items()
    }
