"""Which format a path is in."""

from __future__ import annotations

from pathlib import Path

from retinue.data.options import DataOptions
from retinue.data.sources.elpv import CLASSES as ELPV_CLASSES
from retinue.data.sources.elpv import read_elpv
from retinue.data.sources.folder import read_folder
from retinue.data.sources.listing import Listing, hidden, subfolders
from retinue.data.sources.table import EXTENSIONS, read_table
from retinue.errors import UsageError
from retinue.files import nearest

CLASS_ORDER = {"elpv": ELPV_CLASSES}
"""Formats that bring an order of their classes."""


def recognise(options: DataOptions) -> tuple[str, Path | None]:
    """The format, and the file or folder that is to be read. Raises `UsageError`."""
    if options.format == "elpv" or (options.path == "elpv" and not Path("elpv").exists()):
        return "elpv", None
    if options.path is None:
        raise UsageError("no data", where="key data.path", mend="say data=PATH")
    path = Path(options.path).expanduser()
    if not path.exists():
        raise UsageError("no such file or folder", where=repr(options.path), mend=nearest(path))
    if options.format == "folder":
        return "folder", path
    if path.is_file():
        if options.format == "auto" and path.suffix.lower() not in EXTENSIONS:
            raise UsageError(
                "neither a folder nor a table",
                where=repr(options.path),
                mend=f"give a folder of class folders, or a table ({', '.join(EXTENSIONS)})",
            )
        return "table", path
    tables = _tables(path)
    if options.format == "table" or (tables and not _has_classes(path)):
        if len(tables) != 1:
            found = ", ".join(repr(table.name) for table in tables) or "none"
            raise UsageError(
                f"one table was expected in this folder, found: {found}",
                where=repr(options.path),
                mend="give the table itself as data=PATH",
            )
        return "table", tables[0]
    return "folder", path


def _tables(folder: Path) -> list[Path]:
    """Tables in the folder; text files only when they are called like labels."""
    tables = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not hidden(path.name)
    ]
    likely = [p for p in tables if p.suffix.lower() != ".txt" or "label" in p.stem.lower()]
    return likely


def _has_classes(folder: Path) -> bool:
    """Class folders are meant when there are several; one is where a table's images lie."""
    return len(subfolders(folder)) > 1


def read_listing(options: DataOptions) -> Listing:
    """The data as found, of whatever format. Raises `UsageError`."""
    try:
        kind, path = recognise(options)
        if kind == "elpv" or path is None:
            return read_elpv(options)
        return read_table(path, options) if kind == "table" else read_folder(path, options)
    except OSError as error:
        what = f"cannot look through the data: {error.strerror or error}"
        where = repr(error.filename or options.path)
        raise UsageError(what, where=where, mend="see data=PATH") from error
