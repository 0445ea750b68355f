"""How many images of each class each split has, from a run's `splits.csv`."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from retinue.page.record import RunRecord

ORDER = ("train", "val", "test")
UNEVEN = 3
"""Classes whose training images differ by this factor or more are called uneven."""


@dataclass(frozen=True)
class Counts:
    """What a split file holds."""

    images: dict[str, int] = field(default_factory=dict)
    """Split → images, in the order of `ORDER`."""
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Class → split → images, the classes in their own order; 0 where a split has none."""

    def without(self, split: str) -> list[str]:
        """The classes that the split, which has images, has none of."""
        if not self.images.get(split):
            return []
        return [name for name, counts in self.classes.items() if not counts[split]]

    def extremes(self) -> tuple[tuple[str, int], tuple[str, int]] | None:
        """The classes with the most and the fewest training images, those without left out; None
        where there are not two."""
        there = [(n, c["train"]) for n, c in self.classes.items() if c.get("train")]
        if len(there) < 2:
            return None
        return max(there, key=lambda row: row[1]), min(there, key=lambda row: row[1])


def counted(record: RunRecord) -> Counts | None:
    """The counts of a run; None without a readable `splits.csv`."""
    return record.derived(_counted)


def _counted(record: RunRecord) -> Counts | None:
    path = record.folder / "splits.csv"
    if not path.is_file():
        return None
    pairs: Counter[tuple[str, str]] = Counter()
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            for row in csv.DictReader(stream):
                pairs[row["split"] or "", row.get("label") or ""] += 1
    except (OSError, ValueError, KeyError, csv.Error) as error:
        record.notes.append(f"splits.csv cannot be read: {type(error).__name__}: {error}")
        return None
    found = {split for split, _ in pairs}
    splits = [split for split in ORDER if split in found]
    images = {s: sum(n for (split, _), n in pairs.items() if split == s) for s in splits}
    classes = {name: dict.fromkeys(splits, 0) for name in record.classes}
    for (split, label), count in pairs.items():
        for name in _names_in(label, classes) if split in splits else ():
            classes[name][split] += count
    return Counts(images, classes)


def _names_in(label: str, classes: Collection[str]) -> Iterator[str]:
    """Those of `classes` that stand in it with bars between; a name may have bars in it, too."""
    parts = label.split("|")
    while parts:
        # The longest name that begins here.
        for end in range(len(parts), 0, -1):
            if (name := "|".join(parts[:end])) in classes:
                yield name
                break
        parts = parts[end:]
