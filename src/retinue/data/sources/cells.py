"""A table's text, whoever wrote it: encoding, separator and quotes are found out, and every row
keeps its line."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retinue.data.sources.records import Names
from retinue.errors import UsageError
from retinue.files import encoding_of, read_file
from retinue.text import counted

MOST_COLUMNS = 10_000
"""A table with more is none that anyone means."""
_BLANKS = " "
"""Any number of blanks and tabs between cells."""
_NUMBER = re.compile(r"[0-9]+")
_SEPARATORS = ",;\t|"
_SAMPLE = 20
"""Lines that the separator is found out from."""
_CHUNK = 2_048
"""Rows that are read at a time: lists of many keep the garbage collector busy."""
_BINARY = {b"PK\x03\x04": "a spreadsheet or zip file", b"PAR1": "a Parquet file"}
_BLANK = " \t\r\n"
_OWN = (b"path,label,split\n", b"path,label,split,target\n")
"""How a `splits.csv` that we wrote begins: its names are meant to the letter, blanks too."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The rows of a table, by columns; blanks around a cell and blank lines are gone."""

    path: Path
    head: list[str]
    """The first row, which may be a header."""
    head_line: int
    columns: Sequence[Names]
    """(columns,) of (rows,): what follows, as bytes of UTF-8 where the table was; null where a row
    ends before the column."""
    lines: npt.NDArray[np.int64]
    """(rows,) where each row begins, counted from 1."""
    listed: bool = False
    """Whether it is a list with blanks between its cells: a name, a class, and more."""

    @property
    def where(self) -> str:
        """The first row's place, for a message."""
        return self.at(self.head_line)

    def at(self, line: int) -> str:
        """A line, for a message."""
        return f"{str(self.path)!r} line {line}"

    def without_header(self) -> Cells:
        """The same with the first row as a row among the others."""
        first = [_column([cell]) for cell in self.head]
        columns = [pa.concat_arrays([a, b]) for a, b in zip(first, self.columns, strict=True)]
        return replace(self, columns=columns, lines=np.r_[self.head_line, self.lines])


def read_cells(path: Path, *, most: int | None = None) -> Cells:
    """The table at `path`, or its first `most` rows. Raises `UsageError`, naming the line, for what
    is no table: no text, rows of different lengths, a quoted value that does not end."""
    content = _as_utf8(path)
    separator = _separator(path, content)
    lines: list[npt.NDArray[np.int64]] = []
    parts: list[list[Names]] = []
    head: list[str] = []
    head_line = rows = 0
    for at, chunk in _chunks(path, content, separator):
        if not head:
            first = next((k for k, cells in enumerate(chunk) if any(map(str.strip, cells))), None)
            if first is None:
                continue
            head, head_line = [cell.strip() for cell in chunk[first]], int(at[first])
            _refuse_wide(path, len(head), head_line)
            at, chunk = at[first + 1 :], chunk[first + 1 :]
        if most is not None:
            at, chunk = at[: most - rows], chunk[: most - rows]
        fitted = _fitted(path, at, chunk, len(head))
        if chunk:
            parts.append([_column(cells) for cells in zip(*fitted, strict=True)])
        lines.append(at)
        rows += len(chunk)
        if rows == most:
            break
    if not head:
        raise UsageError("the table is empty", where=repr(str(path)), mend="a row an image")
    columns = [pa.concat_arrays(column) for column in zip(*parts, strict=True)]
    columns = columns or [pa.array([], pa.large_binary()) for _ in head]
    if not content.startswith(_OWN):
        columns = list(map(_trimmed, columns))
    listed = separator == _BLANKS
    found = Cells(path, head, head_line, columns, np.concatenate(lines), listed)
    filled = sum(pc.binary_length(c).fill_null(0).to_numpy() for c in columns) > 0
    if np.all(filled):
        return found
    kept = [column.filter(pa.array(filled)) for column in columns]
    return replace(found, columns=kept, lines=found.lines[filled])


def _fitted(
    path: Path, at: npt.NDArray[np.int64], chunk: list[list[str]], width: int
) -> Sequence[Sequence[str | None]]:
    """The rows with `width` cells each, None where they end before. Raises `UsageError` for longer
    ones."""
    if set(map(len, chunk)) <= {width}:
        return chunk
    fitted: list[Sequence[str | None]] = []
    for line, cells in zip(at.tolist(), chunk, strict=True):
        while len(cells) > width and not cells[-1].strip():
            cells = cells[:-1]
        if len(cells) > width:
            raise misfit(f"{str(path)!r} line {line}", len(cells), width)
        fitted.append([*cells, *[None] * (width - len(cells))])
    return fitted


def misfit(where: str, found: int, width: int) -> UsageError:
    """A row of another length than it should have."""
    mend = "quote values that contain the separator"
    return UsageError(
        f"{counted(found, 'column')} where {width} were expected", where=where, mend=mend
    )


def _refuse_wide(path: Path, width: int, line: int) -> None:
    if width > MOST_COLUMNS:
        raise UsageError(
            f"{width:,} columns, and {MOST_COLUMNS:,} are the most",
            where=f"{str(path)!r} line {line}",
            mend="a row an image: path and label",
        )


# --- text -----------------------------------------------------------------------------------------


def _as_utf8(path: Path) -> bytes:
    """The file's bytes, those of UTF-16 and UTF-32 as UTF-8, without a byte-order mark."""
    where = repr(str(path))
    try:
        content = read_file(path)
    except OSError as error:
        what = f"cannot read the table: {error.strerror or error}"
        raise UsageError(what, where=where) from None
    for start, kind in _BINARY.items():
        if content.startswith(start):
            mend = "save it as CSV: a row an image, path and label"
            raise UsageError(f"not a table of text but {kind}", where=where, mend=mend)
    encoding = encoding_of(content[:1000])
    if encoding != "utf-8-sig":
        try:
            content = content.decode(encoding).encode()
        except ValueError as error:
            what = f"neither UTF-8 nor whole {encoding.upper()}: {_reason(error)}"
            raise UsageError(what, where=where, mend="save the table as UTF-8") from None
    content = content.removeprefix(codecs.BOM_UTF8)
    if (position := content.find(b"\0")) >= 0:
        line = 1 + content.count(b"\n", 0, position)
        raise UsageError(
            "a NUL byte, so this is no text",
            where=f"{where} line {line}",
            mend="save the table as UTF-8",
        )
    return content


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{error.reason} at byte {error.start:,}"
    return str(error)


def _column(cells: Sequence[str | None]) -> Names:
    try:
        return pa.array(cells, pa.large_string()).cast(pa.large_binary())
    except UnicodeEncodeError:
        encoded = [None if c is None else c.encode("utf-8", "surrogateescape") for c in cells]
        return pa.array(encoded, pa.large_binary())


def _lines(content: bytes) -> io.TextIOWrapper:
    # Only \n, \r and \r\n end a line: a form feed or U+2028 can be part of a name.
    return io.TextIOWrapper(
        io.BytesIO(content), encoding="utf-8", errors="surrogateescape", newline=""
    )


def _trimmed(column: Names) -> Names:
    text = pc.cast(column, options=_anyhow(pa.large_string()))
    return pc.ascii_trim(text, characters=_BLANK).cast(pa.large_binary())


def _anyhow(kind: pa.DataType) -> pc.CastOptions:
    return pc.CastOptions(target_type=kind, allow_invalid_utf8=True)


# --- rows -----------------------------------------------------------------------------------------


def _chunks(
    path: Path, content: bytes, separator: str | None
) -> Iterator[tuple[npt.NDArray[np.int64], list[list[str]]]]:
    """Where each of some thousands of rows begins, and its cells; blank lines among them."""
    own = content.startswith(_OWN)
    if separator in (None, _BLANKS):
        # Else the path may contain blanks; the label is what follows the last of them.
        between = r"[ \t]+" if separator else r"[ \t]+(?=[^ \t]*$)"
        split = (re.split(between, line.strip(_BLANK)) for line in _lines(content))
        start = 1
        while chunk := list(islice(split, _CHUNK)):
            yield np.arange(start, start + len(chunk)), chunk
            start += len(chunk)
        return
    limit = csv.field_size_limit(sys.maxsize)  # 131,072 characters are not many for a caption
    try:
        reader = csv.reader(
            _lines(content), delimiter=separator, skipinitialspace=not own, strict=True
        )
        start, chunk = 1, []
        while True:
            for cells in islice(reader, _CHUNK):
                chunk.append(cells or [""])
            if not chunk:
                return
            count = reader.line_num + 1 - start
            yield start + _starts(chunk, count), chunk
            start, chunk = start + count, []
    except csv.Error as error:
        line = start + int(_starts([*chunk, []], -1)[-1])
        what = f"cannot read the table: {error}"
        mend = 'is a closing `"` missing? (`""` is one within a quoted value)'
        raise UsageError(what, where=f"{str(path)!r} line {line}", mend=mend) from None
    finally:
        csv.field_size_limit(limit)


def _starts(chunk: list[list[str]], count: int) -> npt.NDArray[np.int64]:
    """Where the rows begin that take `count` lines: a quoted value may hold some."""
    if len(chunk) == count:
        return np.arange(count)
    broken = re.compile("\r\n|\r|\n")
    lengths = [1 + sum(len(broken.findall(cell)) for cell in cells) for cells in chunk]
    return np.cumsum([0, *lengths[:-1]])


def _separator(path: Path, content: bytes) -> str | None:
    """What stands between the cells; `_BLANKS`; None: blanks before the last cell alone, since they
    may be a part of the first."""
    suffix = path.suffix.lower()
    sample = [line for line in islice(_lines(content), _SAMPLE) if line.strip(_BLANK)]
    if not sample:
        return ","
    known = {mark: sample[0].count(mark) for mark in _SEPARATORS if mark in sample[0]}
    _refuse_wide(path, max(known.values(), default=0) + 1, 1)
    if suffix == ".tsv" or not known:
        return "\t" if suffix == ".tsv" else _blanks(sample)
    even = [mark for mark in known if len(set(_widths(sample, mark))) == 1]
    if even:
        return max(even, key=lambda mark: _widths(sample[:1], mark)[0])
    # In lists of a path and a label, a comma can be part of a path.
    return None if suffix == ".txt" and "\t" not in known else max(known, key=known.__getitem__)


def _blanks(lines: Sequence[str]) -> str | None:
    """Whether blanks are between all cells: a name, a class's number, and more."""
    rows = [line.split() for line in lines]
    even = len({len(row) for row in rows}) == 1 and len(rows[0]) > 2
    return _BLANKS if even and all(_NUMBER.fullmatch(row[1]) for row in rows) else None


def _widths(lines: Sequence[str], separator: str) -> list[int]:
    limit = csv.field_size_limit(sys.maxsize)
    try:
        return [len(next(csv.reader([line], delimiter=separator), [])) for line in lines]
    finally:
        csv.field_size_limit(limit)
