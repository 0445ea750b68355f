"""Whether a folder holds files of a kind, without walking through all of a large one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from retinue.data.sources.walking import hidden, subfolders

_DEEPEST, _FOLDERS, _FILES = 5, 200, 20_000


def ending_in(suffix: str) -> Callable[[str], bool]:
    """Whether a name ends so."""
    return lambda name: name.endswith(suffix)


def first_file(
    folder: Path, named: Callable[[str], bool], fits: Callable[[Path], bool], *, opened: int = 3
) -> Path | None:
    """A file below `folder` that is `named` so (in lower case) and `fits`: of each folder so many
    are `opened`, and of many folders not all are looked into."""
    level, looked = [folder], 0
    for _ in range(_DEEPEST):
        deeper: list[Path] = []
        for here in level:
            looked += 1
            if looked > _FOLDERS:
                return None
            found = _in(here, named, fits, opened)
            if found is not None:
                return found
            with suppress(OSError):  # one that may not be looked into; whoever reads it says so
                deeper += subfolders(here)
        level = deeper
    return None


def _in(
    folder: Path, named: Callable[[str], bool], fits: Callable[[Path], bool], opened: int
) -> Path | None:
    names: list[str] = []
    with suppress(OSError), os.scandir(folder) as listed:
        for entry in islice(listed, _FILES):
            if named(entry.name.lower()) and not hidden(entry.name):
                names.append(entry.name)
    for name in sorted(names)[:opened]:
        with suppress(OSError):
            if fits(folder / name):
                return folder / name
    return None
