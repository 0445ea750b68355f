"""Networks that are described by a file: which files these are, and where a path of one stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from retinue.models.registry import find, list_models


def description_of(path: str) -> tuple[str, str] | None:
    """The network that the file `path` describes, going by its suffix, and the keyword that takes
    the path; None: no network has such files."""
    suffix = PurePath(path).suffix.lower()
    for entry in map(find, list_models() if suffix else []):
        if suffix in entry.described_by:
            return entry.name, entry.described_by[suffix]
    return None


def paths_among(name: str, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Those of the `arguments` of a network that are paths of files which describe it."""
    given = {key: arguments.get(key) for key in find(name).described_by.values()}
    return {k: v for k, v in given.items() if isinstance(v, str) and "\n" not in v}
