"""The outputs of frozen trunks, kept on disk and shared by stages, runs, folds and sweeps.

The cache is a folder of *spaces*, one for each thing that computes features (`space_key`). In it,
a row is found by the view that it was computed from (`view_key`).
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from retinue.documents import parse_json
from retinue.errors import RetinueError
from retinue.files import cache_folder, expanded, sweep
from retinue.training.features import segments
from retinue.training.features.keys import Contents
from retinue.training.features.layouts import Keys, Layout, Pieces, Rows, as_text, layout_of
from retinue.training.features.segments import Segment, Writer

LOGGER = logging.getLogger("retinue")
_LOWER = 0xFFFFFFFF


def root_of(folder: str | None) -> Path:
    """Where cached features lie: in the `folder` that a recipe names, or else in `$RETINUE_CACHE`
    itself, or in `features` of retinue's folder where the system keeps caches."""
    if folder is not None:
        return expanded(folder)
    return cache_folder() / ("" if os.environ.get("RETINUE_CACHE") else "features")


class DamagedError(RetinueError):
    """A row that had been found is not there any more as it was written."""


class Space:
    """Rows of one layout, from all segments of a folder. Close it: what it holds is not removed.

    A row's number has that of its segment in the upper half, so that it stays what it is when
    others write or remove. Finding and reading may be done from several threads at once.
    """

    def __init__(self, folder: Path, layout: Layout, lock: Path) -> None:
        self.layout = layout
        self._folder = folder
        self._lock = lock
        self._segments: dict[int, Segment] = {}
        self._next = 0
        self._index: tuple[npt.NDArray[np.bytes_], Rows] | None = None
        self.refresh()

    @property
    def name(self) -> str:
        """Of its folder in the cache."""
        return self._folder.name

    def refresh(self) -> None:
        """Look again for what this and other processes have written."""
        known = {segment.base for segment in self._segments.values()}
        for base in segments.find_segments(self._folder):
            if base not in known and (segment := segments.load_segment(base, self.layout)):
                self._segments[self._next] = segment
                self._next += 1
        for segment in self._segments.values():
            if segment.refresh():
                self._index = None

    def find(self, keys: Keys) -> Rows:
        """(n,) the row of each key; −1: there is none. Holds the segments of what it finds."""
        wanted = as_text(keys)
        while True:
            names, rows = self._index or self._build_index()
            found = np.full(len(wanted), -1, np.int64)
            if len(names):
                at = np.searchsorted(names, wanted).clip(max=len(names) - 1)
                found = np.where(names[at] == wanted, rows[at], -1)
            numbers = [int(number) for number in np.unique(found[found >= 0] >> 32)]
            gone = [n for n in numbers if not self._segments[n].hold(self._lock)]
            if not gone:
                return found
            for number in gone:
                self._segments.pop(number).release()
            self._index = None

    def verify(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """(n,) which rows are as they were written. The others are not found again: call `find`
        once more after a False, for there may be a second copy. Rows that this process has not
        yet read are read, so that this is for the start of a stage."""
        sound = np.zeros(len(rows), np.bool_)
        for segment, where in self._parts(rows):
            sound[where] = segment.check(rows[where] & _LOWER)
        damaged = len(np.unique(rows[(rows >= 0) & ~sound]))
        if damaged:
            LOGGER.warning("damaged cached views, to be computed anew: %d", damaged)
            self._index = None
        return sound

    def find_sound(self, keys: Keys) -> Rows:
        """`find`, with every row verified: a damaged one is not there."""
        while True:
            found = self.find(keys)
            if self.verify(found)[found >= 0].all():
                return found

    def read(self, rows: Rows) -> dict[str, npt.NDArray[Any]]:
        """The fields of `rows`, (n, *shape) each: copies, not contiguous.

        Raises:
            DamagedError: one is damaged.
        """
        if len(rows) and rows.min() < 0:
            raise ValueError("a row that was not found cannot be read")
        if not self.verify(rows).all():
            raise DamagedError("a cached view is damaged", where=str(self._folder), resumable=True)
        parts = list(self._parts(rows))
        if len(parts) == 1:
            records = parts[0][0].read(rows & _LOWER)
        else:
            records = np.empty(len(rows), f"V{self.layout.dtype.itemsize}")
            for segment, where in parts:
                records[where] = segment.read(rows[where] & _LOWER)
        fields = records.view(self.layout.dtype)
        return {f.name: fields[f.name] for f in self.layout.fields}

    def read_field(self, rows: Rows, name: str) -> npt.NDArray[Any]:
        """(n, *shape) of one field of `rows`, all of them found and sound."""
        shape = next(f.shape for f in self.layout.fields if f.name == name)
        values = np.zeros((len(rows), *shape), self.layout.dtype[name].base)
        for segment, where in self._parts(rows):
            values[where] = segment.read_field(rows[where] & _LOWER, name)
        return values

    def piece(self, row: int) -> bytearray | None:
        """A row of `Pieces`; None where it is damaged, which is then not found again."""
        segment, own = self._segments.get(row >> 32), row & _LOWER
        if segment is None:
            return None
        if not segment.check(np.array([own])).all():
            self._index = None
            return None
        return segment.piece(own)

    def writer(self, capacity: int) -> Writer:
        """Adds up to `capacity` rows, whose room is taken at once; they are found once it is
        closed, or flushed and the space refreshed. See `FeatureCache.make_room` first."""
        return Writer(self._folder, self.layout, capacity, self._lock, self.refresh)

    def close(self) -> None:
        """Let go of everything. What was found is not valid any more."""
        for segment in self._segments.values():
            segment.release()
        self._segments, self._index = {}, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _parts(self, rows: Rows) -> Iterator[tuple[Segment, npt.NDArray[np.intp]]]:
        """The segments of `rows`, each with the positions that it answers for."""
        numbers = rows >> 32
        for number in np.unique(numbers[numbers >= 0]):
            yield self._segments[int(number)], np.flatnonzero(numbers == number)

    def _build_index(self) -> tuple[npt.NDArray[np.bytes_], Rows]:
        """Sorted keys and their rows; of equal keys the newest first."""
        keys, rows = [np.zeros((0, 16), np.uint8)], [np.zeros(0, np.int64)]
        for number, segment in sorted(self._segments.items(), reverse=True):
            usable = segment.usable()
            keys.append(segment.keys[usable])
            rows.append((number << 32) + usable)
        names, numbers = as_text(np.concatenate(keys)), np.concatenate(rows)
        order = np.argsort(names, kind="stable")
        self._index = names[order], numbers[order]
        return self._index


class FeatureCache:
    """Spaces in the folder `root`, of `max_bytes` in all."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._lock = root / "lock"
        with suppress(OSError):  # what stands in the lock's place
            if self._lock.is_dir():
                self._lock.rmdir()

    def space(self, key: str, layout: Layout) -> Space:
        """The rows of what computes them (`space_key`); nothing is written by that."""
        return Space(self.root / self.name_of(key), layout, self._lock)

    def name_of(self, key: str) -> str:
        """What the folder of a space is called, whether it is there or not."""
        return f"{segments.FORMAT}-{key}"

    def tidy(self) -> None:
        """Remove the temporary files that killed processes have left."""
        sweep(self.root)
        with suppress(OSError):
            for folder in self.root.iterdir():
                if (folder / segments.MARKER).is_file():
                    sweep(folder)

    def contents(self) -> Contents:
        """Identities of images, remembered beside the spaces; drop it when done, it is large."""
        return Contents(self.root / "files.memo")

    def make_room(self, need: int) -> str | None:
        """Remove what was used least recently until `need` bytes fit; or why they do not.

        What any living process holds stays, and if the rest would not do, it stays as well. Of
        two processes that ask at once both may be told yes; the next one that asks puts it right.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock):
                return self._make_room(need)
        except OSError as error:
            return self._unwritable(error)

    def closed(self) -> str | None:
        """Why nothing can be written here; None: it can."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock):
                return None
        except OSError as error:
            return self._unwritable(error)

    def _unwritable(self, error: OSError) -> str:
        return f"{str(self.root)!r} cannot be written ({error.strerror or error})"

    def sizes(self) -> dict[str, int]:
        """Bytes of each space, by the name of its folder."""
        folders = sorted(self.root.iterdir()) if os.path.isdir(self.root) else []
        found = {f.name: [segments.size_of(b) for b in segments.find_segments(f)] for f in folders}
        return {name: sum(sizes) for name, sizes in found.items() if sizes}

    def packed(self) -> set[str]:
        """The spaces, by the names of their folders, that hold images made small."""
        found = set()
        for name in self.sizes():
            base = segments.find_segments(self.root / name)[-1:]
            with suppress(OSError, ValueError, TypeError, KeyError, IndexError):
                written = parse_json(Path(f"{base[0]}.json").read_bytes())["layout"]
                found |= {name} if isinstance(layout_of(written), Pieces) else set()
        return found

    def clear(self, names: Collection[str]) -> int:
        """Remove the spaces of these `names`, but for what a living process holds, and nothing
        else; the bytes that are free now."""
        if not os.path.isdir(self.root):
            return 0
        freed = 0
        with FileLock(self._lock):
            for folder in [f for f in self.root.iterdir() if f.name in names]:
                for base in segments.find_segments(folder):
                    size = segments.size_of(base)
                    if not segments.is_held(base) and segments.remove(base):
                        freed += size
        return freed

    def _make_room(self, need: int) -> str | None:
        idle: list[tuple[int, Path, int]] = []
        held = 0
        for base in (b for folder in self.root.iterdir() for b in segments.find_segments(folder)):
            with suppress(FileNotFoundError):
                if segments.is_held(base):
                    held += segments.size_of(base)
                elif size := segments.trim(base):
                    idle.append((os.stat(f"{base}.json").st_mtime_ns, base, size))
        spare = sum(size for _, _, size in idle)
        free = shutil.disk_usage(self.root).free
        excess = max(held + spare + need - self.max_bytes, math.ceil(need / 0.9) - free)
        if excess <= spare:
            for _, base, size in sorted(idle):
                if excess > 0 and segments.remove(base):
                    excess -= size
        if excess <= 0:
            return None
        would = f"it would take {need / 1e9:.1f} GB"
        if held + need <= self.max_bytes:
            return f"{would} and the disk has {free / 1e9:.1f} GB left"
        others = f", of which {held / 1e9:.1f} GB are in use" if held else ""
        return f"{would} and cache.max_gb is {self.max_bytes / 1e9:g}{others}"
