"""What to predict on, as a table: a row an image, whose position is its number for good.

The same path twice is two rows. Where an image's bytes lie is told in a few dozen bytes a row, so
that rows travel to the actors and images do not: every machine reads them from where they lie.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from retinue.bulk import shards
from retinue.data.sources.member import Member
from retinue.data.sources.records import batch_of
from retinue.errors import UsageError, some
from retinue.files import read_file
from retinue.inference.inputs import Say, expand
from retinue.inference.predictor import held
from retinue.inference.video import is_stream, is_video
from retinue.sample import Sample
from retinue.text import counted

PARQUET = (".parquet", ".pq")
BYTES = ("image", "bytes", "content", "image_bytes", "data", "img", "jpg", "jpeg", "png")
"""Columns that hold encoded images: bytes, or Hugging Face's `{bytes, path}`."""
PATHS = ("path", "file", "filename", "file_name", "filepath", "image_path", "image", "img", "uri")
"""Columns that hold paths."""
_SCHEMA = pa.schema(
    [
        ("path", pa.large_binary()),  # as it was named
        ("file", pa.large_binary()),  # absolute: that, or what holds it; null: there is none
        ("column", pa.string()),  # of a Parquet file
        ("place", pa.int64()),  # the first byte, or the row of the Parquet file
        ("length", pa.int64()),  # in bytes; null: the whole file
        ("checksum", pa.uint32()),
        ("problem", pa.string()),  # why there is no image
    ]
)
_TOGETHER = 8_192
_LARGE_GROUP = 1 << 30
"""Bytes of a row group that are much to read for a part of it."""


class Row(NamedTuple):
    """One image to predict on; the columns of the table."""

    path: bytes
    file: bytes | None = None
    column: str | None = None
    place: int | None = None
    length: int | None = None
    checksum: int | None = None
    problem: str | None = None


def rows_of(
    sources: Sequence[str | Path],
    stdin: Any = None,
    *,
    out: str | Path | None = None,
    say: Say = lambda line: None,
) -> pa.Table:
    """The rows of `sources`: whatever `expand` takes but videos; Parquet files with a column of
    images or of paths; shards (TFRecord, tar); folders of these.

    Raises UsageError for a source that is not there or holds nothing, a video, and a Parquet file
    without such a column.
    """
    batches: list[pa.RecordBatch] = []
    waiting: list[Row] = []
    named = [inner for source in sources for inner in _opened(os.fspath(source), out)]
    for row in _rows(expand(named, stdin, out=out, say=say), say):
        waiting.append(row)
        if len(waiting) == _TOGETHER:
            batches.append(batch_of(waiting, _SCHEMA))
            waiting = []
    table = pa.Table.from_batches([*batches, batch_of(waiting, _SCHEMA)], _SCHEMA)
    if not len(table):
        raise UsageError("nothing to predict on", mend="the sources name no images")
    return table


def digest(table: pa.Table) -> str:
    """Tells the rows from others: the images' places, and size and time of all files that hold
    them."""
    found = hashlib.blake2b(digest_size=16)
    for batch in table.to_batches(_TOGETHER):
        for row in _each(batch):
            found.update(repr(tuple(row)).encode())
    for file in sorted({f for f in table["file"].unique().to_pylist() if f is not None}):
        try:
            seen = os.stat(file)
            found.update(repr((file, seen.st_size, seen.st_mtime_ns)).encode())
        except OSError:
            found.update(repr((file, None)).encode())
    return found.hexdigest()


def _opened(source: str, out: str | Path | None) -> list[str]:
    """`source`, or of a folder without images what holds some in it."""
    if not os.path.isdir(source):
        return [source]
    try:
        next(expand([source], out=out), None)
    except UsageError:
        inside = sorted(
            os.path.join(source, name)
            for name in os.listdir(source)
            if not name.startswith(".") and _holds_images(name)
        )
        if not inside:
            raise
        return inside
    return [source]


def _holds_images(name: str) -> bool:
    return name.lower().endswith(PARQUET) or shards.is_called_so(name)


def _rows(paths: Iterator[str], say: Say) -> Iterator[Row]:
    for path in paths:
        if path.lower().endswith(PARQUET) and os.path.isfile(path):
            yield from _of_parquet(path, say)
        elif shards.is_called_so(path) and os.path.isfile(path):
            yield from _of_shard(path)
        elif is_stream(path) or is_video(path):
            raise UsageError(
                "videos and streams are looked at by one process",
                where=repr(path),
                mend="leave it out, or leave out --engine ray",
            )
        else:
            yield Row(os.fsencode(path), os.fsencode(os.path.abspath(path)))


# --- shards --------------------------------------------------------------------------------------


def _of_shard(path: str) -> Iterator[Row]:
    try:
        table = shards.look_through(Path(path))
    except OSError as error:
        raise UsageError(
            f"the shard cannot be read: {error.strerror or error}", where=repr(path)
        ) from error
    file = os.fsencode(os.path.abspath(path))
    for example in table.to_pylist():
        name = example["name"] or b"%d" % example["number"]
        shown = os.fsencode(path) + b"#" + name
        if example["problem"] is not None:
            yield Row(shown, problem=example["problem"].decode("utf-8", "backslashreplace"))
        else:
            where = example["offset"], example["length"], example["checksum"]
            yield Row(shown, file, None, *where)


# --- Parquet -------------------------------------------------------------------------------------


def _of_parquet(path: str, say: Say) -> Iterator[Row]:
    try:
        opened = pq.ParquetFile(path)
        schema = opened.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"this is no Parquet file ({error})", where=repr(path)) from error
    with opened:
        paths = next((n for n in PATHS if n in schema.names and _is_text(schema.field(n))), None)
        images = next((n for n in BYTES if n in schema.names and _is_image(schema.field(n))), None)
        if images is None and paths is None:
            raise UsageError(
                "no column of images or paths is known in it: there are "
                f"{some([repr(name) for name in schema.names], 12, between=', ')}",
                where=repr(path),
                mend="call it `image` (encoded bytes) or `path`",
            )
        if images is not None:
            _tell_large_groups(opened, path, say)
        file, at = os.fsencode(os.path.abspath(path)), 0
        nested = images is not None and pa.types.is_struct(schema.field(images).type)
        called = paths or (f"{images}.path" if nested and _has(schema, images, "path") else None)
        columns = [called] if called else []
        for batch in _batches(opened, columns, path):
            names = [None] * len(batch) if called is None else _names(batch.column(0))
            for name in names:
                yield _cell(path, file, images, at, name)
                at += 1


def _cell(path: str, file: bytes, images: str | None, at: int, name: str | None) -> Row:
    shown = f"{path}#{at}" if name is None else name
    if images is not None:
        return Row(os.fsencode(shown), file, images, at)
    if not name:
        return Row(os.fsencode(f"{path}#{at}"), problem="the cell of its path is empty")
    if not os.path.isabs(name) and not os.path.lexists(name):
        beside = os.path.join(os.path.dirname(path), name)
        name = beside if os.path.lexists(beside) else name
    return Row(os.fsencode(name), os.fsencode(os.path.abspath(name)))


def _batches(opened: pq.ParquetFile, columns: list[str], path: str) -> Iterator[pa.RecordBatch]:
    try:
        if not columns:
            for start in range(0, opened.metadata.num_rows, _TOGETHER):
                count = min(_TOGETHER, opened.metadata.num_rows - start)
                yield pa.RecordBatch.from_arrays([pa.nulls(count)], ["path"])
            return
        yield from opened.iter_batches(_TOGETHER, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"the Parquet file cannot be read: {error}", where=repr(path)) from error


def _names(column: pa.Array) -> list[str | None]:
    if pa.types.is_struct(column.type):
        column = column.field(0)
    return [value and os.path.expanduser(value) for value in column.to_pylist()]


def _is_text(field: pa.Field) -> bool:
    return bool(pa.types.is_string(field.type) or pa.types.is_large_string(field.type))


def _is_image(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return any(inner.name == "bytes" and _is_binary(inner.type) for inner in kind)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has(schema: pa.Schema, column: str | None, inner: str) -> bool:
    return any(one.name == inner and _is_text(one) for one in schema.field(column).type)


def _tell_large_groups(opened: pq.ParquetFile, path: str, say: Say) -> None:
    groups = [opened.metadata.row_group(k) for k in range(opened.metadata.num_row_groups)]
    if groups and max(group.total_byte_size for group in groups) > _LARGE_GROUP:
        largest = max(group.num_rows for group in groups)
        say(
            f"{path!r} has row groups of up to {counted(largest, 'row')}: each is read again for"
            " every part of it; write it anew with row groups of 100 to 1,000 images"
        )


# --- where the work is done ----------------------------------------------------------------------


def samples(part: pa.Table) -> Iterator[Sample]:
    """The images of some rows, in order, one after the other. What cannot be read says so when it
    is."""
    rows = [row for batch in part.to_batches() for row in _each(batch)]
    start = 0
    while start < len(rows):
        first = rows[start]
        end = start + 1
        if first.column is not None:
            while end < len(rows) and _goes_on(rows[end - 1], rows[end]):
                end += 1
            yield from _cells(rows[start:end])
        else:
            yield _sample(first)
        start = end


def _each(batch: pa.RecordBatch) -> Iterator[Row]:
    return map(Row._make, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _goes_on(one: Row, other: Row) -> bool:
    assert one.place is not None
    return (one.file, one.column, one.place + 1) == (other.file, other.column, other.place)


def _sample(row: Row) -> Sample:
    path = os.fsdecode(row.path)
    if row.file is None:
        return Sample(path, _Failing(row.problem or "there is no image"))
    file = os.fsdecode(row.file)
    if row.length is None:
        return Sample(path) if os.path.isabs(path) else Sample(path, _Whole(file))
    assert row.place is not None
    return Sample(path, Member(file, row.place, row.length, row.checksum))


@dataclass(frozen=True, slots=True)
class _Failing:
    """A `Read` of what is not there."""

    why: str

    def __call__(self) -> bytes:
        raise OSError(self.why)


@dataclass(frozen=True, slots=True)
class _Whole:
    """A `Read` of a file."""

    file: str

    def __call__(self) -> bytes:
        return read_file(self.file)


def _cells(rows: Sequence[Row]) -> Iterator[Sample]:
    """Of neighbouring cells of one Parquet file, a few at a time in memory."""
    left = list(reversed(rows))
    try:
        for value in _values(rows[0], len(rows)):
            row = left.pop()
            key = os.fsdecode(row.path)
            content = value.get("bytes") if isinstance(value, dict) else value
            if content:
                yield Sample(key, held(content))
            else:
                yield Sample(key, _Failing("its cell has no image"))
    except (OSError, pa.ArrowException) as error:
        why = str(error)
        yield from (Sample(os.fsdecode(row.path), _Failing(why)) for row in reversed(left))
        return
    lacking = "the Parquet file has no such row"
    yield from (Sample(os.fsdecode(row.path), _Failing(lacking)) for row in reversed(left))


_CELLS = 32


def _values(first: Row, count: int) -> Iterator[Any]:
    assert first.file is not None
    assert first.place is not None
    with pq.ParquetFile(os.fsdecode(first.file)) as opened:
        groups: list[int] = []
        begin = skip = 0
        for k in range(opened.metadata.num_row_groups):
            end = begin + opened.metadata.row_group(k).num_rows
            if end > first.place and begin < first.place + count:
                if not groups:
                    skip = first.place - begin
                groups.append(k)
            begin = end
        column = first.column
        for batch in opened.iter_batches(_CELLS, row_groups=groups, columns=[column]):
            length = len(batch)
            if skip >= length:
                skip -= length
                continue
            for value in batch.column(0).slice(skip, count):
                yield value.as_py()
                count -= 1
            skip = 0
            if count <= 0:
                return
