"""Which format a path is in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retinue.data.options import DataOptions
from retinue.data.sources.listing import Listing, Reader, given_path
from retinue.errors import UsageError, suggest

Readers = Mapping[str, Reader]
"""The formats that a task reads, by name; of those that recognise a path, the first is taken."""


def recognise(options: DataOptions, readers: Readers) -> tuple[Reader, Path]:
    """The format, and the file or folder that is to be read. Raises `UsageError`."""
    if options.format != "auto":
        if options.format not in readers:
            raise UsageError(
                f"unknown format {options.format!r}",
                where="key data.format",
                mend=suggest(options.format, readers) or f"there are auto, {', '.join(readers)}",
            )
        readers = {options.format: readers[options.format]}
    asked = options.format != "auto"
    for reader in readers.values():
        place = reader.find(options, asked)
        if place is not None:
            return reader, place
    raise UsageError(
        "data of no format that is known",
        where=repr(str(given_path(options))),
        mend=f"give one of: {', '.join(name for name, r in readers.items() if not r.installed)}",
    )


def read_listing(options: DataOptions, readers: Readers) -> tuple[Reader, Listing]:
    """The data as found, and its format. Raises `UsageError`."""
    try:
        reader, place = recognise(options, readers)
        return reader, reader.read(place, options)
    except OSError as error:
        what = f"cannot look through the data: {error.strerror or error}"
        where = repr(error.filename or options.path)
        raise UsageError(what, where=where, mend="see data=PATH") from error
