"""Writing files so that nothing partial ever replaces something whole; finding misspelt ones."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

_MOST_LOOKED_AT = 10_000


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last through a power cut (no-op where unsupported)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` if the context ends well.

    Its folder is made if it is not there. The file is synced before the rename. On any error the
    temporary file goes and `path` stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
    except FileExistsError:
        code = errno.ENOTDIR  # a file where a folder should be
        raise NotADirectoryError(code, os.strerror(code), str(path)) from None
    except OSError as error:
        error.filename = str(path)  # nobody has heard of the temporary name
        raise
    os.close(descriptor)
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
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8, newlines as they are)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def nearest(path: Path) -> str:
    """How to mend a `path` that is not there: the name that was meant, or how far it exists."""
    base = path
    while not base.exists() and base != base.parent:
        base = base.parent
    if base == path or not base.is_dir():
        return f"{str(base)!r} is a {'folder' if base.is_dir() else 'file'}"
    names: list[str] = []
    with suppress(OSError):
        names = [child.name for child in islice(base.iterdir(), _MOST_LOOKED_AT)]
    near = get_close_matches(path.parts[len(base.parts)], names, n=1)
    if near:
        return f"did you mean {str(base / near[0])!r}?"
    return f"the nearest that exists is {str(base.absolute())!r}"
