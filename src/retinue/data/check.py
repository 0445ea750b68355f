"""`retinue data check`: everything that is wrong or remarkable about a data set."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from retinue.data.duplicates import LARGEST_BUCKET, exact_groups, near_pairs
from retinue.data.image_check import HANDLING, ImageCheck, check_image
from retinue.data.loader import worker_count
from retinue.data.options import DataOptions
from retinue.data.sources.dataset import settle
from retinue.data.sources.listing import Listing, Reader, Record
from retinue.data.sources.recognise import Readers, read_listing
from retinue.errors import UsageError

IMBALANCE = 10
"""Classes whose sizes differ by more than this factor are remarked on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was looked for. `items` are paths, pairs of paths joined by ` = ` or ` ≈ `, or
    names; `detail` says what it means or how it is handled."""

    what: str
    items: list[str]
    detail: str
    fatal: bool = False
    """Whether training would refuse the data set for it."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "what": self.what,
            "count": len(self.items),
            "detail": self.detail,
            "fatal": self.fatal,
            "items": self.items,
        }


@dataclass(slots=True)
class CheckReport:
    """What `check` found."""

    path: str
    format: str
    images: int
    """Files with a label that were looked at."""
    classes: dict[str, int]
    """Images of each class, in the order of the classes."""
    splits: dict[str, int]
    """Images of each split."""
    unreadable: dict[str, str]
    """Path → reason."""
    findings: list[Finding] = field(default_factory=list)
    """All that was looked for and found."""
    notes: list[str] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether training would refuse the data set, whatever single files are worth."""
        return any(finding.fatal for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": self.path,
            "format": self.format,
            "images": self.images,
            "classes": self.classes,
            "splits": self.splits,
            "unreadable": self.unreadable,
            "findings": [finding.as_dict() for finding in self.findings],
            "notes": self.notes,
        }

    def rows(self) -> list[tuple[str, int, str]]:
        """(what, count, detail) for a table; the detail ends with the first few items."""
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        classes = f"{len(self.classes)} class{'es' if len(self.classes) != 1 else ''}"
        rows = [("images", self.images, f"{classes}; {splits or 'no splits'}")]
        for finding in self.findings:
            shown = "; ".join(repr(item) for item in finding.items[:3])
            more = f" and {len(finding.items) - 3} more" if len(finding.items) > 3 else ""
            rows.append((finding.what, len(finding.items), f"{finding.detail}: {shown}{more}"))
        if not self.findings:
            rows.append(("problems", 0, "none found"))
        return rows


def check(options: DataOptions, readers: Readers) -> CheckReport:
    """Decodes every image and compares them all; a bad file or row never stops it.

    Raises `UsageError` only if there is no data set to look at.
    """
    reader, listing = read_listing(options, readers)
    findings: list[Finding] = []
    classes, splits, of = _divide(listing, options, reader, findings)
    records = listing.records
    with ThreadPoolExecutor(max(worker_count(options.workers), 1)) as pool:
        images = list(pool.map(lambda record: check_image(record.key, record.read), records))
    unreadable = {image.path: image.error for image in images if image.error is not None}
    labels = [_said(record) for record in records]

    found = [
        _unreadable(unreadable),
        Finding("rows that cannot be used", listing.problems, "left out or an error"),
        Finding("labels without images", listing.missing, "no such file"),
        Finding(
            "images without labels",
            [str(path) for path in listing.without_label],
            "in no class folder or row: left out",
        ),
        Finding("empty classes", listing.empty_classes, "no images"),
        Finding(
            "only one class",
            list(classes) if len(classes) == 1 else [],
            "there is nothing to tell apart: training would refuse this",
            fatal=True,
        ),
        *_imbalance(classes),
        *_duplicates(images, labels, [of.get(record.name, "") for record in records]),
        *_kinds(images),
    ]
    findings += [finding for finding in found if finding.items]
    return CheckReport(
        path=options.path or listing.format,
        format=listing.format,
        images=len(images),
        classes=classes,
        splits=splits,
        unreadable=unreadable,
        findings=findings,
        notes=listing.notes,
    )


def _divide(
    listing: Listing, options: DataOptions, reader: Reader, findings: list[Finding]
) -> tuple[dict[str, int], dict[str, int], dict[str, str]]:
    """Images by class and by split, and the split of each image, by its name."""
    wrong = [str(error) for error in listing.errors]
    named = (r.target.names() if r.target else ("",) for r in listing.records)
    classes = dict(Counter(str(name) for names in named for name in names))
    splits: dict[str, int] = {}
    of: dict[str, str] = {}
    try:
        dataset = settle(listing, options, reader)
    except UsageError as error:
        wrong.append(str(error))
    else:
        classes = {name: classes.get(name, 0) for name in dataset.classes}
        splits = {split: len(samples) for split, samples in dataset.splits.items()}
        of = {s.name: split for split, samples in dataset.splits.items() for s in samples}
    if wrong:
        findings.append(Finding("errors", wrong, "training would refuse this", fatal=True))
    return classes, splits, of


def _said(record: Record) -> str:
    """What two copies of one image must agree in."""
    return record.target.fingerprint() if record.target else ""


def _unreadable(reasons: dict[str, str]) -> Finding:
    common = Counter(reason.split(":")[0].split("?")[0] for reason in reasons.values())
    detail = ", ".join(f"{count} {reason}" for reason, count in common.most_common())
    return Finding("unreadable", list(reasons), detail)


def _imbalance(classes: dict[str, int]) -> list[Finding]:
    most = max(classes.values(), default=0)
    rare = sorted((count, name) for name, count in classes.items() if 0 < count * IMBALANCE < most)
    detail = f"more than {IMBALANCE} times fewer images than the largest class, {most}"
    return [Finding("rare classes", [f"{name} ({count})" for count, name in rare], detail)]


def _duplicates(images: list[ImageCheck], labels: list[str], of: list[str]) -> list[Finding]:
    leaks: list[str] = []
    copies: list[str] = []
    conflicts: list[str] = []
    for group in exact_groups(images):
        line = " = ".join(images[p].path for p in group)
        # A group may be of several kinds; it is told once for each.
        if len({labels[p] for p in group}) > 1:
            conflicts.append(line)
        (leaks if len({of[p] for p in group}) > 1 else copies).append(line)
    near_leaks: list[str] = []
    near_copies: list[str] = []
    near = near_pairs(images)
    for a, b in near.pairs:
        line = f"{images[a].path} ≈ {images[b].path}"
        (near_leaks if of[a] != of[b] else near_copies).append(line)
    return [
        Finding("same image in two splits", leaks, "leakage: figures will flatter"),
        Finding("near duplicates in two splits", near_leaks, "leakage, if they show the same"),
        Finding("same image under two labels", conflicts, "at most one of them is right"),
        Finding("same image twice", copies, "counts twice"),
        Finding("near duplicates", near_copies, "within one split"),
        Finding(
            "not compared with all",
            [images[position].path for position in near.passed_over],
            f"more than {LARGEST_BUCKET} look so alike that near duplicates were not searched for",
        ),
    ]


def _kinds(images: list[ImageCheck]) -> list[Finding]:
    return [
        Finding(kind, [image.path for image in images if kind in image.kinds], handling)
        for kind, handling in HANDLING.items()
    ]
