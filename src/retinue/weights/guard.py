"""What is refused before a file of weights is unpacked: sizes that cannot be, and paths outside."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from retinue.documents import parse_json
from retinue.errors import RetinueError
from retinue.files import read_file

MOST_EXPANSION = 20
"""Trained weights hardly shrink; what unpacks to more times its size is no such thing."""
MOST_JSON = 64 * 2**20
"""Bytes of a description."""


def check_size(unpacked: int, packed: int, where: str) -> None:
    """Refuse data that would take implausibly more memory than the file has bytes."""
    if unpacked > MOST_EXPANSION * packed + 2**20:
        raise RetinueError(
            f"implausible: a file of {packed:,} bytes that unpacks to {unpacked:,}", where=where
        )


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse an archive that is encrypted or unpacks to implausibly much."""
    if any(item.flag_bits & 1 for item in archive.infolist()):
        raise RetinueError(
            "the archive is encrypted", where=str(path), mend="unpack it, and pack it without"
        )
    unpacked = sum(item.file_size for item in archive.infolist())
    check_size(unpacked, path.stat().st_size, str(path))


def inside(folder: Path, name: str, named_by: Path) -> Path:
    """The file `name` of `folder`, as the description `named_by` calls it.

    Raises:
        RetinueError: it would lie outside of the folder, or is not there.
    """
    pure = PurePosixPath(name)
    outside = pure.is_absolute() or ".." in pure.parts or PureWindowsPath(name).drive
    if outside or "\\" in name or not pure.parts:
        raise RetinueError(f"{name!r} is no file of this folder", where=str(named_by))
    path = folder / name
    if not path.is_file():
        raise RetinueError(
            f"the file {name!r} is missing", where=str(named_by), mend="copy the folder whole"
        )
    return path


def load_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        RetinueError: unreadable, damaged, or no object.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        value = parse_json(read_file(path), foreign=True)
    except (ValueError, OSError) as error:
        raise RetinueError(f"damaged description: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise RetinueError("damaged description: no JSON object", where=str(path))
    return value
