"""What a report says, section by section, and what it is made from."""

from __future__ import annotations

import csv
import re
from html import unescape
from pathlib import Path

from retinue.report.html import write_report


def write_splits(run: Path, **splits: dict[str, int]) -> None:
    """`write_splits(run, train={"a": 3})`: three images of `a` in train."""
    with (run / "splits.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split", "target"])
        for split, counts in splits.items():
            writer.writerows([f"{split}/{name}/{k}.png", name, split, ""]
                             for name, count in counts.items() for k in range(count))  # fmt: skip


def section(run: Path, name: str) -> str:
    """The text of a section of the run's page, tags and line breaks left out."""
    return section_of(write_report(run).read_text(encoding="utf-8"), name)


def section_of(page: str, name: str) -> str:
    """The same of a page; empty where it has none of that name."""
    found = re.search(rf'<section id="{name}">(.*?)</section>', page, re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[1])).split()) if found else ""
