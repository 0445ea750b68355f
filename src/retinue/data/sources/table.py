"""A table of paths and labels: csv, tsv, or text with spaces between, with or without a header."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retinue.data.options import ColumnOptions, DataOptions
from retinue.data.sources.cells import Cells, read_cells
from retinue.data.sources.columns import Columns, find_columns
from retinue.data.sources.layout import find_table, image_root, tables_in, tables_of_splits
from retinue.data.sources.listing import Listing, Reader
from retinue.data.sources.matching import SEVERAL, Match, Positions, composed, match
from retinue.data.sources.records import NONE, Names, Records, different, text_of, texts_of
from retinue.data.sources.split_tables import joined
from retinue.data.sources.walking import normal, subfolders, walk
from retinue.data.sources.words import (
    is_missing,
    name_by_value,
    nearly_alike,
    sort_names,
    split_of,
)
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError, some
from retinue.files import expanded
from retinue.sample import Target
from retinue.text import counted

_SUGGESTED = 5
"""Missing files for which a near one is looked for."""
_SHOWN = 5


class Labelling(ABC):
    """How the rows of a table say what their images show."""

    joins = False
    """Whether several rows may speak of one image."""

    def find(self, cells: Cells, options: ColumnOptions) -> Columns:
        """See `find_columns`."""
        return find_columns(cells, options)

    @abstractmethod
    def read(
        self, columns: Columns, position: Positions, usable: npt.NDArray[np.bool_], listing: Listing
    ) -> tuple[list[Target], Positions]:
        """Every target, and that of each row, `NONE` where it says nothing. `position` (rows,): the
        file of each. Where rows are joined, the first one of each image has what all of them say.
        What is to be said, and classes in an order of their own, become the listing's."""


def read_table(place: Path, options: DataOptions, labelling: Labelling | None = None) -> Listing:
    """Columns `path` and `label` (or their usual other names); optionally `split`, `group`,
    `stratify` and `sample_weight`. Rows without a label are left out, and counted. `place`: the
    table, or a folder of one for each split. `labelling`: by default, each row has one class.
    Raises `UsageError` with the line for a table that makes no sense."""
    how = labelling or _OneClassARow(options)
    if not place.is_dir():
        listing, without_row = _read(place, options, [place], how)
        _note_without_row(listing, without_row, [place])
        return listing
    tables = tables_of_splits(place, options, how.find)
    read = {split: (t, *_read(t, options, tables.values(), how)) for split, t in tables.items()}
    whole = joined(place, {split: (table, own) for split, (table, own, _) in read.items()})
    listed = {own.root / name for _, own, _ in read.values() for name in _files(own)}
    listed.update(path for _, own, _ in read.values() for path in own.without_label)
    without_row = [path for *_, beside in read.values() for path in beside if path not in listed]
    _note_without_row(whole, list(dict.fromkeys(without_row)), list(tables.values()))
    return whole


def _files(listing: Listing) -> list[str]:
    return texts_of(listing.records.files)


def _read(
    table: Path, options: DataOptions, together: Collection[Path], labelling: Labelling
) -> tuple[Listing, list[Path]]:
    """One table of those that are read `together`, and the images beside its own that no row of it
    names."""
    columns = labelling.find(read_cells(table), options.columns)
    paths = columns.needed("path")
    if not len(paths):
        raise UsageError("the table is empty", where=repr(str(table)), mend="a row an image")
    found = match(paths, image_root(table, paths, options))
    listing = Listing("table", found.files.root, Records.of([]))
    listing.notes += [*columns.notes, *_ambiguous_labels(columns), *_read_otherwise(paths, found)]
    listing.notes += _beside(table, options, together)
    usable = _usable(columns, paths, found, listing, joins=labelling.joins)
    listing.errors += found.files.closed
    targets, codes = labelling.read(columns, found.position, usable, listing)
    usable &= _first(found.position)
    without_row = _unlabelled(table, columns, found, usable, codes, listing)
    kept = np.flatnonzero(usable & (codes != NONE))
    if not len(kept):
        for error in listing.errors:
            raise error
        raise _nothing_left(columns, texts_of(paths[:1])[0], usable, listing)
    listing.records = _records(columns, found, kept, (targets, codes), listing.errors)
    return listing, without_row


def _records(
    columns: Columns,
    found: Match,
    kept: Positions,
    labels: tuple[Sequence[Target], Positions],
    errors: list[UsageError],
) -> Records:
    """Of the rows `kept`; a split or weight that is none is an error."""
    targets, codes = labels
    splits, wrong = columns.splits()
    weights, wrong_weights = _weights(columns)
    errors += [*wrong, *wrong_weights]
    files = found.files.paths(found.position[kept])
    stratum = columns.of("stratum")
    return Records(
        names=composed(files),
        targets=targets,
        target=codes[kept],
        root=found.files.root,
        files=files,
        split=None if splits is None else splits[kept],
        fold=_or_none(columns.of("fold"), kept),
        group=_or_none(columns.of("group"), kept),
        stratum=None if stratum is None else stratum.take(pa.array(kept)),
        weight=None if weights is None else weights[kept],
    )


def _or_none(column: Names | None, kept: Positions) -> Names | None:
    """The rows `kept` of a column; an empty cell says nothing."""
    if column is None:
        return None
    given = pc.greater(pc.binary_length(column), 0)
    return pc.if_else(given, column, pa.scalar(None, pa.large_binary())).take(pa.array(kept))


_HEAVIEST = 1e30
"""The sum of a batch's losses, each times its weight, is a 32-bit number."""


def _weights(columns: Columns) -> tuple[npt.NDArray[np.float64] | None, list[UsageError]]:
    """(rows,) what each counts, 1 where a cell is empty or no weight; and an error for each word
    that is none, with its first line."""
    column = columns.of("weight")
    if column is None:
        return None, []
    texts, at = different(column)
    values = [_weight(word) for word in texts]
    errors = columns.refused(
        texts,
        at,
        [value is None for value in values],
        lambda word: f"weight {word!r} is not a number from 0 to {_HEAVIEST:g}",
        "data.columns.weight=null reads no weights",
    )
    weights: npt.NDArray[np.float64] = np.array([1.0 if v is None else v for v in values])[at]
    return weights, errors


def _weight(word: str) -> float | None:
    try:
        weight = float(word or 1)
    except ValueError:
        return None
    return weight if 0 <= weight <= _HEAVIEST else None


# --- rows that say nothing ------------------------------------------------------------------------


def _usable(
    columns: Columns, paths: Names, found: Match, listing: Listing, *, joins: bool
) -> npt.NDArray[np.bool_]:
    """(rows,) whether a row has an image that no earlier one has (`joins`: that one may have, too);
    what is wrong with the others becomes a problem each, in their order."""
    cells, position = columns.cells, found.position
    usable = position >= 0 if joins else (position >= 0) & _first(position)
    lines = dict(zip(position[usable].tolist(), cells.lines[usable].tolist(), strict=True))
    for row in np.flatnonzero(~usable).tolist():
        name, at = text_of(paths[row]) or "", int(position[row])
        if at == SEVERAL:
            names = ", ".join(sorted(repr(found.files.path(k)) for k in found.candidates[row]))
            what = f"{name!r} can be any of {names}"
        elif at == NONE:
            near = found.near(name) if len(listing.missing) < _SUGGESTED else ""
            listing.missing.append(name)
            what = f"no image {name!r} in {str(listing.root)!r}"
            what += f" (there is {near!r})" if near else ""
        else:
            what = f"{name!r} again, as in line {lines[at]}"
        listing.problems.append(f"{cells.at(int(cells.lines[row]))}: {what}")
    return usable


def _first(position: Positions) -> npt.NDArray[np.bool_]:
    """(rows,) whether no earlier row has the same."""
    found = np.zeros(len(position), bool)
    found[np.unique(position, return_index=True)[1]] = True
    return found


def _nothing_left(
    columns: Columns, first: str, usable: npt.NDArray[np.bool_], listing: Listing
) -> UsageError:
    table = columns.cells.path
    if usable.any():
        mend = "fill the column of labels, or name another as data.columns.label=COLUMN"
        return UsageError("no row of the table has a label", where=repr(str(table)), mend=mend)
    mend = "give the folder that the paths start from as data.images=FOLDER"
    if list(columns.names) == ["1", "2"]:
        mend += ", or if the label comes first, data.columns.path=2 data.columns.label=1"
    if "://" in first:
        mend = "download the images, and give their folder as data.images=FOLDER"
    where = listing.problems[0] if listing.problems else repr(str(table))
    return UsageError("none of the table's images exist", where=where, mend=mend)


def _unlabelled(
    table: Path,
    columns: Columns,
    found: Match,
    usable: npt.NDArray[np.bool_],
    codes: Positions,
    listing: Listing,
) -> list[Path]:
    """Notes the images of rows without a label; gives those of no row."""
    labels = columns.of("label")
    rows = np.flatnonzero(usable & (codes == NONE))
    if len(rows):
        files = texts_of(found.files.paths(found.position[rows]))
        listing.without_label += [found.files.root / name for name in files]
        line = int(columns.cells.lines[rows[0]])
        have = counted(len(rows), "row has", "rows have")
        words = [] if labels is None else texts_of(labels.take(rows).unique())
        none = sorted({text.strip() for text in words} - {""})
        mean, them = ("means", "it") if len(none) == 1 else ("mean", "them")
        such = f" ({', '.join(map(repr, none))} {mean} none, unless data.classes names {them})"
        listing.notes.append(f"{have} no label: left out, first line {line}{such if none else ''}")
    beside = found.files.images_beside(found.position[usable])
    known = {found.files.root / found.files.folders[k] for k in found.files.used(found.position)}
    for folder in subfolders(table.parent):
        if split_of(folder.name) and folder not in known and not subfolders(folder):
            beside += [folder / name for name in walk(folder, recursive=False).images]
    return beside


def _note_without_row(listing: Listing, images: list[Path], tables: Sequence[Path]) -> None:
    if images:
        listing.without_label += images
        have = counted(len(images), "image has", "images have")
        names = " or ".join(table.name for table in tables)
        listing.notes.append(f"{have} no row in {names}: left out")


def _beside(table: Path, options: DataOptions, together: Collection[Path]) -> Iterator[str]:
    """Of a folder that holds more than the tables that are read `together`, said of the first."""
    if table != next(iter(together)):
        return
    if options.path is None or not expanded(options.path).is_dir():
        return
    others = [other.name for other in tables_in(table.parent) if other not in together]
    if others:
        yield f"not read beside {table.name}: {some(others, _SHOWN, between=', ')}"
    if len([f for f in subfolders(table.parent) if not split_of(f.name)]) > 1:
        yield f"labels are those of {table.name}; data.format=folder takes the folders' names"


def _read_otherwise(paths: Names, found: Match) -> Iterator[str]:
    """Names that were not found to the letter."""
    for what, count, row in found.readings():
        name, file = text_of(paths[row]), found.files.path(int(found.position[row]))
        rows = counted(count, "row names its image", "rows name their images")
        yield f"{rows} with other {what}: {name!r} is read as {file!r}"


# --- labels ---------------------------------------------------------------------------------------


class _OneClassARow(Labelling):
    """A label a row."""

    def __init__(self, options: DataOptions) -> None:
        self._asked = options.classes or ()

    def read(
        self, columns: Columns, position: Positions, usable: npt.NDArray[np.bool_], listing: Listing
    ) -> tuple[list[Target], Positions]:
        """See `Labelling`."""
        names, codes = _classes(columns.needed("label"), self._asked, listing.notes)
        return [OneClass(name) for name in names], codes


def _classes(labels: Names, asked: Sequence[str], notes: list[str]) -> tuple[list[str], Positions]:
    """The classes' names, and the class of each row; `NONE` where its label is missing."""
    words = labels.fill_null(b"").dictionary_encode()
    texts = [normal(text.strip()) for text in texts_of(words.dictionary)]
    present = {text for text in texts if not is_missing(text, asked)}
    named = name_by_value(present)
    if changed := sorted(label for label in named if named[label] != label):
        notes.append(
            f"labels are numbers, and classes called so: {changed[0]!r} is {named[changed[0]]!r}"
        )
    names = sort_names(named.values())
    code = {name: k for k, name in enumerate(names)}
    codes = [code[named[text]] if text in named else NONE for text in texts]
    for odd in sorted(present & {"None", "none"}):
        notes.append(f"{odd!r} is taken for a class; an empty cell is a missing label")
    notes += nearly_alike(names)
    return names, np.array(codes, np.int64)[words.indices.to_numpy()]


def _ambiguous_labels(columns: Columns) -> Iterator[str]:
    """What is to be said where several columns could be the label: which are passed over, and
    labels that join what those tell apart."""
    if not columns.others:
        return
    passed = ", ".join(map(repr, columns.others))
    yield f"not used as labels: {passed} (data.columns.label=COLUMN takes another)"
    labels = columns.needed("label")
    for column, at in columns.others.items():
        other = columns.cells.columns[at]
        pairs = pa.table({"label": labels, "other": other}).group_by(["label", "other"])
        values: dict[str, set[str]] = defaultdict(set)
        both = pairs.aggregate([])
        # A column with other values nearly everywhere is no name of a class, as an image's own.
        if len(both) > len(labels) / 2:
            continue
        for label, value in zip(texts_of(both["label"]), texts_of(both["other"]), strict=True):
            if value:
                values[label].add(value)
        joined = [label for label, found in values.items() if len(found) > 1]
        if joined:
            shown = [
                f"{label!r} ({some(sort_names(values[label]), _SHOWN, between=', ')})"
                for label in joined
            ]
            said = some(shown, _SHOWN, between=", ")
            yield f"one label for several values of {column!r}: {said}"


TABLE = Reader("table", find_table, read_table, also=frozenset({"csv"}))
