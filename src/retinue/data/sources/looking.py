"""Whether a folder holds files of a kind, without walking through all of a large one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retinue.data.sources.walking import hidden, subfolders
from retinue.files import children

_DEEPEST, _FOLDERS, _FILES = 5, 200, 20_000


def first_file(
    folder: Path, suffix: str, fits: Callable[[Path], bool], *, opened: int = 3
) -> Path | None:
    """A file below `folder` that is called so (lower case, whatever it is in) and `fits`: of each
    folder so many are `opened`, and of many folders not all are looked into."""
    level, looked = [folder], 0
    for _ in range(_DEEPEST):
        deeper: list[Path] = []
        for here in level:
            looked += 1
            if looked > _FOLDERS:
                return None
            found = _in(here, suffix, fits, opened)
            if found is not None:
                return found
            deeper += subfolders(here)
        level = deeper
    return None


def _in(folder: Path, suffix: str, fits: Callable[[Path], bool], opened: int) -> Path | None:
    named = sorted(
        path
        for path in children(folder, _FILES)
        if path.name.lower().endswith(suffix) and not hidden(path.name)
    )
    for path in named[:opened]:
        try:
            if fits(path):
                return path
        except OSError:
            continue
    return None
