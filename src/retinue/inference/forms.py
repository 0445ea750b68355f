"""The forms that every task's predictions can be written in: JSONL, CSV, TSV, plain text, Parquet.

A list for pictures, `predictions.*`, and one for the frames of videos, `frames.*`, which have two
columns more.
"""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from retinue.documents import NotJson, json_text, parse_json
from retinue.sample import Result
from retinue.tasks.forms import Form, Outlet
from retinue.tasks.results import FrameResult
from retinue.text import utf8

PICTURES, FRAMES = "predictions", "frames"
"""Names of the two lists, without what tells their form."""
_GROUP = 20_000
"""Rows of a Parquet file that are written together."""


class Writer:
    """One list. `write` each result, then `close`; `leave` closes the file in any case."""

    def __init__(self, place: Path) -> None:
        self.file: IO[str] = open(  # noqa: SIM115 - closed by `leave`
            place, "w", encoding="utf-8", errors="backslashreplace", newline=""
        )

    @abstractmethod
    def write(self, result: Result) -> None:
        """Append one image's result."""

    def close(self) -> None:
        """All have been written."""

    def leave(self) -> None:
        """Whether all went well or not."""
        self.file.close()


class ListForm(Form):
    """Lists of a line, or of rows, an image."""

    suffix: ClassVar[str]
    writer: ClassVar[type[Writer]]

    def __init_subclass__(cls) -> None:
        cls.lists = (PICTURES + cls.suffix, FRAMES + cls.suffix)

    def __init__(
        self, outlet: Outlet, classes: Sequence[str], *, reference: Path | None = None
    ) -> None:
        super().__init__(outlet, classes, reference=reference)
        self._open: dict[str, Writer] = {}
        self._stack = ExitStack()

    def _list(self, name: str) -> Writer:
        if name not in self._open:
            writer = self.writer(self.outlet.listed(name + self.suffix))
            self._stack.callback(writer.leave)
            self._open[name] = writer
        return self._open[name]

    def write(self, result: Result) -> None:
        """See `Form`."""
        self._list(FRAMES if isinstance(result, FrameResult) else PICTURES).write(result)

    def close(self) -> None:
        """See `Form`. Where nothing was, the list of pictures says so by being empty."""
        if not self._open:
            self._list(PICTURES)
        for writer in self._open.values():
            writer.close()

    def leave(self) -> None:
        """See `Form`."""
        self._stack.close()


class _Lines(Writer):
    def write(self, result: Result) -> None:
        self.file.write(json_line(result.as_dict()))


class JsonLines(ListForm):
    """An object a line."""

    suffix = ".jsonl"
    writer = _Lines

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        try:
            found = parse_json(line)
        except NotJson:
            return False
        return isinstance(found, dict) and "path" in found


class _Table(Writer):
    """Rows below a header."""

    _header: list[str] | None = None

    def write(self, result: Result) -> None:
        if self._header is None:
            self._header = result.columns()
            self.row(self._header)
        for row in result.rows() or [[result.path]]:
            self.row(["" if value is None else str(value) for value in row])

    @abstractmethod
    def row(self, cells: Sequence[str]) -> None:
        """Append one."""


class _Csv(_Table):
    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._rows = csv.writer(self.file, lineterminator="\n")

    def row(self, cells: Sequence[str]) -> None:
        self._rows.writerow([utf8(cell) for cell in cells])


class Csv(ListForm):
    """A table with a header; RFC 4180, so names may hold commas, quotes and line breaks."""

    suffix = ".csv"
    writer = _Csv

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        return line.startswith("path,")


class _Tsv(_Table):
    def row(self, cells: Sequence[str]) -> None:
        # Also of an image alone: a line without a tab would not be known for ours again.
        shown = [*map(_one_line, cells), *([""] if len(cells) == 1 else [])]
        self.file.write("\t".join(shown) + "\n")


class Tsv(ListForm):
    """The same table with a tab between cells, and none within: for `cut`, `awk` and SQL."""

    suffix = ".tsv"
    writer = _Tsv

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        return line.startswith("path\t")


class _Text(Writer):
    def write(self, result: Result) -> None:
        # Also where nothing was found: a line without a tab would not be known for ours again.
        fields = [result.path, *(result.fields() or [""])]
        self.file.write("\t".join(map(_one_line, fields)) + "\n")


class Text(ListForm):
    """A line an image, for people."""

    suffix = ".txt"
    writer = _Text

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        return "\t" in line


class _Parquet(Writer):
    """Columns get the type of their first value; rows wait until all have one, or are many."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._columns: list[str] = []
        self._rows: list[list[Any]] = []
        self._types: dict[str, pa.DataType] = {}
        self._file: pq.ParquetWriter | None = None

    def write(self, result: Result) -> None:
        if not self._columns:
            self._columns = result.columns()
        for row in result.rows() or [[result.path]]:
            whole = [*row, *[None] * (len(self._columns) - len(row))]
            self._rows.append([utf8(v) if isinstance(v, str) else v for v in whole])
            for name, value in zip(self._columns, whole, strict=True):
                if value is not None and name not in self._types:
                    self._types[name] = _TYPES.get(type(value), pa.string())
        if len(self._rows) >= _GROUP and len(self._types) == len(self._columns):
            self._flush()

    def _flush(self) -> None:
        schema = pa.schema([(n, self._types.get(n, pa.null())) for n in self._columns])
        if self._file is None:
            self._file = pq.ParquetWriter(self._place, schema, compression="zstd")
        columns = [list(values) for values in zip(*self._rows, strict=True)]
        arrays = [
            pa.array(values, self._file.schema.field(k).type) for k, values in enumerate(columns)
        ]
        if arrays:
            self._file.write_table(pa.table(arrays, schema=self._file.schema))
        self._rows = []

    def close(self) -> None:
        if self._rows or self._file is None:
            self._flush()

    def leave(self) -> None:
        if self._file is not None:
            self._file.close()


_TYPES: dict[type, pa.DataType] = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


class Parquet(ListForm):
    """The table by columns, with their types: for pandas, DuckDB, Spark."""

    suffix = ".parquet"
    writer = _Parquet

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        return line.startswith("PAR1")

    @classmethod
    def wrote_at(cls, path: Path) -> bool:
        """See `Form`: its columns stand at its end."""
        try:
            return bool(pq.read_schema(path).names[:1] == ["path"])
        except (OSError, pa.ArrowException):
            return path.stat().st_size == 0


FORMS: dict[str, type[Form]] = {
    "jsonl": JsonLines,
    "json": JsonLines,
    "csv": Csv,
    "tsv": Tsv,
    "txt": Text,
    "parquet": Parquet,
}
"""By the names that users give them."""


def json_line(value: dict[str, Any]) -> str:
    """One line of JSON: readable in every script, escaped only where it is no valid text."""
    return json_text(value) + "\n"


def _one_line(value: str) -> str:
    for raw, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(raw, escaped)
    return utf8(value)
