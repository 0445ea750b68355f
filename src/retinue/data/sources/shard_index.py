"""What the examples of a shard are and where their images lie: looked through once, and remembered.

A shard is known by its path, size and time of change, and by what was asked of it. The index is a
file in the user's cache, replaced whole; damaged or gone, the shard is looked through anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import pyarrow as pa
from filelock import FileLock

from retinue.data.cpus import usable_cpus
from retinue.data.sources.records import batch_of
from retinue.documents import json_text
from retinue.files import cache_folder, no_cache, read_file, replacing, sweep

LOGGER = logging.getLogger("retinue")

FORMAT = 2
"""Counts up when the same shards come to other indexes."""
MOST_KEPT = 20_000
"""Indexes that are kept at most, of those that were used last."""
TOLD_EVERY = 15.0
"""Seconds between lines that say how far the work is."""
_SETTLED_NS = 2_000_000_000
_MAGIC = b"retinue shard 1\n"
_DIGEST = 16
_ROWS = 8_192
_SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("checksum", pa.uint32()),
        ("name", pa.large_binary()),
        ("label", pa.int64()),
        ("text", pa.large_binary()),
        ("problem", pa.large_binary()),
    ]
)


LARGEST_LABEL = 1 << 53
"""A number of a class that is further from 0 is none."""


class Example(NamedTuple):
    """One example of a shard."""

    number: int
    """From 1."""
    offset: int = 0
    length: int = 0
    checksum: int = 0
    """Where the bytes of its image lie in the file, how many, and their CRC-32C."""
    name: bytes | None = None
    label: int | None = None
    text: bytes | None = None
    problem: bytes | None = None
    """Why it cannot be used; then nothing else is known."""


Scan = Callable[[Path], Iterator[Example]]
"""All examples of a shard, broken ones among them. Raises OSError."""


def located(number: int, offset: int, content: bytes, **known: bytes | int | None) -> Example:
    """The example whose image is `content`, which begins at `offset`."""
    return Example(number, offset, len(content), google_crc32c.value(content), **known)  # type: ignore[arg-type]


def broken(number: int, why: object) -> Example:
    """An example that cannot be used."""
    return Example(number, problem=str(why).encode("utf-8", "backslashreplace"))


def indexes(files: Sequence[Path], scan: Scan, how: Sequence[object]) -> list[pa.Table | OSError]:
    """The index of each of the `files`, a row an example, or why it cannot be read. `how`: what the
    index depends on beside the file, as JSON values."""
    folder = cache_folder() / "shards"
    told = _Telling(files)

    def one(file: Path) -> pa.Table | OSError:
        try:
            found = _index(file, scan, how, folder)
        except OSError as error:
            found = error
        told.done(file)
        return found

    with ThreadPoolExecutor(min(usable_cpus(), 16), thread_name_prefix="retinue-shards") as pool:
        found = list(pool.map(one, files))
    with suppress(OSError):
        _forget_old(folder)
    return found


def _index(file: Path, scan: Scan, how: Sequence[object], folder: Path) -> pa.Table:
    place = None
    seen = os.stat(file)
    if seen.st_mtime_ns < time.time_ns() - _SETTLED_NS:  # or it may change at the same time again
        facts = [FORMAT, *how, seen.st_size, seen.st_mtime_ns, os.path.abspath(file)]
        key = json_text(facts).encode("utf-8", "surrogateescape")
        place = folder / f"{hashlib.blake2b(key, digest_size=16).hexdigest()}.arrow"
        if (known := _read(place)) is not None:
            return known
    with _alone_with(place):
        known = None if place is None else _read(place)  # another process may have made it
        if known is not None:
            return known
        found = _looked_through(scan(file))
        if place is not None:
            try:
                _write(place, found)
            except OSError as error:
                what = "what lies where in shards cannot be remembered"
                no_cache(LOGGER, what, folder, error)
        return found


@contextmanager
def _alone_with(place: Path | None) -> Iterator[None]:
    """While this lasts, no other process of a training looks through the same shard; where there
    are no locks, each does."""
    if place is None:
        yield
        return
    lock = FileLock(place.with_suffix(".lock"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):
            os.unlink(lock.lock_file)


def _looked_through(examples: Iterator[Example]) -> pa.Table:
    batches, rows = [], []
    for example in examples:
        rows.append(example)
        if len(rows) == _ROWS:
            batches.append(batch_of(rows, _SCHEMA))
            rows = []
    return pa.Table.from_batches([*batches, batch_of(rows, _SCHEMA)], _SCHEMA).combine_chunks()


def _read(place: Path) -> pa.Table | None:
    """None where it is not there, or damaged."""
    try:
        data = read_file(place)
        os.utime(place)
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST
    body = data[start:]
    if data[:start] != _MAGIC + _sum(body):
        return None
    table = pa.ipc.open_stream(body).read_all()
    return table if table.schema == _SCHEMA else None


def _write(place: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA) as writer:
        writer.write_table(table)
    body = sink.getvalue().to_pybytes()
    with replacing(place) as temporary:
        temporary.write_bytes(_MAGIC + _sum(body) + body)


def _sum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _forget_old(folder: Path) -> None:
    places = list(folder.glob("*.arrow"))
    if len(places) > MOST_KEPT:
        sweep(folder)
        places.sort(key=lambda place: place.stat().st_mtime_ns)
        for old in places[:-MOST_KEPT]:
            old.unlink(missing_ok=True)


class _Telling:
    """Says how far the work is, where it takes long."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = len(files)
        self._done = 0
        self._told = time.monotonic()

    def done(self, file: Path) -> None:
        """One more; called by several threads, of which a line too many does no harm."""
        self._done += 1
        if time.monotonic() - self._told > TOLD_EVERY:
            self._told = time.monotonic()
            LOGGER.info(
                "looking through the shards, once: %d of %d, %s the last",
                self._done,
                self._files,
                file.name,
            )
