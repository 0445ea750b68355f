"""Which format a path is in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retinue.data.options import DataOptions
from retinue.data.sources.listing import Listing, Reader, Readers, given_path
from retinue.data.sources.walking import by_suffix, is_run, walk
from retinue.errors import UsageError, suggest
from retinue.text import counted


class UnknownFormatError(UsageError):
    """None of the readers knows the data; other errors are of data that one of them knows."""


def recognise(options: DataOptions, readers: Readers) -> tuple[Reader, Path]:
    """The format, and the file or folder that is to be read. Raises `UsageError`, which is
    `UnknownFormatError` where there is none."""
    tried = list(readers.values())
    if options.format != "auto":
        named = readers.called(options.format)
        if named is None:
            raise UnknownFormatError(
                f"unknown format {options.format!r}",
                where="key data.format",
                mend=suggest(options.format, readers) or f"there are auto, {', '.join(readers)}",
            )
        tried = [named]
    asked = options.format != "auto"
    for reader in tried:
        place = reader.find(options, asked)
        if place is not None:
            return reader, place
    raise UnknownFormatError(
        "data in no known format",
        where=repr(str(given_path(options))),
        mend=f"known: {', '.join(name for name, r in readers.items() if not r.installed)}",
    )


def read_listing(options: DataOptions, readers: Readers) -> tuple[Reader, Listing]:
    """The data as found, and its format. Raises `UsageError`."""
    try:
        try:
            reader, place = recognise(options, readers)
            reader.refuse_unheeded(options)
            listing = reader.read(place, options)
        except UsageError as error:
            if isinstance(error, UnknownFormatError) and options.format == "auto":
                _say_what_there_is(error, given_path(options))
            if looks := _looks_like(options, readers) or _known_labels(options, readers):
                error.mend = ", or ".join(filter(None, (error.mend, looks)))
            raise
        if _suspicious(listing) and (looks := _looks_like(options, readers)):
            listing.notes.append(looks)
            listing.looks_like = looks
        listing.notes += _others(options, readers, reader)
        return reader, listing
    except OSError as error:
        what = f"cannot look through the data: {error.strerror or error}"
        where = repr(error.filename or options.path)
        raise UsageError(what, where=where, mend="see data=PATH") from error


def _say_what_there_is(error: UsageError, path: Path) -> None:
    """Of a folder in which no format was recognised."""
    if not path.is_dir():
        return
    found = walk(path)
    if found.images:
        images = counted(len(found.images), "image")
        error.what = f"{images}, but no labels in a known format"
    elif found.others:
        error.what = f"{error.what}: {by_suffix(found.others)}"
    else:
        error.what = "an empty folder"
        error.mend = "name the one that holds images and labels"


# --- data for another task ------------------------------------------------------------------------

_FOLDERS = {"annotations", "imagesets", "jpegimages", "images", "labels", "xml", "xmls"}
"""Folders that data with labels beside its images has, and hardly a class is called."""


_OF_LABELS = (".json", ".jsonl", ".xml", ".txt", ".yaml", ".yml")


def _others(options: DataOptions, readers: Readers, taken: Reader) -> Iterator[str]:
    """What to say of labels in other formats that lie there, too."""
    if options.format != "auto" or not taken.labels or not Path(options.path or "").is_dir():
        return
    for reader in readers.values():
        if reader.labels and reader is not taken and _finds(reader, options):
            yield f"there are {reader.labels}, too: data.format={reader.name} reads them"


def _suspicious(listing: Listing) -> bool:
    """Whether its classes are called like the parts of such data, or labels cannot be used."""
    classes = [str(n).lower() for target in listing.records.targets[:50] for n in target.names()]
    folders = {name.lower() for name in listing.empty_classes}
    return not any(t.places for t in listing.records.targets[:1]) and (
        bool(_FOLDERS & {*classes, *folders})
        or len(set(classes)) == 1
        or any(mark in name for name in classes for mark in "|;")
        or bool(listing.problems)
    )


def _looks_like(options: DataOptions, readers: Readers) -> str:
    """What data for another task this looks like, and what reads it; empty: nothing."""
    if options.format != "auto":
        return ""
    return next(
        (
            f"this looks like {reader.labels}: {mend}"
            for reader, mend in readers.others()
            if reader.labels and _finds(reader, options)
        ),
        "",
    )


def _known_labels(options: DataOptions, readers: Readers) -> str:
    """Which labels other tasks read, where there are files beside the images that may be some of
    another kind; empty: there are none."""
    path = given_path(options)
    known = [reader.labels for reader, _ in readers.others() if reader.labels]
    if options.format != "auto" or not known or not path.is_dir() or is_run(str(path)):
        return ""
    found = walk(path)
    beside = [name for name in found.others if name.lower().endswith(_OF_LABELS)]
    if not beside or not found.images:
        return ""
    return f"if {by_suffix(beside)} are labels: known are {', '.join(known)}"


def claimed(reader: Reader, place: Path, options: DataOptions) -> bool:
    """Whether what lies at `place`, which `reader` has found, is meant for it; what it cannot read
    at all is not."""
    try:
        return reader.claims is not None and reader.claims(place, options)
    except (UsageError, OSError):
        return False


def _finds(reader: Reader, options: DataOptions) -> bool:
    if reader.claims is None:
        return False
    try:
        place = reader.find(options, False)
    except (UsageError, OSError):
        return False
    return place is not None and claimed(reader, place, options)
