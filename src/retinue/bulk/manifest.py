"""What of a prediction is done: a folder with the request, and a file a part, each whole or not at
all. Whoever goes on does the parts whose files are not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retinue.documents import NotJson, json_text, parse_json, read_json
from retinue.errors import RetinueError, UsageError
from retinue.files import replacing, sweep, write_text

FOLDER = ".bulk"
"""Within the folder of the answers; it goes when they are whole."""
_REQUEST = "request.json"
_LOCK = "lock"
_TRIES = 20
FORMAT = 1
_SIZES = ("part", "batch_size")
"""What is as it was when it was begun, whatever is asked for now."""
_TOLD = {
    "sources": "other images, or changed ones",
    "rows": "another number of images",
    "models": "another model",
    "options": "other options",
    "tta": "another tta",
    "device": "another device",
}


class Manifest:
    """The parts of one prediction; `part` rows each, the last may have fewer, which are answered
    `batch_size` at a time."""

    def __init__(self, folder: Path, request: dict[str, Any]) -> None:
        self._folder = folder
        self.request = request
        self.rows: int = request["rows"]
        self.part: int = request["part"]
        self.batch_size: int = request["batch_size"]

    @classmethod
    @contextmanager
    def opened(cls, out: Path, request: dict[str, Any]) -> Iterator[Manifest]:
        """That of `out`: begun, or gone on with if parts of the same request are done; the sizes of
        parts and batches are then as they were. Nobody else works in it meanwhile.

        Raises UsageError where it was begun by another request, RetinueError where somebody is at
        work.
        """
        folder = out / FOLDER
        lock = _locked(folder)
        try:
            sweep(folder)
            yield cls(folder, _agreed(folder, {"format": FORMAT, **request}))
        finally:
            # While it is locked, or what goes would be the next one's.
            if not is_begun(out):  # all is done, or nothing yet
                shutil.rmtree(folder, ignore_errors=True)
            lock.release()

    def __len__(self) -> int:
        return -(-self.rows // self.part)

    def bounds(self, number: int) -> tuple[int, int]:
        """The first row of a part, and the one behind its last."""
        start = number * self.part
        return start, min(start + self.part, self.rows)

    def missing(self) -> list[int]:
        """The parts that are to be done. One whose file is not as it was written is done again."""
        left = []
        for number in range(len(self)):
            try:
                self._check(number)
            except FileNotFoundError:
                left.append(number)
            except NotJson:
                self._file(number).unlink()
                left.append(number)
        return left

    def keep(self, number: int, lines: bytes) -> None:
        """The part is done: a line a row."""
        self._refuse_others(number, lines)
        with replacing(self._file(number)) as temporary:
            temporary.write_bytes(lines)

    def lines(self, number: int) -> bytes:
        """Those of a part that is done."""
        return self._file(number).read_bytes()

    def done(self) -> None:
        """The answers are where they belong; nothing is left to go on with."""
        (self._folder / _REQUEST).unlink()
        for number in range(len(self)):
            self._file(number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.jsonl"

    def _check(self, number: int) -> None:
        """Raises FileNotFoundError, NotJson."""
        self._refuse_others(number, self._file(number).read_bytes())

    def _refuse_others(self, number: int, lines: bytes) -> None:
        """NotJson unless `lines` are of each of the part's rows, once, in order."""
        start, end = self.bounds(number)
        found = lines.splitlines()
        if len(found) != end - start or not lines.endswith(b"\n"):
            raise NotJson(f"part {number} has {len(found)} rows, not {end - start}")
        for row, line in enumerate(found, start):
            if not line.startswith(b'{"id": %d,' % row) or not line.endswith(b"}"):
                raise NotJson(f"part {number} has another row in place of {row}")


def _locked(folder: Path) -> FileLock:
    """The lock of a folder that is there. RetinueError where another has it."""
    place = folder / _LOCK
    for _ in range(_TRIES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            place.touch()
            meant = place.stat().st_ino
            lock = FileLock(place)
            lock.acquire(timeout=0)
        except FileNotFoundError:  # removed in between by one that was done
            continue
        except Timeout:
            break
        with suppress(FileNotFoundError):
            if place.stat().st_ino == meant:
                return lock
        lock.release()  # of a file that was removed: it keeps nobody out
    raise RetinueError(
        "another prediction is at work here",
        where=str(folder.parent),
        mend="wait for it, or choose another folder with --out",
    )


def _agreed(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The request that is gone on with, or `request`, written down."""
    place = folder / _REQUEST
    if not is_begun(folder.parent):
        write_text(place, json_text(request) + "\n")
        return request
    before = read_json(place)
    mend = f"ask for the same again, choose another --out, or remove {str(folder)!r} to begin anew"
    sizes: dict[str, Any] = before if isinstance(before, dict) else {}
    for key in _SIZES:
        if type(sizes.get(key)) is not int or sizes[key] < 1:
            raise RetinueError(
                "the request of an earlier start is damaged", where=str(place), mend=mend
            )
    for key, value in request.items():
        if key not in _SIZES and sizes.get(key) != value:
            raise UsageError(
                "an unfinished prediction of"
                f" {_TOLD.get(key, 'another release of retinue')} lies here",
                where=str(folder.parent),
                mend=mend,
            )
    return sizes


def objects(lines: bytes) -> list[dict[str, Any]]:
    """The rows of a part as values."""
    return [parse_json(line) for line in lines.splitlines()]


def is_begun(out: Path) -> bool:
    """Whether there are parts to go on from in `out`."""
    folder = out / FOLDER
    return os.path.isfile(folder / _REQUEST) and any(folder.glob("part-*.jsonl"))
