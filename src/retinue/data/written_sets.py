"""What `retinue data convert` writes: labels, in the folders that each format wants.

Texts of single boxes are in `written_boxes`.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from retinue.data.sources.listing import Listing
from retinue.data.sources.records import Record
from retinue.data.sources.words import ORDER
from retinue.data.targets.boxes import Boxes
from retinue.data.written_boxes import Written, by_pixels, coco_entry, plain, voc_xml, yolo_row
from retinue.documents import json_text, yaml_text
from retinue.files import write_text

_WHOLE = 2e-3
"""Pixels from a whole number that are rounding: VOC's and tables' corners are whole numbers."""


@dataclass(frozen=True, slots=True)
class Item:
    """An image to be written, with its boxes."""

    record: Record
    target: Boxes
    size: tuple[int, int]
    """Width and height of the upright image."""
    name: str
    """Its file's name in the new data set."""
    split: str | None

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return os.path.splitext(self.name)[0]


@dataclass(frozen=True, slots=True)
class Data:
    """All that is written."""

    items: list[Item]
    classes: list[str]
    listing: Listing

    def by_split(self) -> dict[str | None, list[Item]]:
        """The items of each split, in the order of the splits; of all, where there are none."""
        found: dict[str | None, list[Item]] = {}
        for split in (*ORDER, None):
            of_it = [item for item in self.items if item.split == split]
            if of_it:
                found[split] = of_it
        return found


@dataclass(frozen=True, slots=True)
class Target:
    """A format to write."""

    write: Callable[[Path, Data], None]
    """The files of labels, into a folder."""
    place: Callable[[Item], str]
    """Where an image goes, from that folder."""
    difficult: bool = False
    crowd: bool = False
    area: bool = False
    not_exhaustive: bool = False
    """Whether it can hold these."""
    tiny: bool = False
    """And boxes of a pixel or less (`told_by_pixels`)."""
    divided: bool = False
    """Whether what reads it wants to be told what to train on and what to judge by."""


def _whole(value: float) -> float:
    near = round(value)
    return float(near) if abs(value - near) < _WHOLE else value


def _write_voc(folder: Path, data: Data) -> None:
    for item in data.items:
        target = item.target
        objects = [
            Written(str(name), list(map(_whole, box)), difficult=bool(hard))
            for name, box, hard in zip(
                target.of, target.xyxy.tolist(), target.difficult, strict=True
            )
        ]
        path = folder / "Annotations" / f"{item.stem}.xml"
        write_text(path, voc_xml(f"JPEGImages/{item.name}", item.size, objects))
    lists = folder / "ImageSets" / "Main"
    splits = {split: items for split, items in data.by_split().items() if split is not None}
    for split, items in splits.items():
        write_text(lists / f"{split}.txt", "".join(f"{item.stem}\n" for item in items))
    if splits.keys() >= {"train", "val"}:
        both = [*splits["train"], *splits["val"]]
        write_text(lists / "trainval.txt", "".join(f"{item.stem}\n" for item in both))


def _write_yolo(folder: Path, data: Data) -> None:
    number = {name: k for k, name in enumerate(data.classes)}
    for item in data.items:
        rows = [
            yolo_row(number[str(name)], box, item.size) + "\n"
            for name, box in zip(item.target.of, item.target.xyxy.tolist(), strict=True)
        ]
        path = Path(_in_images(item)).parent.as_posix().replace("images", "labels", 1)
        write_text(folder / path / f"{item.stem}.txt", "".join(rows))
    splits = {
        split or "train": f"images/{split}" if split else "images" for split in data.by_split()
    }
    names = dict(enumerate(data.classes))
    write_text(folder / "data.yaml", yaml_text({**splits, "nc": len(names), "names": names}))


def _write_coco(folder: Path, data: Data) -> None:
    categories = _numbered(data.classes, data.listing.class_ids)
    for split, items in data.by_split().items():
        images = _numbered([item.record.name for item in items], data.listing.image_ids)
        numbers = count(1)
        entries: list[dict[str, Any]] = []
        lines = []
        for item in items:
            width, height = item.size
            more = [categories[str(name)] for name in item.target.not_exhaustive]
            image = images[item.record.name]
            lines.append(
                {
                    "id": image,
                    "file_name": item.name,
                    "width": width,
                    "height": height,
                    **({"not_exhaustive_category_ids": more} if more else {}),
                }
            )
            areas = item.target.area
            for k, (name, box) in enumerate(
                zip(item.target.of, item.target.xyxy.tolist(), strict=True)
            ):
                entry = coco_entry(next(numbers), image, categories[str(name)], box)
                entry["iscrowd"] = int(item.target.crowd[k])
                if areas is not None:
                    entry["area"] = float(areas[k])
                entries.append(entry)
        whole = {
            "images": lines,
            "annotations": entries,
            "categories": [{"id": categories[name], "name": name} for name in data.classes],
        }
        name = f"instances_{split}.json" if split else "instances.json"
        write_text(folder / "annotations" / name, json_text(whole) + "\n")


def _numbered(names: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """An id for each of `names`: the one that is `known`, or the next number that is none's."""
    taken = {str(known[name]) for name in names if name in known}
    free = (number for number in count(1) if str(number) not in taken)
    return {name: known[name] if name in known else next(free) for name in names}


_HEAD = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")


def _write_csv(folder: Path, data: Data) -> None:
    flags = [
        name
        for name in ("difficult", "crowd")
        if any(getattr(item.target, name).any() for item in data.items)
    ]
    for split, items in data.by_split().items():
        name = f"{split}_labels.csv" if split else "labels.csv"
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow((*_HEAD, *flags))
            for item in items:
                rows.writerows(_csv_rows(item, flags))


def _csv_rows(item: Item, flags: Sequence[str]) -> Iterator[list[Any]]:
    target = item.target
    if not target.of:
        yield [item.name, *item.size, *[""] * (5 + len(flags))]
    for k, (name, box) in enumerate(zip(target.of, target.xyxy.tolist(), strict=True)):
        marks = [int(getattr(target, flag)[k]) for flag in flags]
        yield [
            item.name,
            *item.size,
            str(name),
            *map(plain, by_pixels(list(map(_whole, box)))),
            *marks,
        ]


def _in_images(item: Item) -> str:
    return f"images/{item.split}/{item.name}" if item.split else f"images/{item.name}"


FORMATS = {
    "voc": Target(_write_voc, lambda item: f"JPEGImages/{item.name}", difficult=True),
    "coco": Target(_write_coco, _in_images, crowd=True, area=True, not_exhaustive=True, tiny=True),
    "yolo": Target(_write_yolo, _in_images, divided=True, tiny=True),
    "csv": Target(_write_csv, _in_images, difficult=True, crowd=True),
}
