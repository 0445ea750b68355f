"""Small data sets in a line each, and what is read from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.tasks.task import task_type

WHOLE = SplitOptions(train=1, val=0, test=0)
"""Everything to train on."""


def put(root: Path, *names: str) -> Path:
    """Tiny images at these relative paths."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, "PNG")
    return root


def read(path: Path, *, to_train: bool = True, **options: Any) -> Dataset:
    """As a training for classification reads it."""
    readers = task_type("classification").readers()
    return open_dataset(DataOptions(path=str(path), **options), readers, to_train=to_train)


def labels(dataset: Dataset) -> dict[str, str]:
    """What each image is called → its class."""
    return {
        sample.name: dataset.classes[sample.target.names()[0]]
        for samples in dataset.splits.values()
        for sample in samples
        if sample.target is not None
    }


def splits(dataset: Dataset) -> dict[str, list[str]]:
    """Split → what its images are called."""
    return {split: [s.name for s in samples] for split, samples in dataset.splits.items()}
