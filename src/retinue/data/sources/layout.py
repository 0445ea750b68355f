"""What a folder holds: class folders, splits of them, a table with its images; or one folder that
holds all that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retinue.data.options import ColumnOptions, DataOptions
from retinue.data.sources.cells import Cells, read_cells
from retinue.data.sources.columns import Columns, find_columns
from retinue.data.sources.listing import given_path
from retinue.data.sources.matching import Files, match
from retinue.data.sources.records import NONE, Names, texts_of
from retinue.data.sources.walking import hidden, normal, subfolders, walk
from retinue.data.sources.words import ORDER, split_in, split_of
from retinue.errors import UsageError
from retinue.files import expanded, nearest

TABLES = (".csv", ".tsv", ".txt")
_AROUND = 3
"""Folders that may lie around a data set, each alone in the one before."""
_READ, _TRIED, _FOLDERS = 400, 20, 20
"""Rows that a table is judged by, names among them that are looked for, folders they may be in."""


FindColumns = Callable[[Cells, ColumnOptions], Columns]
"""Tells a table's columns by what they say; UsageError where that cannot be told."""


class SplitFolders(NamedTuple):
    """The folders of a data set that brings its splits."""

    of: dict[str, Path]
    """Split → folder."""
    classes: bool
    """Whether there are class folders in them."""
    alone: bool
    """Whether there is nothing beside them."""


def split_folders(root: Path) -> SplitFolders:
    """Those in `root` that are called like a split. Raises `UsageError` if two are the same."""
    folders = subfolders(root)
    found: dict[str, Path] = {}
    for folder in folders:
        split = split_of(folder.name)
        if split is None:
            continue
        if split in found:
            raise UsageError(
                f"two folders for the split {split!r}: {found[split].name!r} and {folder.name!r}",
                where=repr(str(root)),
                mend="keep one of them",
            )
        found[split] = _innermost(folder, split)
    alone = len(found) == len(folders)
    # A class may be called "test": splits are meant where there is one to train on, or nothing but.
    inside = [found["train"]] if "train" in found else list(found.values()) if alone else []
    return SplitFolders(found, bool(inside) and all(map(subfolders, inside)), alone)


def _innermost(folder: Path, split: str) -> Path:
    """`train/train/` and the like, as archives have it, is one folder."""
    while len(inner := subfolders(folder)) == 1 and split_of(inner[0].name) == split:
        folder = inner[0]
    return folder


def within(path: Path) -> Path:
    """The folder that the data lies in: `path`, or the one that holds it all, as unpacked archives
    have it."""
    if tables_in(path):
        return path
    inner = path
    for _ in range(_AROUND):
        folders = subfolders(inner)
        if len(folders) != 1 or split_of(folders[0].name) or walk(inner, recursive=False).images:
            return path
        inner = folders[0]
        if len(subfolders(inner)) > 1 or tables_in(inner) or _holds_split(inner):
            return inner
    return path


def _holds_split(folder: Path) -> bool:
    return any(split_of(inner.name) and subfolders(inner) for inner in subfolders(folder))


# --- tables ---------------------------------------------------------------------------------------


def tables_in(folder: Path) -> list[Path]:
    """Tables in the folder; text files only when they are called like labels."""
    tables = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in TABLES and path.is_file() and not hidden(path.name)
    ]
    return [p for p in tables if p.suffix.lower() != ".txt" or "label" in p.stem.lower()]


def find_table(options: DataOptions, asked: bool, find: FindColumns = find_columns) -> Path | None:
    """The table that the options' path leads to, or the folder of one for each split. Raises
    `UsageError` where one must be there, or several could be meant."""
    path = given_path(options)
    if path.is_file():
        return path if asked or path.suffix.lower() in TABLES else None
    folder = within(path)
    tables = tables_in(folder)
    asked = asked or (bool(tables) and options.columns != ColumnOptions())
    splits = split_folders(folder)
    if not asked and (not tables or splits.classes):
        return None
    told = _telling(tables, options, asked, find)
    if len(told) == 1:
        return told[0]
    if one_a_split(told):
        return folder
    # Class folders are meant when there are several; one is where a table's images lie.
    several = len(subfolders(folder)) > 1 and not splits.alone
    if not asked and not told and (several or not tables):
        return None
    if not told and len(tables) == 1:
        return tables[0]
    found = ", ".join(repr(table.name) for table in told or tables) or "none"
    mend = "give the table itself as data=PATH"
    if any(split_of(table.stem) for table in told):
        mend += ", or keep one for each split, as train.csv and val.csv are"
    raise UsageError(
        f"one table was expected in this folder, found: {found}",
        where=repr(options.path),
        mend=mend,
    )


def one_a_split(tables: Sequence[Path]) -> dict[str, Path]:
    """Split → table, in the order of the splits, where several are each called like one of their
    own; empty where they are not."""
    by_split = {split: t for t in tables if (split := split_of(t.stem)) is not None}
    if len(tables) < 2 or len(by_split) < len(tables):
        return {}
    return {split: by_split[split] for split in ORDER if split in by_split}


def tables_of_splits(
    folder: Path, options: DataOptions, find: FindColumns = find_columns
) -> dict[str, Path]:
    """Those of a `folder` that `find_table` gave."""
    asked = options.format != "auto" or options.columns != ColumnOptions()
    return one_a_split(_telling(tables_in(folder), options, asked, find))


def _telling(
    tables: Sequence[Path], options: DataOptions, asked: bool, find: FindColumns
) -> list[Path]:
    """Those that tell labels; of a contest's sample of answers only where there is nothing else."""
    tables = [t for t in tables if "submission" not in t.stem.lower()] or tables
    return [t for t in tables if _tells(t, options, asked, find)]


def _tells(table: Path, options: DataOptions, asked: bool, find: FindColumns) -> bool:
    """Whether a table says of images that are there what they show; and, unless it was `asked` for,
    says something else than the folders they lie in."""
    try:
        columns = find(read_cells(table, most=_READ), options.columns)
        paths, labels = columns.needed("path"), columns.of("label")
        files = image_root(table, paths, options)
    except UsageError:
        return False
    at = _spread(len(paths))
    found = match(paths.take(pa.array(at)), files)
    there = np.flatnonzero(found.position >= 0)
    if not len(there):
        return False
    if labels is None:  # no single column: no folder says the same
        return True
    lie = texts_of(found.files.paths(found.position[there]))
    names = texts_of(labels.take(pa.array(at[there])))
    same = [normal(n) in normal(f).split("/")[:-1] for n, f in zip(names, lie, strict=True)]
    return asked or sum(same) * 2 < len(same)


def image_root(
    table: Path,
    paths: Names,
    options: DataOptions,
    *,
    around: bool = False,
    split: str | None = "train",
) -> Files:
    """The files of the folder that a table's paths start from. Of several, one that is called like
    the `split` comes first. `around`: where nothing lies with the table, it may be a folder beside
    the table's. Raises `UsageError` for one that is not there."""
    if options.images is not None:
        root = expanded(options.images)
        if not root.is_dir():
            where = f"key data.images, {options.images!r}"
            raise UsageError("no such folder", where=where, mend=nearest(root))
        return Files(root)
    folder = table.parent
    names = paths.take(pa.array(_spread(len(paths))))
    # Relative to the table; many bring the images in one folder beside it.
    files = Files(folder)
    own = _hits(names, files)
    if own.all():
        return files
    for root in (folder / "images", folder / table.stem):
        beside = Files(root)
        if root.is_dir() and _hits(names, beside).sum() > own.sum():
            return beside
    roots = _with_split_first(folder, split)
    others = [files, *map(Files, roots)]
    hits = [own, *(_hits(names, other) for other in others[1:])]
    spread = files
    if around and not any(h.any() for h in hits):
        for outer, folders in _further(folder, split):
            elsewhere = [Files(outer), *map(Files, folders)]
            found = [_hits(names, other) for other in elsewhere]
            if any(h.any() for h in found):
                spread, others, hits = elsewhere[0], elsewhere, found
                break
    best = int(np.argmax([h.sum() for h in hits]))
    # Where the images lie in several folders, each is searched for below the one around them.
    return others[best] if (np.logical_or.reduce(hits) == hits[best]).all() else spread


def _further(folder: Path, split: str | None) -> Iterator[tuple[Path, list[Path]]]:
    """Where else images may lie, the nearest first: a folder, and some in it."""
    yield folder, _deeper(folder, split)
    above = folder.absolute().parent
    yield above, _with_split_first(above, split)
    yield above, _deeper(above, split)


def _deeper(folder: Path, split: str | None) -> list[Path]:
    """The folders in those of `folder`."""
    outer = _with_split_first(folder, split)
    inner = [
        (place, split_in(place.name) != split and split_in(first.name) != split)
        for first in outer
        for place in subfolders(first)[:_FOLDERS]
    ]
    inner.sort(key=lambda pair: pair[1])
    return [place for place, _ in inner[:_FOLDERS]]


def _with_split_first(folder: Path, split: str | None) -> list[Path]:
    return sorted(subfolders(folder)[:_FOLDERS], key=lambda f: split_in(f.name) != split)


def _spread(count: int) -> npt.NDArray[np.int64]:
    """A few of `count` positions, evenly."""
    return np.unique(np.linspace(0, count - 1, min(_TRIED, count)).astype(np.int64))


def _hits(names: Names, files: Files) -> npt.NDArray[np.bool_]:
    hits: npt.NDArray[np.bool_] = match(names, files, strict=True).position != NONE
    return hits
