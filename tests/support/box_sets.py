"""Small data sets of boxes in a few lines each, and what is read from them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.data.targets.boxes import Boxes
from retinue.tasks.task import task_type

READERS = task_type("detection").readers()
WHOLE = SplitOptions(train=1, val=0, test=0)
Box = tuple[str, float, float, float, float]
"""A class and x1, y1, x2, y2."""


def picture(path: Path, size: tuple[int, int] = (64, 48), *, orientation: int = 1) -> Path:
    """A JPEG (a PNG by its name) of `size` (width, height), with EXIF's orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    Image.new("RGB", size, (90, 120, 150)).save(path, kind, exif=exif)
    return path


def xml(
    *boxes: Box,
    size: tuple[int, int] | None = (64, 48),
    filename: str = "",
    difficult: Iterable[int] = (),
) -> str:
    """An annotation of PASCAL VOC; `difficult`: the positions of boxes that are."""
    hard = set(difficult)
    objects = "".join(
        f"<object><name>{name}</name><difficult>{int(k in hard)}</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for k, (name, x1, y1, x2, y2) in enumerate(boxes)
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation><filename>{filename}</filename>{sides}{objects}</annotation>"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def voc(root: Path, **images: str) -> Path:
    """`a="<annotation>…"`: a picture and its XML side by side."""
    for name, text in images.items():
        picture(root / f"{name}.jpg")
        write(root / f"{name}.xml", text)
    return root


def read(path: Path, *, to_train: bool = True, **options: Any) -> Dataset:
    """As a training for detection reads it; all to train on unless `split` says otherwise."""
    options = {"split": WHOLE, **options}
    given = DataOptions(path=str(path), **options)
    return open_dataset(given, READERS, to_train=to_train)


def found(dataset: Dataset) -> dict[str, list[Box]]:
    """What each image is called → its boxes."""
    return {
        sample.name: [
            (dataset.classes[int(of)], *map(float, box))
            for of, box in zip(target.of, target.xyxy.tolist(), strict=True)
        ]
        for sample, target in targets(dataset)
    }


def targets(dataset: Dataset) -> list[tuple[Any, Boxes]]:
    """Samples and what is known of each, in order."""
    pairs = []
    for samples in dataset.splits.values():
        for sample in samples:
            assert isinstance(sample.target, Boxes)
            assert np.isfinite(sample.target.xyxy).all()
            pairs.append((sample, sample.target))
    return pairs


def count(dataset: Dataset) -> int:
    """All boxes."""
    return sum(len(target.of) for _, target in targets(dataset))


YOLO_ROW = "0 0.5 0.5 0.25 0.5\n"
YOLO_BOX = (24, 12, 40, 36)
"""The same in a picture of 64 × 48."""


def labelled(root: Path, *places: tuple[str, str], rows: str = YOLO_ROW) -> Path:
    """Images and their texts, all with these `rows`."""
    for image, label in places:
        picture(root / image)
        write(root / label, rows)
    return root


def notes(path: Path, **options: Any) -> str:
    """What is said of the data."""
    return "\n".join(read(path, **options).notes)


def sizes(path: Path, **options: Any) -> dict[str, int]:
    """How many images each split has."""
    return {split: len(s) for split, s in read(path, **options).splits.items()}
