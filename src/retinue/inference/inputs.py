"""What to predict on: files, folders, patterns, lists, standard input, as a stream of paths."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from retinue.data.formats import meant_as_image
from retinue.errors import UsageError
from retinue.files import nearest

_BLOCK = 1 << 16


def expand(sources: Sequence[str | Path], stdin: IO[Any] | None = None) -> Iterator[str]:
    """The image files that `sources` name, in their order.

    A source is a file (whatever its extension), a folder (everything in it, at any depth, that has
    an image's extension, sorted; names beginning with a dot are passed over), a pattern
    (`'photos/**/*.jpg'`; sorted), `@LIST` (a file with a path a line, or separated by NUL), or `-`
    (the same from `stdin`). What exists under a name is taken before the name is read as a pattern
    or a list. Entries of a list are as written, or else relative to the list's folder; what they
    name need not exist: that shows when the file is read.

    Raises UsageError at once, before anything is read, for a source that is not there, a folder
    without images, a pattern without matches. Nothing is collected: a million files stream through.
    """
    if not sources:
        raise UsageError("nothing to predict on", mend="name a file, folder, pattern, @LIST or -")
    checked = [_check(os.fspath(source), stdin) for source in sources]
    return (path for kind, source in checked for path in _paths(kind, source, stdin))


def _check(source: str, stdin: IO[Any] | None) -> tuple[str, str]:
    if source == "-":
        if stdin is None:
            raise UsageError("there is no standard input to read paths from")
        return "stdin", source
    if _exists(source):
        if not os.path.isdir(source):
            return "file", source
        if next(_walk(source), None) is None:
            raise UsageError("no images", where=repr(source), mend="name a folder that has some")
        return "folder", source
    if source.startswith("@"):
        if not os.path.isfile(source[1:]):
            raise UsageError(
                "no such list of files", where=repr(source[1:]), mend=nearest(Path(source[1:]))
            )
        return "list", source[1:]
    if glob.has_magic(source):
        if next(glob.iglob(source, recursive=True), None) is None:
            raise UsageError(
                "no file matches the pattern", where=repr(source), mend="** stands for any folders"
            )
        return "pattern", source
    raise UsageError("no such file or folder", where=repr(source), mend=nearest(Path(source)))


def _paths(kind: str, source: str, stdin: IO[Any] | None) -> Iterator[str]:
    if kind == "file":
        yield source
    elif kind == "folder":
        yield from _walk(source)
    elif kind == "pattern":
        for match in sorted(glob.iglob(source, recursive=True)):
            if os.path.isfile(match):
                yield match
    elif kind == "list":
        folder = os.path.dirname(source)
        with open(source, "rb") as file:
            for entry in _entries(file):
                beside = os.path.join(folder, entry)
                yield from _entry(beside if not _exists(entry) and _exists(beside) else entry)
    else:
        assert stdin is not None
        for entry in _entries(getattr(stdin, "buffer", stdin)):
            yield from _entry(entry)


def _entry(path: str) -> Iterator[str]:
    if _exists(path) and os.path.isdir(path):
        yield from _walk(path)
    else:
        yield path


def _walk(folder: str) -> Iterator[str]:
    """Image files below `folder`, sorted; links are followed, but no folder is entered twice."""
    entered = set()

    def descend(place: str) -> Iterator[str]:
        real = os.path.realpath(place)
        if real in entered:
            return
        entered.add(real)
        try:
            names = sorted(os.listdir(place))
        except OSError:
            yield place  # fails again when it is read, and is then named among the skipped
            return
        for name in names:
            path = os.path.join(place, name)
            if name.startswith("."):
                continue
            if os.path.isdir(path):
                yield from descend(path)
            elif meant_as_image(name):
                yield path

    return descend(folder)


def _entries(file: IO[Any]) -> Iterator[str]:
    """Lines, or what lies between NULs if the first block has one; empty entries are left out."""
    rest, separator = b"", b""
    while True:
        block = _read(file)
        rest += block
        if not separator and b"\0" in rest:
            separator = b"\0"
        if not separator and (not block or rest.endswith(b"\n") or len(rest) >= _BLOCK):
            separator = b"\n"
        if separator:
            *whole, rest = rest.split(separator)
            yield from filter(None, (_decode(entry, separator) for entry in whole))
        if not block:
            last = _decode(rest, separator)
            if last:
                yield last
            return


def _read(file: IO[Any]) -> bytes:
    read = getattr(file, "read1", file.read)  # what there is, without waiting for a full block
    block = read(_BLOCK)
    return block if isinstance(block, bytes) else os.fsencode(block)


def _decode(entry: bytes, separator: bytes) -> str:
    return os.fsdecode(entry.rstrip(b"\r") if separator == b"\n" else entry)


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a NUL inside
        return False
