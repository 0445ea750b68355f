"""Rows of one layout on disk, each found by a key: written once, whole or not there, held or idle.
Arrays of the same shapes in every row (`Layout`), or bytes of a length of their own (`Pieces`).

A *segment* is what one writer wrote, in a folder of segments of the same layout:

    NAME.json   the layout; the file's time tells when the segment was last used
    NAME.rows   the rows, one after another
    NAME.keys   for each row its key (16 bytes) and a checksum, and where rows differ in length, its
                end; only what stands here counts

The keys are written when their rows have reached the disk, so that a process that is killed leaves
whole rows. Whoever uses a segment locks a file of its own, NAME.x.lease, which ends with the
process. One that nobody holds may be removed, under the lock (a file) of all these folders.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from filelock import BaseFileLock, FileLock, Timeout

from retinue.documents import json_text, parse_json
from retinue.errors import RetinueError
from retinue.files import write_text
from retinue.training.features.layouts import Keys, Layout, Rows, as_text, layout_of

FORMAT = 1
MARKER = "retinue-rows.json"
"""Stands in each of our folders; one without it is not ours."""
SECONDS_BETWEEN_FLUSHES = 20.0

_NAME = re.compile(r"\d{20}-[0-9a-f]{8}")
_UNKNOWN, _SOUND, _DAMAGED = 0, 1, 2


class NotWrittenError(RetinueError):
    """The disk refuses what is to be kept."""


class Segment:
    """What one writer wrote, to be read."""

    def __init__(self, base: Path, layout: Layout) -> None:
        self.base = base
        self.keys = np.zeros((0, 16), np.uint8)
        self._layout = layout
        self._checks = np.zeros(0, np.uint32)
        self._ends = np.zeros(0, np.int64)
        self._state = np.zeros(0, np.uint8)
        self._rows: _RowFile | None = None
        self._lease: BaseFileLock | None = None

    def refresh(self) -> bool:
        """Take in what was written since; whether there was any."""
        try:
            # Without the last one, if torn.
            entries = np.fromfile(f"{self.base}.keys", self._layout.entry)
            ends = self._layout.ends(entries)
            beyond = np.flatnonzero(ends > os.path.getsize(f"{self.base}.rows"))
        except OSError:  # removed meanwhile
            return False
        if len(beyond):
            entries = entries[: beyond[0]]
        known = len(self.keys)
        if len(entries) <= known:
            return False
        self.keys = np.ascontiguousarray(entries["key"])
        self._checks = entries["check"].copy()
        self._ends = ends[: len(entries)]
        self._state = np.pad(self._state, (0, len(entries) - known))
        return True

    def usable(self) -> Rows:
        """The rows that are not known to be damaged."""
        return np.flatnonzero(self._state != _DAMAGED)

    def check(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which `rows` are as they were written; each is looked at once, and again once the file
        was written to."""
        if not self._opened() or (self._rows is not None and self._rows.was_touched()):
            self._state[self._state == _SOUND] = _UNKNOWN
        for row in np.unique(rows[self._state[rows] == _UNKNOWN]):
            sound = _checksum(self.keys[row], self.piece(int(row))) == self._checks[row]
            self._state[row] = _SOUND if sound else _DAMAGED
        return np.equal(self._state[rows], _SOUND)

    def read(self, rows: Rows) -> npt.NDArray[np.void]:
        """(n,) opaque records, copied; zeros for what the disk does not give."""
        records = np.zeros(len(rows), f"V{self._layout.dtype.itemsize}")
        if self._opened() and self._rows is not None:
            self._rows.read(rows, records, records.dtype.itemsize)
        return records

    def read_field(self, rows: Rows, name: str) -> npt.NDArray[Any]:
        """(n, *shape) of one field alone, as `read` does."""
        places = self._layout.dtype.fields
        assert places is not None
        dtype, offset = places[name][:2]
        values = np.zeros(len(rows), f"V{dtype.itemsize}")
        if self._opened() and self._rows is not None:
            self._rows.read(rows, values, self._layout.dtype.itemsize, offset)
        return values.view(np.dtype([(name, dtype)]))[name]

    def piece(self, row: int) -> bytearray:
        """The bytes of a row; zeros for what the disk does not give."""
        start = int(self._ends[row - 1]) if row else 0
        found = bytearray(max(int(self._ends[row]) - start, 0))
        if self._opened() and self._rows is not None:
            self._rows.read_piece(found, start)
        return found

    def hold(self, lock: Path) -> bool:
        """Keep it from being removed; False if that has happened."""
        meta = Path(f"{self.base}.json")
        if self._lease is None:
            try:
                with FileLock(lock):
                    if self._lease is None and meta.exists():
                        self._lease = _lease(self.base)
                        os.utime(meta)
            except OSError:  # a cache that may only be read: it stays while it is mapped
                return meta.exists()
        return self._lease is not None

    def release(self) -> None:
        """It may be removed from now on."""
        if self._lease is not None:
            with suppress(OSError):
                os.utime(f"{self.base}.json")
            _release(self._lease)
            self._lease = None
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def _opened(self) -> bool:
        """Whether the rows can be read at all."""
        if self._rows is None:
            with suppress(OSError):  # gone, or may not be read
                self._rows = _RowFile(f"{self.base}.rows")
        return self._rows is not None


class _RowFile:
    """The rows of a segment, read and not mapped: a mapped file that somebody cuts kills the
    process. Several threads may read at once."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._seen = self._stamp()
        self._turn = threading.Lock()

    def was_touched(self) -> bool:
        """Whether it was written to since it was opened, or last asked."""
        before, self._seen = self._seen, self._stamp()
        return before != self._seen

    def read(self, rows: Rows, into: npt.NDArray[np.void], record: int, offset: int = 0) -> None:
        """What there is of `rows`, of `record` bytes each, from their byte `offset` on: an element
        of `into` each."""
        size = into.dtype.itemsize
        view = into.view(np.uint8).reshape(-1).data
        for k, row in enumerate(rows.tolist()):
            self.read_piece(view[k * size : (k + 1) * size], row * record + offset)

    def read_piece(self, into: bytearray | memoryview, start: int) -> None:
        """What there is from byte `start` on."""
        with suppress(OSError):
            self._fill(memoryview(into), start)

    def close(self) -> None:
        self._file.close()

    def _fill(self, part: memoryview, start: int) -> None:
        """From byte `start` on, as far as there is anything."""
        if hasattr(os, "preadv"):
            os.preadv(self._file.fileno(), [part], start)
            return
        with self._turn:
            self._file.seek(start)
            self._file.readinto(part)

    def _stamp(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns


class Writer:
    """Writes a segment of up to `capacity` rows into `folder`, and calls `closed` at its end.

    Raises:
        NotWrittenError: there is no room, or no permission.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        capacity: int,
        lock: Path,
        closed: Callable[[], None],
    ) -> None:
        self.capacity = capacity
        self._layout = layout
        self._lock = lock
        self._closed = closed
        self._base = folder / f"{time.time_ns():020d}-{uuid4().hex[:8]}"
        self._count = self._flushed = 0
        self._end_at = self._kept = 0
        self._pending: list[npt.NDArray[Any]] = []
        self._written = time.monotonic()
        self._lease: BaseFileLock | None = None
        self._files: list[BinaryIO] = []
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):  # or the folder might be removed as an empty one
                _make_ours(folder)
                self._lease = _lease(self._base)
                meta = {"format": FORMAT, "layout": layout.as_json()}
                write_text(Path(f"{self._base}.json"), json_text(meta))
            for kind in ("rows", "keys"):
                file = open(f"{self._base}.{kind}", "xb", buffering=0)  # noqa: SIM115
                self._files.append(file)
            _reserve(self._files[0], capacity * layout.dtype.itemsize)
        except OSError as error:
            self._end()
            raise self._failed(error) from error

    def append(self, keys: Keys, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """k rows: `keys`, and for each field of the layout `values[name]`, (k, *shape).

        Raises:
            NotWrittenError: the disk refuses.
            ValueError: the arrays are not what the layout says, or more than `capacity`.
        """
        records = self._layout.pack(values, len(keys))
        opaque = records.view(f"V{records.itemsize}")
        self._add(keys, records, [opaque[i : i + 1].view(np.uint8).data for i in range(len(keys))])

    def add(self, key: bytes, piece: bytes) -> None:
        """A row of `Pieces`. Raises as `append` does."""
        self._add([key], np.frombuffer(piece, np.uint8), [memoryview(piece)])

    def _add(self, keys: Keys, whole: npt.NDArray[Any], pieces: Sequence[memoryview]) -> None:
        if self._count + len(keys) > self.capacity:
            raise ValueError(f"more than the {self.capacity} rows that were announced")
        entries = np.empty(len(keys), self._layout.entry)
        entries["key"] = as_text(keys).view(np.uint8).reshape(-1, 16)
        entries["check"] = [_checksum(k, p) for k, p in zip(entries["key"], pieces, strict=True)]
        if "end" in (self._layout.entry.names or ()):
            entries["end"] = self._end_at + np.cumsum([piece.nbytes for piece in pieces])
        try:
            _write(self._files[0], self._end_at, whole)
        except OSError as error:
            raise self._failed(error) from error
        self._count += len(keys)
        self._end_at += whole.nbytes
        self._pending.append(entries)
        if time.monotonic() - self._written > SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Make what was appended count, and last."""
        if self._flushed < self._count:
            rows, keys = self._files
            try:
                os.fsync(rows.fileno())
                entries = np.concatenate(self._pending)
                _write(keys, self._flushed * entries.itemsize, entries)
                os.fsync(keys.fileno())
            except OSError as error:
                raise self._failed(error) from error
            self._flushed, self._kept, self._pending = self._count, self._end_at, []
        self._written = time.monotonic()

    def close(self) -> None:
        """Flush, and give back the room that was not needed."""
        if self._files:
            try:
                self.flush()
            finally:
                self._end()
                self._closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self) -> None:
        if len(self._files) == 2:
            with suppress(OSError):
                self._files[0].truncate(self._kept)
        for file in self._files:
            file.close()
        self._files = []
        if self._lease is not None:
            _release(self._lease)
            self._lease = None
            if not self._flushed:
                with FileLock(self._lock):
                    remove(self._base)

    def _failed(self, error: OSError) -> NotWrittenError:
        return NotWrittenError(
            f"the cached features cannot be written ({error.strerror or error})",
            where=f"{self._base}.rows",
            mend="make room, or take another place (cache.folder=FOLDER)",
            resumable=True,
        )


def _make_ours(folder: Path) -> None:
    """The folder with its marker, whatever stands there under these names, which are ours."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        folder.unlink()
    folder.mkdir(exist_ok=True)
    if (folder / MARKER).is_dir():
        (folder / MARKER).rmdir()
    (folder / MARKER).touch()


def find_segments(folder: Path) -> list[Path]:
    """The segments in `folder` if it is one of ours, oldest first: paths without suffixes."""
    if os.path.islink(folder) or not os.path.isfile(folder / MARKER):  # pathlib: not if too long
        return []
    return sorted(p.with_suffix("") for p in folder.glob("*.json") if _NAME.fullmatch(p.stem))


def load_segment(base: Path, layout: Layout) -> Segment | None:
    """The segment, if it has that layout; not yet refreshed."""
    with suppress(OSError, ValueError, TypeError, KeyError):  # half a file does not parse
        meta = parse_json(Path(f"{base}.json").read_bytes())
        if meta["format"] == FORMAT and meta["layout"] == layout.as_json():
            return Segment(base, layout)
    return None


def is_held(base: Path) -> bool:
    """Whether this or another living process uses the segment (under the lock)."""
    for path in base.parent.glob(f"{base.name}.*.lease"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            return True
        except IsADirectoryError:  # no lease of ours
            continue
        except OSError:  # another user's
            return True
        path.unlink(missing_ok=True)  # its process was killed
    return False


def trim(base: Path) -> int:
    """Give back what a killed writer had reserved and not filled; the bytes that are left.

    For a segment that nobody holds (under the lock); one without rows is removed.
    """
    rows = 0
    with suppress(OSError, ValueError, TypeError, KeyError):
        meta = parse_json(Path(f"{base}.json").read_bytes())
        layout = layout_of(meta["layout"])
        ends = layout.ends(np.fromfile(f"{base}.keys", layout.entry))
        rows = len(ends)
        if rows and os.path.getsize(f"{base}.rows") > ends[-1] > 0:
            os.truncate(f"{base}.rows", int(ends[-1]))
    if not rows:
        remove(base)
    return size_of(base)


def size_of(base: Path) -> int:
    """Bytes of a segment's files."""
    size = 0
    for kind in ("keys", "rows", "json"):
        with suppress(FileNotFoundError):
            size += os.path.getsize(f"{base}.{kind}")
    return size


def remove(base: Path) -> bool:
    """Remove a segment, and its folder if nothing else is in it; whether it is gone."""
    try:
        for kind in ("keys", "rows", "json"):  # it is known until the last one goes
            Path(f"{base}.{kind}").unlink(missing_ok=True)
    except OSError:  # such as a file that is mapped, on Windows
        return False
    if [path.name for path in base.parent.iterdir()] == [MARKER]:
        with suppress(OSError):
            (base.parent / MARKER).unlink()
            base.parent.rmdir()
    return True


def _lease(base: Path) -> BaseFileLock:
    # Another thread may release it.
    lease = FileLock(f"{base}.{uuid4().hex[:8]}.lease", thread_local=False)
    lease.acquire()
    return lease


def _release(lease: BaseFileLock) -> None:
    lease.release()
    with suppress(OSError):
        os.unlink(lease.lock_file)


def _checksum(key: npt.NDArray[np.uint8], row: bytearray | memoryview) -> int:
    return zlib.crc32(row, zlib.crc32(key.data))


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the room at once: rather fail now than after hours."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not on this file system
                raise


def _write(file: BinaryIO, at: int, data: npt.NDArray[Any]) -> None:
    file.seek(at)  # a write that failed may have left a part
    rest = data.view(np.uint8).reshape(-1).data
    while rest:
        rest = rest[file.write(rest) :]
