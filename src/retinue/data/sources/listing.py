"""What every format is read into: a list of records, and what was odd about them; and what a format
is."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from retinue.data.formats import is_image_name as is_image_name
from retinue.data.options import DataOptions
from retinue.errors import UsageError
from retinue.files import entries, nearest
from retinue.sample import Read, Target

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What people call the three splits, in lower case, and what we do."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a data set."""

    path: Path | None
    """None: the image lies in no file of its own; `read` gives it, and it is called by its name."""
    name: str
    """Path relative to the data's root, with `/`, in Unicode NFC: what splits are drawn by."""
    target: Target | None
    """With the classes' names."""
    split: str | None = None
    """`train`, `val` or `test`, where the data says so."""
    group: str | None = None
    """Images of one group stay together."""
    stratum: str = ""
    """Split evenly over these, too."""
    weight: float = 1.0
    read: Read | None = None
    """Where the image comes from; None: the file at `path`."""
    shard: str = ""
    """The file that holds the image among others; empty: none."""

    @property
    def key(self) -> str:
        """The path as it was found, or the name."""
        return self.name if self.path is None else str(self.path)


@dataclass(slots=True)
class Listing:
    """A data set as it was found, before classes and splits are settled."""

    format: str
    root: Path
    records: list[Record]
    notes: list[str] = field(default_factory=list)
    """Worth telling, and nothing wrong."""
    problems: list[str] = field(default_factory=list)
    """Rows that cannot be used, with file and line: what `on_bad_image` decides on."""
    errors: list[UsageError] = field(default_factory=list)
    """What training refuses in any case."""
    empty_classes: list[str] = field(default_factory=list)
    without_label: list[Path] = field(default_factory=list)
    """Images that lie beside the data and belong to no class or row."""
    missing: list[str] = field(default_factory=list)
    """Labels without an image: the names."""


@dataclass(frozen=True)
class Reader:
    """A format of data."""

    name: str
    find: Callable[[DataOptions, bool], Path | None]
    """The file or folder to be read, if the options' path is of this format. The second argument
    tells whether the options ask for the format by name: then what does not fit is a UsageError."""
    read: Callable[[Path, DataOptions], Listing]
    """Raises `UsageError` for what makes no sense."""
    class_order: tuple[str, ...] | None = None
    """Where the format brings an order of its classes."""
    installed: bool = False
    """Whether it is one set of data that an installed package brings, and no path leads to."""


def given_path(options: DataOptions) -> Path:
    """Where the options say the data is. Raises `UsageError` if they do not, or there is none."""
    if options.path is None:
        raise UsageError("no data", where="key data.path", mend="say data=PATH")
    path = Path(options.path).expanduser()
    if not path.exists():
        raise UsageError("no such file or folder", where=repr(options.path), mend=nearest(path))
    if not (path.is_dir() or path.is_file()):
        raise UsageError("neither a file nor a folder", where=repr(str(path)), mend=nearest(path))
    return path


def normal(text: str) -> str:
    """Unicode NFC: what macOS and others write as different bytes becomes the same name."""
    return unicodedata.normalize("NFC", text)


def relative_name(path: Path, root: Path) -> str:
    """`path` below `root` (or across from it), with `/`, in NFC."""
    return normal(Path(os.path.relpath(path, root)).as_posix())


def sort_classes(names: Iterable[str]) -> list[str]:
    """By NFC code points; by value when all are whole numbers."""
    unique = set(names)
    try:
        return sorted(unique, key=lambda name: (_whole(name), name))
    except ValueError:
        return sorted(unique, key=normal)


def _whole(name: str) -> int:
    if not name.lstrip("-").isdecimal():
        raise ValueError(name)
    return int(name)


def hidden(name: str) -> bool:
    """Files and folders that programs keep for themselves."""
    return name.startswith((".", "__MACOSX")) or name.lower() in ("thumbs.db", "desktop.ini")


DRAWN_MARK = ".drawn-by-retinue"
"""Stands in a folder of drawn predictions: no search for pictures goes in there."""


def is_drawn(folder: str | os.PathLike[str]) -> bool:
    """Whether the pictures in `folder` are drawn predictions."""
    return os.path.exists(os.path.join(folder, DRAWN_MARK))


def subfolders(folder: Path) -> list[Path]:
    """The folders directly below, hidden ones left out, sorted by name."""
    names = [
        e.name
        for e in entries(folder)
        # A folder that is called like an image is a broken image, not a class.
        if e.is_folder and not hidden(e.name) and not is_image_name(e.name)
        if not is_drawn(folder / e.name)
    ]
    return [folder / name for name in sorted(names, key=normal)]


def closed(error: OSError, folder: Path) -> UsageError:
    """What to say of a folder that cannot be looked into."""
    what = f"cannot look through the data: {error.strerror or error}"
    return UsageError(what, where=repr(str(folder)), mend="see data=PATH")


def image_files(
    folder: Path, *, recursive: bool = True, errors: list[UsageError] | None = None
) -> Iterator[Path]:
    """Everything below that is called like an image, sorted; follows links, never in circles.

    A folder called like an image is yielded, too: reading it will say what is wrong. One that may
    not be looked into is passed over and told to `errors`.
    """
    seen: set[str] = set()
    stack = [folder]
    while stack:
        here = stack.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        try:
            found = sorted(entries(here), key=lambda entry: normal(entry.name))
        except OSError as error:
            if errors is not None:
                errors.append(closed(error, here))
            continue
        deeper = []
        for entry in found:
            if hidden(entry.name):
                continue
            if is_image_name(entry.name):
                yield here / entry.name
            elif recursive and entry.is_folder and not is_drawn(here / entry.name):
                deeper.append(here / entry.name)
        stack.extend(reversed(deeper))
