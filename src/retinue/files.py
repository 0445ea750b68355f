"""Opening what is a file and nothing else; writing so that nothing partial ever replaces something
whole; reading text as people's programs write it; finding misspelt names; where things are
remembered."""

from __future__ import annotations

import codecs
import errno
import hashlib
import logging
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from retinue.errors import some
from retinue.text import cut, first_line

if sys.platform != "win32":
    import fcntl

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_MOST_LOOKED_AT = 10_000
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.partial(\.[a-z0-9]+)?", re.DOTALL)
_SECONDS_UNTOUCHED = 86_400
"""Where nothing tells whether a temporary file is still being written, its age does."""
_MOST_NAMED = 5
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class NotAFileError(OSError):
    """Something that has a name like a file and would keep a reader waiting."""


def open_file(path: str | os.PathLike[str]) -> BufferedReader:
    """The regular file at `path`, or at the end of its links, to be read.

    Nothing else is opened, so that nothing is waited for. Raises OSError: IsADirectoryError for a
    folder (PermissionError for one that may not be looked into), `NotAFileError` for named pipes,
    sockets and devices.
    """
    return open(path, "rb", opener=_only_files)


def _only_files(path: str, flags: int) -> int:
    """Opens for `open`; what is no regular file is refused before anything is waited for."""
    try:
        # A pipe without a writer is opened at once so, and not read.
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno == errno.ENXIO:  # what opening a socket says
            raise NotAFileError(error.errno, "is a socket, not a file", str(path)) from None
        if error.errno == errno.EACCES and os.path.isdir(path):
            raise _closed(path) from None
        raise
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind == stat.S_IFDIR and not os.access(path, os.R_OK | os.X_OK):
            raise _closed(path)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):  # `open` refuses folders itself
            said = f"is {_KINDS.get(kind, 'something else')}, not a file"
            raise NotAFileError(errno.EINVAL, said, str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _closed(path: str | os.PathLike[str]) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """All that is in the regular file at `path`. Raises as `open_file` does."""
    with open_file(path) as file:
        return file.read()


def expanded(path: str | os.PathLike[str]) -> Path:
    """`path`, one's home for a `~` that it begins with. `~nobody`, who has none, stays as it is, to
    be named as what is not there: pathlib would raise RuntimeError."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """Where things are remembered between runs: `$RETINUE_CACHE`, or retinue's folder where the
    system keeps caches. It need not exist."""
    if chosen := os.environ.get("RETINUE_CACHE"):
        return expanded(chosen).absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        caches = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not caches.is_absolute():  # such a value does not count, says the specification
            caches = Path.home() / ".cache"
    return caches / "retinue"


def no_cache(log: logging.Logger, what: str, folder: Path, error: Exception) -> None:
    """Tell that the `folder` where things are remembered between runs will not do, and `what` comes
    of it. Whoever asks goes on without it; once a process, as each of its files says the same."""
    why = getattr(error, "strerror", None) or first_line(error, type(error).__name__)
    if (str(folder), why) not in _told:
        _told.add((str(folder), why))
        log.warning("%s: %s, %r", what, why, str(folder))


_told: set[tuple[str, str]] = set()


class Entry(NamedTuple):
    """What lies in a folder."""

    name: str
    is_folder: bool
    """Or a link to one. What leads in a circle or nowhere is none."""


def entries(folder: str | os.PathLike[str]) -> list[Entry]:
    """What lies directly in `folder`, in no order. Raises OSError if it may not be looked into."""
    with os.scandir(folder) as found:
        return [Entry(e.name, _is_folder(e)) for e in found]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def or_room(error: OSError, otherwise: str) -> str:
    """How to mend that something cannot be written: `otherwise`, or first to make room, where that
    is what there is too little of."""
    return f"free some space, or {otherwise}" if error.errno in _NO_ROOM else otherwise


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last through a power cut (no-op where unsupported)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def replacing(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` if the context ends well.

    The name ends in `suffix`, for libraries that tell a format by it. Its folder is made if it is
    not there. The file is synced before the rename. On any error the temporary file goes and `path`
    stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = _made(path, suffix)
    except FileExistsError:
        code = errno.ENOTDIR  # a file where a folder should be
        raise NotADirectoryError(code, os.strerror(code), str(path)) from None
    except OSError as error:
        error.filename = str(path)  # nobody has heard of the temporary name
        raise
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0o077)  # what another thread makes meanwhile must not be for all
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp gives 0600
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _made(path: Path, suffix: str) -> tuple[int | None, str]:
    """A new temporary file for `path`, and a descriptor that says it is in use while it is open;
    None where the system has no such locks."""
    while True:
        descriptor, name = tempfile.mkstemp(
            f".partial{suffix}", f".{cut(path.name, 80)}.", path.parent
        )
        if sys.platform == "win32":
            os.close(descriptor)
            return None, name
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            return descriptor, name
        os.close(descriptor)  # swept before it was locked


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes have left in `folder`: those of `replacing`,
    by their names, which no living process is writing."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_if_idle(entry)


def _remove_if_idle(entry: os.DirEntry[str]) -> None:
    if not entry.is_file(follow_symlinks=False):
        return
    if sys.platform == "win32":
        if time.time() - entry.stat().st_mtime > _SECONDS_UNTOUCHED:
            os.unlink(entry.path)
        return
    descriptor = os.open(entry.path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is written
        os.unlink(entry.path)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8, newlines as they are)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 64


def encoding_of(start: bytes) -> str:
    """Of a text that begins so: `utf-16` or `utf-32` by its mark, `utf-16-le` or `-be` where every
    other byte is NUL but for a few, or `utf-8-sig`: UTF-8, with or without a mark."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    start = start[: min(len(start), _LOOKED_AT) // 2 * 2]
    for encoding, text, nul in (
        ("utf-16-le", start[::2], start[1::2]),
        ("utf-16-be", start[1::2], start[::2]),
    ):
        # Not a list between NULs: its names are longer than a letter or two.
        if len(start) >= 8 and nul.count(0) >= 0.7 * len(nul) and 0 not in text:
            return encoding
    return "utf-8-sig"


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of the file `path`, whichever program wrote it: UTF-8, UTF-16 or UTF-32 (Excel,
    PowerShell's `>`), with or without a mark. Line ends stay as they are.

    Raises OSError for a file that cannot be read, UnicodeDecodeError for what is no such text.
    """
    content = read_file(path)
    return content.decode(encoding_of(content[:_LOOKED_AT]))


def _kind(path: Path) -> str:
    if os.path.isdir(path):
        return "a folder"
    return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "a file")


def sha256(*paths: Path) -> str:
    """The hash of the files' bytes, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with open_file(path) as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()


def keep_list(lines: Iterable[str], name: str) -> Path | None:
    """A new file `retinue-NAME-….txt` in the system's folder for temporary files that holds
    `lines`; None where none can be written."""
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"retinue-{name}-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError:
        return None
    return Path(path)


def nearest(path: Path) -> str:
    """How to mend a `path` that is not there: the name that was meant, or how far it exists."""
    if near := _near(path):
        return f"did you mean {str(near)!r}?"
    base = _existing(path)
    if base == path or not os.path.isdir(base):
        return f"{str(base)!r} is {_kind(base)}"
    return f"the nearest that exists is {str(base.absolute())!r}"


def nearest_run(path: Path, holding: Sequence[str]) -> str:
    """How to mend a `path` that is no run folder: the name that was meant, or the runs there are,
    which are folders that hold one of the files `holding`."""
    beside = {path.parent, path.parent / "runs", Path("runs")}
    runs = sorted({run for folder in beside for run in children(folder)
                   if any(os.path.isfile(run / name) for name in holding)})  # fmt: skip
    close = get_close_matches(path.name, [run.name for run in runs], n=1)
    if close:
        return f"did you mean {str(next(run for run in runs if run.name == close[0]))!r}?"
    if near := _near(path):
        return f"did you mean {str(near)!r}?"
    if runs:
        named = some(list(map(str, runs)), _MOST_NAMED, between=", ")
        return f"there {'are' if len(runs) > 1 else 'is'} {named}"
    return nearest(path)


def _existing(path: Path) -> Path:
    """As much of `path` as there is. pathlib's own questions fail for names that are too long, or
    lead in a circle."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path


def _near(path: Path) -> Path | None:
    """What is there and called nearly so."""
    base = _existing(path)
    if base == path or not os.path.isdir(base):
        return None
    names = [child.name for child in children(base)]
    near = get_close_matches(path.parts[len(base.parts)], names, n=1)
    return base / near[0] if near else None


def children(folder: Path, most: int = _MOST_LOOKED_AT) -> list[Path]:
    """What lies in `folder`, at most so much, in no order; nothing if it cannot be looked into."""
    with suppress(OSError):
        return list(islice(folder.iterdir(), most))
    return []
