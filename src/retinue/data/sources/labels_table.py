"""A table of several labels an image: in one cell, a row each, or in a column a class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retinue.data.options import ColumnOptions, DataOptions
from retinue.data.sources.cells import Cells, read_cells
from retinue.data.sources.columns import (
    UNKNOWN,
    Columns,
    called_like_labels,
    find_class_columns,
    find_columns,
    says,
)
from retinue.data.sources.label_cells import (
    listed,
    marks_in,
    of_list,
    separator_in,
    splitter,
    vectors,
)
from retinue.data.sources.layout import find_table, tables_of_splits
from retinue.data.sources.listing import Listing, Reader
from retinue.data.sources.matching import Positions
from retinue.data.sources.records import NONE, different, texts_of
from retinue.data.sources.table import Labelling, read_table
from retinue.data.sources.walking import normal
from retinue.data.sources.words import is_missing, name_by_value, nearly_alike, sort_names
from retinue.data.targets.several_labels import SeveralLabels
from retinue.errors import UsageError, some
from retinue.sample import Target
from retinue.text import counted

_JUDGED = 400
"""Rows by which a table is claimed."""
_JOINED = 0.2
"""From this share of rows on whose image an earlier one has, they are several labels of one, and
no mistakes."""
_SHOWN = 5
_NO, _YES = 0, 1
Said = npt.NDArray[np.int8]


class SeveralALine(Labelling):
    """Any number of labels an image.

    In a column of labels, a cell without any says that none of the classes is there; several rows
    of one image are joined. In columns of yes and no, an empty cell and −1 leave it open; −1 is no
    where no cell says 0. Tables that are read by one of these are of one data set, and have to say
    no alike.
    """

    joins = True

    def __init__(self, options: DataOptions) -> None:
        self._asked = [normal(name) for name in options.classes or ()]
        self._separator = options.label_separator
        self._no: dict[int, Path] = {}
        """What says no, 0 or −1 → the first table in which it does."""

    def find(self, cells: Cells, options: ColumnOptions) -> Columns:
        """See `Labelling`."""
        by_class = find_class_columns(cells, options, self._asked)
        return find_columns(cells, options) if by_class is None else by_class

    def read(
        self, columns: Columns, position: Positions, usable: npt.NDArray[np.bool_], listing: Listing
    ) -> tuple[list[Target], Positions]:
        """See `Labelling`."""
        if columns.classes:
            return self._of_columns(columns, position, usable, listing)
        return self._of_cells(columns, position, usable, listing)

    # --- a column of labels -----------------------------------------------------------------------

    def _of_cells(
        self, columns: Columns, position: Positions, usable: npt.NDArray[np.bool_], listing: Listing
    ) -> tuple[list[Target], Positions]:
        texts, at = different(columns.needed("label"))
        code = at.astype(np.int64)
        column = columns.names[columns.place["label"]]
        lines = columns.first_lines(at)
        told = vectors(texts, self._asked)
        silent = np.zeros(len(texts), bool)
        if told is not None:
            found: Iterable[Sequence[str]] = self._of_vectors(texts, lines, told, columns, listing)
            silent = np.array([not text.strip() for text in texts], bool)
            usable = usable & ~silent[code]
        else:
            found = self._taken_apart(texts, column, listing.notes)
        apart = [list(map(normal, cell)) for cell in found]
        parts = [[label for label in cell if not is_missing(label, self._asked)] for cell in apart]
        listing.notes += _no_labels(texts, lines, apart, parts)
        named = name_by_value({label for cell in parts for label in cell})
        sets = [frozenset(named[label] for label in cell) for cell in parts]
        listing.notes += nearly_alike(sort_names(named.values()))
        none = int((usable & np.array([not labels for labels in sets], bool)[code]).sum())
        if none:
            have = counted(none, "row has", "rows have")
            listing.notes.append(f"{have} no label: none of the classes is in these images")
        code = self._joined(columns, position, usable, code, sets, listing)
        known: dict[frozenset[str], int] = {}
        place = [
            NONE if k < len(silent) and silent[k] else known.setdefault(labels, len(known))
            for k, labels in enumerate(sets)
        ]
        targets: list[Target] = [SeveralLabels(tuple(sort_names(labels))) for labels in known]
        return targets, np.array(place, np.int64)[code]

    def _of_vectors(
        self,
        cells: Sequence[str],
        lines: Sequence[int],
        told: Sequence[Sequence[bool] | None],
        columns: Columns,
        listing: Listing,
    ) -> list[list[str]]:
        """The labels of cells that have a 0 or 1 for each class; of an empty one, of which nobody
        knows, none. One that has more or fewer is an error."""
        asked = len(self._asked)
        usual = Counter(len(row) for row in told if row).most_common(1)[0][0]
        if all(row is None or len(row) != asked for row in told):
            label = columns.names[columns.place["label"]]
            given = f"data.classes names {asked}" if asked else "nothing names them"
            raise UsageError(
                f"cells of {label!r} have a 0 or 1 for each of {usual} classes, and {given}",
                where=columns.cells.where,
                mend=f"name the {usual}, in their order: data.classes=[A,B,…]",
            )
        listing.classes = self._asked
        for cell, row, line in zip(cells, told, lines, strict=True):
            if cell.strip() and len(row or ()) != asked:
                has = "is no row of 0 and 1" if row is None else f"has {len(row)} of 0 and 1"
                listing.errors.append(
                    UsageError(
                        f"{cell!r} {has}, and data.classes names {asked} classes",
                        where=columns.cells.at(line),
                        mend="write a 0 or 1 for each of them, in their order",
                    )
                )
        return [
            [name for name, there in zip(self._asked, row or (), strict=False) if there]
            for row in told
        ]

    def _taken_apart(
        self, cells: Sequence[str], column: str, notes: list[str]
    ) -> Iterable[Sequence[str]]:
        """The labels of each of `cells`; what was decided is said."""
        if self._separator == "auto" and listed(cells):
            notes.append(f"cells of {column!r} are read as lists of labels")
            return map(of_list, cells)
        between = self._separator
        if between == "auto":
            between = separator_in(cells, column)
            if between:
                marks = " and ".join(map(repr, marks_in(cells) or (between,)))
                notes.append(f"labels within a cell of {column!r} are apart by {marks}")
            elif blank := next((c for c in cells if "," in c or " " in c.strip()), None):
                mark = "," if "," in blank else " "
                notes.append(
                    f"each cell of {column!r} is one label, {blank.strip()!r} too:"
                    f" data.label_separator={mark!r} takes it apart"
                )
        return map(splitter(between, found=self._separator == "auto"), cells)

    def _joined(
        self,
        columns: Columns,
        position: Positions,
        usable: npt.NDArray[np.bool_],
        code: Positions,
        sets: list[frozenset[str]],
        listing: Listing,
    ) -> Positions:
        """(rows,) the codes, where the first row of an image has that of all its labels; `sets`
        gets those that are new."""
        again = _again(position, usable)
        if not len(again):
            return code
        listing.notes.append(
            f"{counted(len(again), 'row names an image', 'rows name images')} of an earlier row:"
            " the labels of an image are joined"
        )
        _refuse_two_splits(columns, position, usable, listing)
        first = _first_rows(position, usable)
        whole: dict[int, set[str]] = {}
        for row in again.tolist():
            at = first[int(position[row])]
            whole.setdefault(at, set(sets[code[at]])).update(sets[code[row]])
        code = code.copy()
        place = {labels: k for k, labels in enumerate(sets)}
        for at, labels in whole.items():
            joined = frozenset(labels)
            if joined not in place:
                place[joined] = len(sets)
                sets.append(joined)
            code[at] = place[joined]
        return code

    # --- a column a class -------------------------------------------------------------------------

    def _of_columns(
        self, columns: Columns, position: Positions, usable: npt.NDArray[np.bool_], listing: Listing
    ) -> tuple[list[Target], Positions]:
        names = list(columns.classes)
        said = np.stack([_said(columns, name, listing) for name in names], axis=1)
        minus = np.array([_minus_ones(columns, name) for name in names]).T
        by_minus = bool(minus.any()) and not (said == _NO).any()
        if by_minus or (said == _NO).any():
            alone = len(self._no) < 2
            self._no.setdefault(-1 if by_minus else 0, columns.cells.path)
            if alone and len(self._no) == 2:
                listing.errors.append(_said_otherwise(self._no))
        if by_minus:
            said = np.where(minus, np.int8(_NO), said)
            listing.notes.append("no cell says 0: −1 is taken for no, an empty cell for unknown")
        elif not listing.errors and (unknown := int((said[usable] == UNKNOWN).sum())):
            cells = counted(unknown, "cell leaves", "cells leave")
            listing.notes.append(f"{cells} it open whether a class is there (empty or −1)")
        _refuse_contradictions(columns, position, usable, said, listing)
        _refuse_two_splits(columns, position, usable, listing)
        listing.classes = names
        there = (said[usable] == _YES).any(axis=0)
        listing.empty_classes += [n for n, any_ in zip(names, there, strict=True) if not any_]
        listing.notes += nearly_alike(names)
        rows = np.ascontiguousarray(said).view(f"V{len(names)}")[:, 0]
        _, at, code = np.unique(rows, return_index=True, return_inverse=True)
        targets: list[Target] = []
        place = np.full(len(at), NONE, np.int64)
        for k, row in enumerate(at.tolist()):
            if (said[row] != UNKNOWN).any():
                place[k] = len(targets)
                targets.append(
                    SeveralLabels(
                        tuple(names[c] for c in np.flatnonzero(said[row] == _YES)),
                        unknown=tuple(names[c] for c in np.flatnonzero(said[row] == UNKNOWN)),
                    )
                )
        return targets, place[code]


def _no_labels(
    cells: Sequence[str],
    lines: Sequence[int],
    apart: Iterable[Sequence[str]],
    parts: Iterable[Sequence[str]],
) -> Iterator[str]:
    """What to say of labels that are taken for none, and of those that look so and are taken for
    one. `apart`: of each of the `cells`, whose first lines are `lines`; `parts`: those that
    stay."""
    none: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    for cell, line, all_of_it, own in zip(cells, lines, apart, parts, strict=True):
        for label in dict.fromkeys(all_of_it):
            if label not in own:
                none.setdefault(label, []).append(f"line {line}: {cell.strip()!r}")
            elif label.lower() == "none":
                names.setdefault(label, []).append(f"line {line}")
    for label, where in sorted(none.items()):
        yield f"{label!r} is no label, unless data.classes names it ({some(where, _SHOWN)})"
    for label, where in sorted(names.items()):
        first = f"first in {where[0]}"
        yield f"{label!r} is taken for a class ({first}); an empty cell says that there is none"


def _said_otherwise(tables: Mapping[int, Path]) -> UsageError:
    """`tables`: what says no → where."""
    return UsageError(
        f"−1 says no in this table, as no cell is 0, and in {tables[0].name!r} 0 does",
        where=repr(str(tables[-1])),
        mend="write 0 for no in all of them, and nothing where it is not known",
    )


def _refuse_contradictions(
    columns: Columns,
    position: Positions,
    usable: npt.NDArray[np.bool_],
    said: Said,
    listing: Listing,
) -> None:
    """A further row of an image has to say the same."""
    first, lines = _first_rows(position, usable), columns.cells.lines
    for row in _again(position, usable).tolist():
        before = first[int(position[row])]
        if not np.array_equal(said[row], said[before]):
            listing.problems.append(
                f"{columns.cells.at(int(lines[row]))}: says something else of the image in line"
                f" {int(lines[before])}"
            )


def _said(columns: Columns, name: str, listing: Listing) -> Said:
    """(rows,) of a class: yes, no or `UNKNOWN`; a word that says neither is an error."""
    column = columns.cells.columns[columns.classes[name]]
    texts, at = different(column)
    values = [says(word) for word in texts]
    for word, value, line in zip(texts, values, columns.first_lines(at), strict=True):
        if value is None:
            listing.errors.append(
                UsageError(
                    f"{word!r} says neither whether {name!r} is there nor that nobody knows",
                    where=columns.cells.at(line),
                    mend="write 1, 0, or nothing where it is not known; if it is no class,"
                    " data.classes=[A,B,…] names those that are",
                )
            )
    found: Said = np.array([UNKNOWN if v is None else v for v in values], np.int8)[at]
    return found


def _minus_ones(columns: Columns, name: str) -> npt.NDArray[np.bool_]:
    column = columns.cells.columns[columns.classes[name]]
    cells = pc.is_in(column, value_set=_MINUS)
    found: npt.NDArray[np.bool_] = cells.fill_null(False).to_numpy(zero_copy_only=False)
    return found


_MINUS = pa.array([b"-1", b"-1.0"], pa.large_binary())


def _again(position: Positions, usable: npt.NDArray[np.bool_]) -> Positions:
    """The rows whose image an earlier usable row has."""
    rows = np.flatnonzero(usable)
    later = np.ones(len(rows), bool)
    later[np.unique(position[rows], return_index=True)[1]] = False
    return rows[later]


def _first_rows(position: Positions, usable: npt.NDArray[np.bool_]) -> dict[int, int]:
    """Image → its first usable row."""
    rows = np.flatnonzero(usable)
    images, first = np.unique(position[rows], return_index=True)
    return dict(zip(images.tolist(), rows[first].tolist(), strict=True))


def _refuse_two_splits(
    columns: Columns, position: Positions, usable: npt.NDArray[np.bool_], listing: Listing
) -> None:
    """Rows of one image are of one split, fold and group, and weigh the same."""
    again = _again(position, usable)
    if not len(again):
        return
    splits, _ = columns.splits()
    roles: list[tuple[str, npt.NDArray[np.generic]]] = []
    if splits is not None:
        roles.append(("split", splits))
    for role in ("fold", "group", "stratum", "weight"):
        if (column := columns.of(role)) is not None:
            roles.append((role, column.fill_null(b"").dictionary_encode().indices.to_numpy()))
    first = _first_rows(position, usable)
    for row in again.tolist():
        at = first[int(position[row])]
        for role, values in roles:
            if values[row] != values[at]:
                lines = columns.cells.lines
                listing.problems.append(
                    f"{columns.cells.at(int(lines[row]))}: another {role} than that of the same"
                    f" image in line {int(lines[at])}"
                )


# --- the format -----------------------------------------------------------------------------------


def find_labels_table(options: DataOptions, asked: bool) -> Path | None:
    """See `find_table`."""
    return find_table(options, asked, SeveralALine(options).find)


def read_labels_table(place: Path, options: DataOptions) -> Listing:
    """See `read_table`; labels as `SeveralALine` has it."""
    return read_table(place, options, SeveralALine(options))


def claims(place: Path, options: DataOptions) -> bool:
    """Whether several labels an image are meant for sure: columns of yes and no for two classes or
    more, none of them called like one of labels unless it is asked for, several labels in a cell
    with a mark between, or many rows of the same images."""
    how = SeveralALine(options)
    if place.is_dir():
        place = next(iter(tables_of_splits(place, options, how.find).values()))
    columns = how.find(read_cells(place, most=_JUDGED), options.columns)
    if columns.classes:
        # `path,label,blurry` of 0 and 1 is as likely one label and something beside it.
        doubtful = not options.classes and any(map(called_like_labels, columns.classes))
        return len(columns.classes) > 1 and not doubtful
    paths, labels = columns.needed("path"), columns.needed("label")
    cells = texts_of(labels.fill_null(b"").unique())
    if (
        vectors(cells, options.classes or ())
        or listed(cells)
        or separator_in(cells, columns.names[columns.place["label"]])
    ):
        return True
    pairs = len(set(zip(texts_of(paths), texts_of(labels), strict=True)))
    return pairs - len(paths.unique()) > _JOINED * max(len(paths), 1)


LABELS_TABLE = Reader(
    "table",
    find_labels_table,
    read_labels_table,
    heeds=frozenset({"label_separator"}),
    also=frozenset({"csv"}),
    claims=claims,
    labels="several labels an image, in a table",
)
