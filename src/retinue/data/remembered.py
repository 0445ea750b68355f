"""Which image files were found to be sound: remembered between runs, so that looking through the
same files again costs a question to the file system each.

A file is known by its path, size and time of change. Only sound ones are remembered: what is broken
is looked at again, and may have been mended. Another version of a decoder, or another rule, begins
anew. The store is one file, replaced whole under a lock; damaged, it counts as empty.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from retinue.data import formats
from retinue.data.sources.member import Member
from retinue.files import cache_folder, no_cache, read_file, replacing, sweep
from retinue.sample import Sample

LOGGER = logging.getLogger("retinue")

Facts = npt.NDArray[np.uint64]
RULES = 1
"""Counts up when other files count as sound."""
LIMIT = 8_000_000
"""Files that are remembered at most, in 8 bytes each; what was found or used last stays."""
SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again and its time stay the same."""
_MAGIC = b"retinue sound 1\n"
_DIGEST = 16
_KEPT_STORES = 4
_PATIENCE = 10.0


def facts(samples: list[Sample]) -> Facts:
    """(n,) what identifies the file of each sample and changes with it; 0 where nothing does: it
    lies in no file, is not there, or has just been written."""
    settled = time.time_ns() - SETTLED_NS
    return np.frombuffer(b"".join(_fact(one, settled, 8) or bytes(8) for one in samples), np.uint64)


def fact(sample: Sample) -> bytes | None:
    """The same of one sample, in 16 bytes; None where nothing does."""
    return _fact(sample, time.time_ns() - SETTLED_NS, 16)


def _fact(sample: Sample, settled: int, length: int) -> bytes | None:
    read, place = sample.read, ""
    if read is None:
        path = sample.key
    elif isinstance(read, Member):
        path, place = read.file, f"{read.offset} {read.length}"
    else:
        return None
    try:
        seen = os.stat(path)
        if seen.st_mtime_ns > settled:
            return None
        if path[:1] != "/":
            path = os.path.abspath(path)
        text = f"{seen.st_size} {seen.st_mtime_ns} {place} {path}"
        content = text.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(content, digest_size=length).digest()
    except (OSError, ValueError):
        return None


def decoders() -> str:
    """8 hex digits for what decides whether a file is sound."""
    said = [str(RULES)]
    for package in ("pillow", "simplejpeg", "pi-heif", "imagecodecs"):
        with suppress(PackageNotFoundError):
            said.append(f"{package} {version(package)}")
    said += [extra for extra in sorted(set(formats.EXTRAS.values())) if formats.installed(extra)]
    return hashlib.blake2b(" ".join(said).encode(), digest_size=4).hexdigest()


class Remembered:
    """The facts of sound files, read from the store once; `write` keeps what was added."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where the store lies; by default in the user's cache."""
        self._folder = cache_folder() / "images" if folder is None else folder
        self._file = self._folder / f"{decoders()}.sound"
        self._sorted = np.sort(_read(self._file))
        self._new: list[Facts] = []
        self._used: list[Facts] = []

    def knows(self, keys: Facts) -> npt.NDArray[np.bool_]:
        """(n,) whether each is of a sound file."""
        if not len(self._sorted):
            return np.zeros(len(keys), np.bool_)
        at = np.searchsorted(self._sorted, keys).clip(max=len(self._sorted) - 1)
        known: npt.NDArray[np.bool_] = (self._sorted[at] == keys) & (keys != 0)
        self._used.append(keys[known])
        return known

    def add(self, keys: Facts) -> None:
        """These files are sound."""
        keys = keys[keys != 0]
        if len(keys):
            self._new.append(keys)

    def write(self) -> None:
        """Keeps what was added, beside what other processes have written meanwhile. Where it cannot
        be written, the files are looked at again the next time."""
        if not self._new:
            return
        fresh = np.unique(np.concatenate(self._new + self._used))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / "lock", timeout=_PATIENCE):
                there = _read(self._file)
                there = there[~np.isin(there, fresh)]
                keep = np.concatenate([there, fresh])[-LIMIT:]
                sweep(self._folder)
                with replacing(self._file) as temporary:
                    temporary.write_bytes(_MAGIC + _digest(keep.tobytes()) + keep.tobytes())
                _forget_old(self._folder)
        except (OSError, Timeout) as error:
            no_cache(LOGGER, "which images are sound cannot be remembered", self._folder, error)
        self._new = []


def _read(file: Path) -> Facts:
    """In the order of their last use; none if the store is not there, or damaged."""
    data = b""
    with suppress(OSError):
        data = read_file(file)
    start = len(_MAGIC) + _DIGEST
    body = data[start:]
    if len(body) % 8 or data[:start] != _MAGIC + _digest(body):
        return np.zeros(0, np.uint64)
    return np.frombuffer(body, np.uint64)


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _forget_old(folder: Path) -> None:
    """Stores of decoders that are not used any more."""
    stores = sorted(folder.glob("*.sound"), key=lambda path: path.stat().st_mtime_ns)
    for old in stores[:-_KEPT_STORES]:
        old.unlink(missing_ok=True)
