"""`retinue data convert`: a data set of boxes in another format, complete beside its images.

What becomes of a box that makes no sense is what training makes of it (`box_rules`). Images lie
flat, each called as before unless two would be called alike; they are linked (hard links) or
copied. All is written under a temporary name, and takes its own when it is whole.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retinue.data.decode import open_pillow
from retinue.data.dimensions import dimensions, upright
from retinue.data.formats import is_image_name
from retinue.data.options import DataOptions
from retinue.data.readable import Progress
from retinue.data.sources.dataset import refusals, settle_classes, settle_splits
from retinue.data.sources.listing import Listing, Reader, Readers
from retinue.data.sources.recognise import read_listing
from retinue.data.sources.records import NONE, Record, Records
from retinue.data.targets.boxes import Boxes
from retinue.data.written_boxes import told_by_pixels
from retinue.data.written_sets import FORMATS, Data, Item, Target
from retinue.errors import BadImageError, RetinueError, UsageError, some
from retinue.files import or_room
from retinue.text import as_file_name, counted, cut, no_file_name, shorten, utf8, visible

_SHOWN = 5
_SUFFIXES = {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}


@dataclass(slots=True)
class Conversion:
    """What was written."""

    out: str
    format: str
    source_format: str
    images: int
    objects: int
    classes: list[str]
    splits: dict[str, int]
    lost: dict[str, int] = field(default_factory=dict)
    """What the format cannot hold, and how many there were of it."""
    notes: list[str] = field(default_factory=list)
    shards: int | None = None
    """How many files of images, each with its class; None: images lie in files of their own."""

    def __repr__(self) -> str:
        parts = [
            f"{self.format} of {self.source_format}",
            counted(self.images, "image"),
            self._held(),
            counted(len(self.classes), "class", "classes"),
            *(f"lost: {what} ({number:,})" for what, number in self.lost.items()),
        ]
        return f"<Conversion {shorten(self.out, 60)}: {', '.join(parts)}>"

    def told(self) -> str:
        """In a line."""
        splits = ", ".join(f"{split} {number:,}" for split, number in self.splits.items())
        classes = counted(len(self.classes), "class", "classes")
        where = f"({splits}) written to {visible(self.out)}"
        images = counted(self.images, "image")
        if self.shards is not None:
            return f"{images} of {classes} in {self._held()} {where}"
        return f"{images} with {self._held()} of {classes} {where}"

    def _held(self) -> str:
        if self.shards is not None:
            return counted(self.shards, "shard")
        return counted(self.objects, "object")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "out": self.out,
            "format": self.format,
            "source_format": self.source_format,
            "images": self.images,
            "objects": self.objects,
            **({} if self.shards is None else {"shards": self.shards}),
            "classes": self.classes,
            "splits": self.splits,
            "lost": self.lost,
            "notes": self.notes,
        }


def convert(
    options: DataOptions,
    readers: Readers,
    out: Path,
    to: str,
    *,
    copy: bool = False,
    megabytes: float | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """The data set that `options` lead to as one of format `to` in the new folder `out`. `copy`:
    images are copied and not linked. `megabytes` would be those of a shard.

    Raises UsageError for what a training would refuse, for data without boxes, and where `out` is
    there already; RetinueError where it cannot be written; BadImageError for images that cannot be
    read, unless `on_bad_image` is `skip`.
    """
    to = _written_as(to, readers)
    if megabytes is not None:
        what = f"data of format {to!r} has no shards"
        raise UsageError(what, where="key megabytes", mend="leave it out")
    reader, listing, notes = opened(options, readers, out)
    classes, records = settle_classes(listing, options, reader, notes)
    if not any(target.places for target in records.targets[:1]):
        what = f"data of format {listing.format!r} marks no objects"
        raise UsageError(what, where=repr(str(options.path)), mend="give data with boxes")
    form = FORMATS[to]
    listing.records = _divided(records, options, form, notes)
    items = _items(listing, options, classes, notes)
    lost = _lost(items, form, to)
    data = Data([_held(item, form) for item in items], classes, listing)
    _write(data, form, out, copy)
    splits = {split or "all": len(of_it) for split, of_it in data.by_split().items()}
    objects = sum(len(item.target.of) for item in data.items)
    return Conversion(
        str(out), to, listing.format, len(items), objects, classes, splits, lost, notes
    )


def opened(options: DataOptions, readers: Readers, out: Path) -> tuple[Reader, Listing, list[str]]:
    """What is to be converted into the new folder `out`, and what is to be said of it. Raises
    UsageError for what a training would refuse, and where `out` is there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("something is there already", where=repr(str(out)), mend="take a new name")
    reader, listing = read_listing(options, readers)
    for error in refusals(listing, options):
        raise error
    return reader, listing, [*listing.notes, *(f"skipped: {why}" for why in listing.problems)]


def _divided(records: Records, options: DataOptions, form: Target, notes: list[str]) -> Records:
    """The records with the splits that are written. What a training would draw is drawn where
    `form` wants it or the options say how; else the data's own splits stay, and it is said that a
    training draws the rest, by names that are others in the copy."""
    own = records.splits()
    said: list[str] = []
    settled, how = settle_splits(records, options, said)
    if "split" in options.model_fields_set or form.divided:
        if not (own != NONE).any():
            said.append(f"the data has no splits: {how}; split.train=… and so on change that")
        notes += said
        return settled
    if not np.array_equal(settled.splits(), own):
        lacks = "validation images" if (own != NONE).any() else "splits"
        notes.append(
            f"neither the data nor the copy has {lacks}: a training draws them by images' names,"
            " and may draw others of the copy; split.seed=0 in this command writes them down"
        )
    return records


def _written_as(name: str, readers: Readers) -> str:
    """The one of `FORMATS` that is called `name`, here or where it is read. Raises UsageError."""
    read = readers.called(name)
    found = {name} if read is None else {name, read.name, *read.also}
    for known in FORMATS:
        if known in found:
            return known
    known = ", ".join(FORMATS)
    raise UsageError(f"unknown format {name!r}", where="key to", mend=f"there are {known}")


def _items(
    listing: Listing, options: DataOptions, classes: Sequence[str], notes: list[str]
) -> list[Item]:
    """All images with what is known of them, the classes by name."""
    records = [record for record in listing.records if isinstance(record.target, Boxes)]
    sizes = upright(dimensions([r.key for r in records], [r.read for r in records])).tolist()
    bad = {r.key: "not an image, or damaged" for r, size in zip(records, sizes, strict=True)
           if not all(size)}  # fmt: skip
    if bad and options.on_bad_image == "stop":
        raise BadImageError(bad, mend="mend or remove them; on_bad_image=skip leaves them out")
    if bad:
        notes.append(f"{counted(len(bad), 'image')} left out that cannot be read: "
                     f"{some(list(map(repr, bad)), _SHOWN, between=', ')}")  # fmt: skip
    names = _Names()
    wanted = set(classes)
    found = []
    for record, (width, height) in zip(records, sizes, strict=True):
        if record.key in bad:
            continue
        assert isinstance(record.target, Boxes)
        target = record.target.kept(np.array([str(n) in wanted for n in record.target.of], bool))
        name = names.of(_titled(record))
        found.append(Item(record, target, (width, height), name, record.split))
    for why, changed in names.changed.items():
        was, now = changed[0]
        are = counted(len(changed), "image is", "images are")
        notes.append(f"{are} called anew, since {why}: {was!r} is {now!r}")
    return found


def _titled(record: Record) -> str:
    """Its name, with the suffix of what its image is where it has none."""
    if record.read is None or is_image_name(record.name):
        return record.name
    content = record.read()
    if isinstance(content, np.ndarray):
        return f"{record.name}.png"
    kind = (open_pillow(content).format or "").lower()
    return f"{record.name}.{_SUFFIXES.get(kind, kind)}"


class _Names:
    """Names of files in one folder, no two alike without their suffixes."""

    def __init__(self) -> None:
        self.changed: dict[str, list[tuple[str, str]]] = {}
        """Why → what images were called, and are."""
        self._taken: set[str] = set()

    def of(self, path: str) -> str:
        """For the image at `path` of the data set."""
        base = path.rsplit("/", 1)[-1]
        base = base.lstrip(".")  # a name that begins so is hidden
        stem, suffix = os.path.splitext(base)
        why = ""
        if not suffix and is_image_name(f"a.{base}"):
            stem, suffix = "", f".{base}"
        if no_file_name(stem) or utf8(base) != base:
            stem = as_file_name(utf8(stem), "image")
            why = "not every system has files of such names" if stem + suffix != base else ""
        name, number = stem, 1
        while name.casefold() in self._taken:
            number += 1
            name, why = f"{stem}-{number}", "others are called so"
        self._taken.add(name.casefold())
        if why:
            self.changed.setdefault(why, []).append((path, name + suffix))
        return name + suffix


def _lost(items: Sequence[Item], form: Target, to: str) -> dict[str, int]:
    """What `form` cannot hold."""
    targets = [item.target for item in items]
    counts = {
        "difficult objects, which become plain ones": (
            form.difficult,
            sum(int(target.difficult.sum()) for target in targets),
        ),
        "crowds, which are left out": (
            form.crowd,
            sum(int(target.crowd.sum()) for target in targets),
        ),
        "boxes of a pixel or less, which are left out": (
            form.tiny,
            sum(int((~told_by_pixels(t.xyxy) & (form.crowd | ~t.crowd)).sum()) for t in targets),
        ),
        "areas of the objects themselves": (
            form.area,
            sum(map(_own_areas, targets)),
        ),
        "images that are not exhaustively labelled": (
            form.not_exhaustive,
            sum(bool(target.not_exhaustive) for target in targets),
        ),
    }
    return {what: number for what, (held, number) in counts.items() if number and not held}


def _own_areas(target: Boxes) -> int:
    """How many objects have another area than their boxes."""
    if target.area is None:
        return 0
    boxes = (target.xyxy[:, 2:] - target.xyxy[:, :2]).astype(np.float64).prod(axis=1)
    return int((np.abs(target.area - boxes) > 0.01 * boxes).sum())


def _held(item: Item, form: Target) -> Item:
    """Without the boxes that `form` cannot hold."""
    target = item.target
    kept = (form.crowd | ~target.crowd) & (form.tiny | told_by_pixels(target.xyxy))
    if kept.all():
        return item
    return Item(item.record, target.kept(kept), item.size, item.name, item.split)


def _write(data: Data, form: Target, out: Path, copy: bool) -> None:
    partial: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(".partial", f".{cut(out.name, 80)}.", out.parent))
        for item in data.items:
            place = partial / form.place(item)
            place.parent.mkdir(parents=True, exist_ok=True)
            _put(item.record, place, copy)
        form.write(partial, data)
        umask = os.umask(0o077)
        os.umask(umask)
        partial.chmod(0o777 & ~umask)  # mkdtemp gives 0700
        if out.exists():
            out.rmdir()  # it is empty
        os.replace(partial, out)
    except BaseException as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise _cannot_write(out, partial, error) from error
        raise


def _cannot_write(out: Path, partial: Path | None, error: OSError) -> RetinueError:
    """Names the folder that was asked for, and what could not be copied to it."""
    named = error.filename2 or error.filename  # of a copy, where it was to lie
    inside = not named or (partial is not None and Path(named).is_relative_to(partial))
    what = f"the data set cannot be written: {error.strerror or error}"
    return RetinueError(
        what if inside else f"{what} ({named})",
        where=repr(str(out)),
        mend=or_room(error, "name another folder"),
    )


def _put(record: Record, place: Path, copy: bool) -> None:
    """The image's file at `place`."""
    if record.path is None or record.read is not None:
        content = record.read() if record.read is not None else b""
        if not isinstance(content, bytes):
            content = as_png(content)
        place.write_bytes(content)
        return
    if not copy:
        try:
            os.link(os.path.realpath(record.path), place)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(record.path, place)


def as_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The image, RGB uint8 (height, width, 3), as a file."""
    import cv2

    done, content = cv2.imencode(".png", pixels[..., ::-1])
    assert done
    return bytes(content)
