"""`retinue data check`: everything that is wrong or remarkable about a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retinue.data import complaints
from retinue.data.box_check import SIDE, Objects, look_at_boxes
from retinue.data.duplicates import LARGEST_BUCKET, Prints, exact_groups, near_pairs
from retinue.data.image_check import HANDLING, ImageCheck, check_image, thumbnail
from retinue.data.loader import worker_count
from retinue.data.options import DataOptions
from retinue.data.readable import Progress, Telling, in_turn, placed
from retinue.data.remembered import Remembered, facts
from retinue.data.sources.dataset import refusals, settle
from retinue.data.sources.folds import folds_of
from retinue.data.sources.listing import Listing, Reader, Readers
from retinue.data.sources.recognise import read_listing
from retinue.data.sources.records import Record, Records
from retinue.data.sources.walking import about_others
from retinue.errors import UsageError, some
from retinue.sample import Sample
from retinue.text import counted, few, shorten

IMBALANCE = 10
"""Classes whose sizes differ by more than this factor are remarked on."""
DARK = 1 << 14
"""16-bit images whose values all lie below this use fewer bits than that."""


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
    """Files with a label that were looked at; those of a pool are looked at beside them."""
    classes: dict[str, int]
    """Images of each class, in the order of the classes."""
    splits: dict[str, int]
    """Images of each split, and of the pool."""
    unreadable: dict[str, str]
    """Path → reason."""
    findings: list[Finding] = field(default_factory=list)
    """All that was looked for and found."""
    objects: Objects | None = None
    """Those that are marked in the images, where places are."""
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        parts = [counted(self.images, "image"), counted(len(self.classes), "class", "classes")]
        parts += [f"{len(self.unreadable):,} unreadable"] if self.unreadable else []
        if self.findings:
            parts.append(f"found: {few([finding.what for finding in self.findings], 6)}")
        return f"<CheckReport {shorten(self.path, 60)}: {', '.join(parts)}>"

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
            **({} if self.objects is None else {"objects": self.objects.as_dict()}),
            "findings": [finding.as_dict() for finding in self.findings],
            "notes": self.notes,
        }

    def rows(self) -> list[tuple[str, int, str]]:
        """(what, count, detail) for a table; the detail ends with the first few items."""
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        classes = counted(len(self.classes), "class", "classes")
        read = f"{classes}; {splits or 'no splits'}; read as {self.format}"
        rows = [("images", self.images, read)]
        rows += [] if self.objects is None else self.objects.rows()
        for finding in self.findings:
            shown = some(list(map(repr, finding.items)), 3)
            rows.append((finding.what, len(finding.items), f"{finding.detail}: {shown}"))
        if not self.findings:
            rows.append(("problems", 0, "none found"))
        return rows


class _Looked(NamedTuple):
    """What there is to know of all images, in a few bytes each."""

    prints: Prints
    kinds: dict[str, list[int]]
    """What is unusual → positions of the images that are so."""
    unreadable: dict[str, str]
    deep: list[int]
    """Positions of the images of 16-bit grey."""
    largest: int
    """Value in any of these."""
    sizes: npt.NDArray[np.int64]
    """(n, 2) width and height of the upright images; 0 of those that cannot be read."""


def check(
    options: DataOptions,
    readers: Readers,
    progress: Progress | None = None,
    *,
    side: int | None = None,
) -> CheckReport:
    """Decodes every image and compares them all; a bad file or row never stops it. `side`: of the
    network's input in pixels, at which objects are measured.

    Raises `UsageError` only if there is no data set to look at.
    """
    reader, listing = read_listing(options, readers)
    findings: list[Finding] = []
    classes, splits, of, beside = divide(listing, options, reader, findings)
    placed = any(target.places for target in listing.records.targets[:1])
    exclusive = any(target.exclusive for target in listing.records.targets[:1])
    labelled = len(listing.records)
    records = [*listing.records, *beside] if beside else listing.records
    workers = max(worker_count(options.workers), 1)
    with complaints.told_once(), ThreadPoolExecutor(workers) as pool:
        looked = _look(records, pool, workers, progress)
        duplicates = _duplicates(
            records, looked.prints, [of.get(record.name, "") for record in records], pool, placed
        )
    unreadable = looked.unreadable
    objects, oddities = None, list(listing.oddities)
    if placed:
        objects, more = look_at_boxes(listing.records, looked.sizes[:labelled], side=side or SIDE)
        oddities += more

    found = [
        _unreadable(unreadable),
        Finding(
            f"{listing.each_problem}s that cannot be used",
            listing.problems,
            "left out or an error",
        ),
        Finding("labels without images", listing.missing, "no such file"),
        Finding(
            "images without labels",
            [str(path) for path in listing.without_label],
            listing.without_label_become,
        ),
        Finding("empty classes", listing.empty_classes, "no boxes" if placed else "no images"),
        Finding(
            "files that are not read",
            listing.not_images,
            "; ".join(about_others(listing.root, listing.not_images)),
        ),
        Finding(
            "only one class",
            list(classes) if len(classes) == 1 and exclusive else [],
            "there is nothing to tell apart: training would refuse this",
            fatal=True,
        ),
        *_imbalance(classes, exclusive),
        *(Finding(odd.what, odd.items, odd.detail) for odd in oddities),
        *duplicates,
        *(
            Finding(kind, [records[k].key for k in looked.kinds.get(kind, ())], handling)
            for kind, handling in HANDLING.items()
        ),
        Finding(
            "16 bits, hardly used",
            [records[k].key for k in looked.deep if looked.largest < DARK],
            f"the largest value in all of them is {looked.largest}, so they are"
            f" {'nearly black' if looked.largest < 1 << 12 else 'dark'}: set"
            f" input.depth={max(looked.largest.bit_length(), 8)}",
        ),
    ]
    findings += [finding for finding in found if finding.items]
    return CheckReport(
        path=options.path or listing.format,
        format=listing.format,
        images=labelled,
        classes=classes,
        splits=splits,
        unreadable=unreadable,
        findings=findings,
        objects=objects,
        notes=listing.notes,
    )


def divide(
    listing: Listing, options: DataOptions, reader: Reader, findings: list[Finding]
) -> tuple[dict[str, int], dict[str, int], dict[str, str], list[Record]]:
    """Images by class and by split, the split of each image, by its name, and the images of the
    pool; what a training would refuse becomes one of the `findings`."""
    wrong = [str(error) for error in refusals(listing, options)]
    classes = _counts(listing.records)
    splits: dict[str, int] = {}
    of: dict[str, str] = {}
    beside: list[Record] = []
    try:
        dataset = settle(listing, _of_a_fold(options, listing), reader)
    except UsageError as error:
        wrong.append(str(error))
    else:
        classes = {name: classes.get(name, 0) for name in dataset.classes}
        splits = {split: len(samples) for split, samples in dataset.parts.items()}
        of = {s.name: split for split, samples in dataset.splits.items() for s in samples}
        beside = [Record(Path(s.key), s.name, None) for s in dataset.pool]
        of |= {record.name: "train" for record in beside}  # these are learnt from, too
    if wrong:
        findings.append(Finding("errors", wrong, "training would refuse this", fatal=True))
    return classes, splits, of, beside


def _of_a_fold(options: DataOptions, listing: Listing) -> DataOptions:
    """Where a training would hold out each fold in turn, the first one is."""
    split = options.split
    if split.folds is None or split.fold is not None or split.file is not None:
        return options
    names = folds_of(listing.records, split)
    count = counted(len(names), "fold")
    listing.notes.append(f"split as with fold {names[0]} held out; a training has all {count}")
    split = split.model_copy(update={"fold": names[0]})
    return options.model_copy(update={"split": split})


def _counts(records: Records) -> dict[str, int]:
    """Images by class, in the order in which the classes occur; those of nothing by the empty
    name."""
    places, first, counts = np.unique(records.target, return_index=True, return_counts=True)
    found: Counter[str] = Counter()
    for k in np.argsort(first).tolist():
        names = records.targets[places[k]].names() if places[k] >= 0 else ("",)
        for name in names:
            found[str(name)] += int(counts[k])
    return dict(found)


def _agree(records: Sequence[Record]) -> bool:
    """Whether all that is known of copies of one image can be right."""
    first, *others = (record.target for record in records)
    return all(
        target is first if target is None or first is None else first.agrees(target)
        for target in others
    )


def _unreadable(reasons: dict[str, str]) -> Finding:
    common = Counter(reason.split(":")[0].split("?")[0] for reason in reasons.values())
    detail = ", ".join(f"{count} {reason}" for reason, count in common.most_common())
    return Finding("unreadable", list(reasons), detail)


def _imbalance(classes: dict[str, int], exclusive: bool) -> list[Finding]:
    most = max(classes.values(), default=0)
    rare = sorted((count, name) for name, count in classes.items() if 0 < count * IMBALANCE < most)
    detail = f"more than {IMBALANCE} times fewer images than the largest class, {most};"
    # Where an image has several, none can be shown as often as the others.
    how = "balanced shows them as often" if exclusive else "repeat_factor shows them more often"
    detail += f" stages.0.sampler={how}"
    return [Finding("rare classes", [f"{name} ({count})" for count, name in rare], detail)]


def _look(
    records: Sequence[Record],
    pool: ThreadPoolExecutor,
    workers: int,
    progress: Progress | None,
) -> _Looked:
    """Each image decoded; those that are sound are remembered for a training."""
    kinds: dict[str, list[int]] = {}
    unreadable: dict[str, str] = {}
    deep: list[int] = []
    largest = 0
    prints, store = Prints.empty(len(records)), Remembered()
    known = np.zeros(len(records), np.uint64)
    sizes = np.zeros((len(records), 2), np.int64)

    def look(k: int) -> tuple[ImageCheck, npt.NDArray[np.uint64]]:
        record = records[k]
        # Before it is read: what changes meanwhile is another file.
        file = facts([Sample(record.key, record.read)])
        return check_image(record.key, record.read), file

    telling = Telling(progress, len(records))
    for k, (image, file) in enumerate(in_turn(pool, look, range(len(records)), 4 * workers)):
        telling(k + 1)
        if image.error is not None:
            unreadable[image.path] = placed(image.error, records[k].shard)
            continue
        known[k], sizes[k] = file[0], image.size
        prints.sound[k] = True
        prints.digests[k] = np.frombuffer(image.digest, np.uint64)
        if image.dhash is not None:
            prints.hashes[k], prints.structured[k] = image.dhash, True
        if image.largest is not None:
            deep.append(k)
            largest = max(largest, image.largest)
        for kind in image.kinds:
            kinds.setdefault(kind, []).append(k)
    store.add(known[~store.knows(known)])
    store.write()
    telling.end()
    return _Looked(prints, kinds, unreadable, deep, largest, sizes)


def _duplicates(
    records: Sequence[Record], prints: Prints, of: list[str], pool: ThreadPoolExecutor, placed: bool
) -> list[Finding]:
    """Of images that are alike: `of` has the split of each; `placed`: what is known of them are
    objects."""
    leaks: list[str] = []
    copies: list[str] = []
    conflicts: list[str] = []
    for group in exact_groups(prints):
        line = " = ".join(records[p].key for p in group)
        # A group may be of several kinds; it is told once for each.
        if not _agree([records[p] for p in group]):
            conflicts.append(line)
        (leaks if len({of[p] for p in group}) > 1 else copies).append(line)

    def thumbnails(positions: Sequence[int]) -> npt.NDArray[np.uint8]:
        chosen = [records[p] for p in positions]
        small = pool.map(lambda record: thumbnail(record.key, record.read), chosen)
        return np.stack([one.ravel() for one in small])

    near_leaks: list[str] = []
    near_copies: list[str] = []
    near = near_pairs(prints, thumbnails)
    for a, b in near.pairs:
        line = f"{records[a].key} ≈ {records[b].key}"
        (near_leaks if of[a] != of[b] else near_copies).append(line)
    return [
        Finding("same image in two splits", leaks, "leakage: figures will flatter"),
        Finding("near duplicates in two splits", near_leaks, "leakage, if they show the same"),
        Finding(
            "same image with other boxes" if placed else "same image under two labels",
            conflicts,
            f"{'objects or classes differ: ' if placed else ''}at most one of them is right",
        ),
        Finding("same image twice", copies, "counts twice"),
        Finding("near duplicates", near_copies, "within one split"),
        Finding(
            "not compared with all",
            [records[position].key for position in near.passed_over],
            f"more than {LARGEST_BUCKET} look so alike that near duplicates were not searched for",
        ),
    ]
