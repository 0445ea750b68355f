"""A table of paths and labels: csv, tsv, or text with spaces between, with or without a header."""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinue.data.options import DataOptions
from retinue.data.sources.listing import (
    SPLITS,
    Listing,
    Reader,
    Record,
    given_path,
    hidden,
    image_files,
    is_image_name,
    normal,
    relative_name,
    sort_classes,
    subfolders,
)
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError, suggest
from retinue.files import nearest, read_text

EXTENSIONS = (".csv", ".tsv", ".txt")
_COLUMNS = {
    "path": "path image file filename file_name filepath file_path image_path image_name "
    "image_file image_id img id",
    "label": "label class target class_name category label_name name y class_id category_id "
    "class_index species breed",
    "split": "split set subset fold partition",
    "group": "group group_id patient patient_id subject",
    "stratum": "stratify stratum",
    "weight": "weight sample_weight",
}


class _Row(NamedTuple):
    line: int
    cells: dict[str, str]
    """By our names of the columns."""
    others: dict[str, str]
    """By their own, the columns that could have been the label, too."""


def _find(options: DataOptions, asked: bool) -> Path | None:
    path = given_path(options)
    if path.is_file():
        return path if asked or path.suffix.lower() in EXTENSIONS else None
    tables = _tables(path)
    if not asked and (not tables or _has_classes(path)):
        return None
    if len(tables) != 1:
        found = ", ".join(repr(table.name) for table in tables) or "none"
        raise UsageError(
            f"one table was expected in this folder, found: {found}",
            where=repr(options.path),
            mend="give the table itself as data=PATH",
        )
    return tables[0]


def _tables(folder: Path) -> list[Path]:
    """Tables in the folder; text files only when they are called like labels."""
    tables = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not hidden(path.name)
    ]
    return [p for p in tables if p.suffix.lower() != ".txt" or "label" in p.stem.lower()]


def _has_classes(folder: Path) -> bool:
    """Class folders are meant when there are several; one is where a table's images lie."""
    return len(subfolders(folder)) > 1


def read_table(table: Path, options: DataOptions) -> Listing:
    """Columns `path` and `label` (or their usual other names); optionally `split`, `group`,
    `stratify` and `weight`. Raises `UsageError` with the line for a table that makes no sense."""
    rows = list(_rows(table))
    if not rows:
        raise UsageError("the table is empty", where=repr(str(table)), mend="a row an image")
    root = _image_root(table, rows, options)
    listing = Listing("table", root, [], notes=_ambiguous_labels(rows))
    find = _Finder(root)
    seen: dict[Path, int] = {}
    for line, cells, _ in rows:
        where = f"{str(table)!r} line {line}"
        found = find(cells["path"])
        if len(found) > 1:
            names = ", ".join(repr(path.name) for path in found)
            listing.problems.append(f"{where}: {cells['path']!r} can be any of {names}")
            continue
        if not found:
            listing.missing.append(cells["path"])
            listing.problems.append(f"{where}: no image {cells['path']!r} in {str(root)!r}")
            continue
        path = found[0]
        if path in seen:
            listing.problems.append(f"{where}: {cells['path']!r} again, as in line {seen[path]}")
            continue
        seen[path] = line
        if not cells["label"]:
            listing.problems.append(f"{where}: no label")
            listing.without_label.append(path)
            continue
        try:
            listing.records.append(_record(path, root, cells, where))
        except UsageError as error:
            listing.errors.append(error)
    listing.without_label.extend(_not_listed(root, set(seen), listing.errors))
    if not listing.records and not listing.errors:
        raise UsageError(
            "none of the table's images exist",
            where=listing.problems[0] if listing.problems else repr(str(table)),
            mend="give the folder that the paths start from as data.images=FOLDER",
        )
    return listing


def _record(path: Path, root: Path, cells: dict[str, str], where: str) -> Record:
    split = cells.get("split") or None
    if split is not None:
        split = SPLITS.get(split.lower())
        if split is None:
            raise UsageError(
                f"unknown split {cells['split']!r}", where=where, mend="use train, val or test"
            )
    try:
        weight = float(cells.get("weight") or 1)
        if not 0 <= weight < float("inf"):
            raise ValueError
    except ValueError:
        raise UsageError(f"weight {cells['weight']!r} is not a number ≥ 0", where=where) from None
    return Record(
        path,
        relative_name(path, root),
        OneClass(normal(cells["label"])),
        split,
        cells.get("group") or None,
        cells.get("stratum", ""),
        weight,
    )


def _ambiguous_labels(rows: list[_Row]) -> list[str]:
    """What is to be said where several columns could be the label: which are passed over, and
    labels that join what those tell apart."""
    others = list(rows[0].others)
    if not others:
        return []
    passed = ", ".join(map(repr, others))
    notes = [f"not used as labels: {passed} (the column called `label` is, where there is one)"]
    for column in others:
        values: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            if row.others.get(column):
                values[row.cells["label"]].add(row.others[column])
        joined = [label for label, found in values.items() if len(found) > 1]
        # A column with other values nearly everywhere is no name of a class, as an image's own.
        if joined and sum(map(len, values.values())) <= len(rows) / 2:
            shown = ", ".join(
                f"{label!r} ({', '.join(sort_classes(values[label])[:5])})" for label in joined[:5]
            )
            more = f" and {len(joined) - 5} more" if len(joined) > 5 else ""
            notes.append(f"one label for several values of {column!r}: {shown}{more}")
    return notes


def _rows(table: Path) -> Iterator[_Row]:
    """The rows with the columns by our names; a header is recognised and left out."""
    try:
        text = read_text(table)
    except OSError as error:
        raise UsageError(
            f"cannot read the table: {error.strerror}", where=repr(str(table))
        ) from None
    try:
        lines = list(_split_lines(text, table.suffix.lower()))
    except csv.Error as error:
        raise UsageError(
            f"cannot read the table: {error}",
            where=repr(str(table)),
            mend='is a closing `"` missing?',
        ) from None
    if not lines:
        return
    names = [_plain(cell) for cell in lines[0][1]]
    columns = _header(names)
    others: dict[str, int] = {}
    if columns is None:
        _refuse_misspelt(names, f"{str(table)!r} line {lines[0][0]}")
        columns = {"path": 0, "label": 1}
        if len(lines[0][1]) != 2:
            raise UsageError(
                f"{len(lines[0][1])} columns and no header that names a path and a label",
                where=f"{str(table)!r} line {lines[0][0]}",
                mend="add the header `path,label`",
            )
    else:
        labels = _COLUMNS["label"].split()
        used = columns.values()
        others = {n: i for i, n in enumerate(names) if n in labels and i not in used}
        lines = lines[1:]
    for line, cells in lines:
        if len(cells) <= max(columns["path"], columns["label"]):
            raise UsageError(
                f"{len(cells)} columns where {max(columns.values()) + 1} were expected",
                where=f"{str(table)!r} line {line}",
                mend="quote values that contain the separator",
            )
        yield _Row(line, _picked(cells, columns), _picked(cells, others))


def _picked(cells: list[str], columns: dict[str, int]) -> dict[str, str]:
    return {name: cells[i].strip() for name, i in columns.items() if i < len(cells)}


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _refuse_misspelt(names: list[str], where: str) -> None:
    """Raises `UsageError` if this is a header in which the path or the label is not recognised."""
    for wanted, other in (("label", "path"), ("path", "label")):
        near = {name: suggest(name, _COLUMNS[wanted].split()) for name in names}
        # A first row of data can hold a label called `y`, but hardly a path called `path`.
        if set(names) & set(_COLUMNS[other].split()) and (other == "path" or any(near.values())):
            mend = next(filter(None, near.values()), f"call the column `{wanted}`")
            shown = ", ".join(map(repr, names))
            raise UsageError(f"no column for the {wanted} among {shown}", where=where, mend=mend)


def _split_lines(text: str, suffix: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not blank."""
    first = text.split("\n", 1)[0]
    if suffix == ".txt" and "\t" not in first and "," not in first:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                # The path may contain spaces; the label is what follows the last of them.
                yield number, line.strip().rsplit(maxsplit=1)
        return
    candidates = "\t" if suffix == ".tsv" else ",;\t"
    delimiter = max(candidates, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    start = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield start, cells
        start = reader.line_num + 1


def _header(names: list[str]) -> dict[str, int] | None:
    found: dict[str, int] = {}
    for column, aliases in _COLUMNS.items():
        # In the order of the aliases, so that `label` is preferred to `name`.
        for alias in aliases.split():
            if alias in names and names.index(alias) not in found.values():
                found[column] = names.index(alias)
                break
    return found if "path" in found and "label" in found else None


def _image_root(table: Path, rows: list[_Row], options: DataOptions) -> Path:
    if options.images is not None:
        root = Path(options.images).expanduser()
        if not root.is_dir():
            where = f"key data.images, {options.images!r}"
            raise UsageError("no such folder", where=where, mend=nearest(root))
        return root
    folder = table.parent
    # Relative to the table; many bring the images in one folder beside it.
    names = [row.cells["path"] for row in rows[:20]]
    for root in (folder, folder / "images", folder / table.stem):
        find = _Finder(root)
        if root.is_dir() and any(find(name) for name in names):
            return root
    return folder


class _Finder:
    """The files that a table can mean, given with or without their extension."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, dict[str, list[Path]]] = {}

    def __call__(self, name: str) -> list[Path]:
        path = self.root / name
        if name and os.path.lexists(path) and (is_image_name(name) or not path.is_dir()):
            return [path]
        return self._listing(path.parent).get(normal(path.name), [])

    def _listing(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listings:
            by_stem: dict[str, list[Path]] = defaultdict(list)
            by_name: dict[str, list[Path]] = {}
            if os.path.isdir(folder):  # pathlib's own fails for names that are too long
                for path in image_files(folder, recursive=False):
                    by_stem[normal(path.stem)].append(path)
                    by_name[normal(path.name)] = [path]
            self._listings[folder] = {**by_stem, **by_name}
        return self._listings[folder]


def _not_listed(root: Path, listed: set[Path], errors: list[UsageError]) -> list[Path]:
    """Images in the folders that the table speaks of, which it leaves out."""
    folders = sorted({path.parent for path in listed})
    return [
        path
        for folder in folders
        for path in image_files(folder, recursive=False, errors=errors)
        if path not in listed
    ]


TABLE = Reader("table", _find, read_table)
