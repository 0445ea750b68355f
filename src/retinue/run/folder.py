"""The folder of a run: everything that a training leaves, each file replaced whole."""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from torch import Tensor

from retinue import modelfile
from retinue.documents import json_text, read_json
from retinue.errors import RetinueError, UsageError
from retinue.files import replacing, sweep, write_text
from retinue.page.written import checked
from retinue.run.checkpoint import CheckpointStore
from retinue.text import as_file_name, visible

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def refused(error: OSError, path: Path) -> RetinueError:
    """What is to be said where the system does not let a training write to `path`."""
    return RetinueError(
        f"cannot write ({error.strerror or error})",
        where=str(path),
        mend="make room or make the folder writable",
        resumable=True,
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A disk that is full or read-only ends the work with a line instead of a traceback."""
    try:
        yield
    except OSError as error:
        raise refused(error, path) from error


EPOCHS = "epochs"
"""The folder of model files of single epochs, where these are kept."""
LOCK = ".lock"
HOLDER = ".holder"
"""Who has the lock: process, host, and since when."""


def _who() -> dict[str, Any]:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": now}


def holder(path: Path) -> str:
    """`: process 123 on HOST since …` for the run folder `path`, as far as that is known."""
    try:
        who = read_json(path / HOLDER)
        told = f": process {who['process']} on {who['host']} since {who['since']}"
    except (OSError, RetinueError, KeyError, TypeError):
        return ""
    return visible(told)


def _claimed(path: Path) -> bool:
    """Whether this call, and no other, has made the file."""
    try:
        with open(path, "x"):
            return True
    except FileExistsError:
        return False


class RunFolder:
    """`runs/NAME/`; see docs/design.md for what stands in it."""

    def __init__(self, path: Path, *, made: bool = False) -> None:
        self.path = path
        self._made = made
        self.checkpoints = CheckpointStore(path / "last")

    @classmethod
    def create(cls, wish: Path | None, name: str) -> RunFolder:
        """A new folder: `wish`, or `runs/name`, with a number if that is taken. An empty one that
        is there already is taken, too, by one training only."""
        base = wish or Path("runs") / as_file_name(name)
        with _writing(base):
            for place in (base, *base.parents):
                if place.exists() and not place.is_dir():
                    raise UsageError(
                        "this is a file, not a folder",
                        where=str(place),
                        mend="choose another --out",
                    )
            base.parent.mkdir(parents=True, exist_ok=True)
            for number in range(1, 100_000):
                path = base if number == 1 else base.with_name(f"{base.name}-{number}")
                try:
                    path.mkdir()
                except FileExistsError:
                    if path.is_dir() and not any(path.iterdir()) and _claimed(path / LOCK):
                        return cls(path)
                    continue
                if _claimed(path / LOCK):  # or another start found it empty in between
                    return cls(path, made=True)
        raise RetinueError("every name is taken", where=str(base), mend="choose another --out")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A folder that a training was begun in."""
        if not (path / "recipe.yaml").is_file():
            meant = (*list(path.parents)[:2], Path("runs") / path)
            near = next((str(p) for p in meant if (p / "recipe.yaml").is_file()), None)
            raise UsageError(
                "this is no run folder (it has no recipe.yaml)",
                where=str(path),
                mend="give the folder that the training named, runs/NAME"
                if near is None
                else f"did you mean {near!r}?",
            )
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one training works in the folder at a time; what kills have left goes first."""
        with _writing(self.path):
            lock = FileLock(self.path / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RetinueError(
                    f"another training is at work here{holder(self.path)}",
                    where=str(self.path),
                    mend="wait for it, or stop it (Ctrl-C or SIGTERM: it writes a checkpoint)",
                ) from None
        try:
            for name in ("", "stages", "plots", EPOCHS):
                sweep(self.path / name)
            self.checkpoints.tidy()
            with suppress(OSError):  # it only tells others
                write_text(self.path / HOLDER, json_text(_who()))
            yield
        finally:
            (self.path / HOLDER).unlink(missing_ok=True)
            lock.release()

    def remove(self) -> None:
        """Undo `create`: what this training has written goes, and the folder if it made that."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        if self._made:
            with suppress(OSError):
                self.path.rmdir()

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A temporary path to write to, which then replaces the file `name`."""
        with _writing(self.path / name), replacing(self.path / name) as temporary:
            yield temporary

    def write(self, name: str, text: str) -> None:
        """Replace the file `name`."""
        with _writing(self.path / name):
            write_text(self.path / name, text)

    def write_json(self, name: str, values: Any) -> None:
        """Replace the JSON file `name`; RetinueError for a number that is not finite, which JSON
        does not know."""
        try:
            text = json_text(values, indent=2)
        except ValueError as error:
            raise RetinueError(
                f"what is to be written is no JSON ({error})", where=str(self.path / name)
            ) from error
        self.write(name, text + "\n")

    def read_json(self, name: str) -> Any:
        """What the JSON file `name` holds; None if it is not there. RetinueError for one that
        cannot be read, or holds what no training writes."""
        path = self.path / name
        try:
            found = checked(name, read_json(path), str(path))
            if name == "environment.json" and found.get("preprocessing"):
                modelfile.checked_preprocessing(found["preprocessing"])
            return found
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RetinueError(
                f"this is not what a training writes ({error})",
                where=f"{path}, key preprocessing",
                mend="put it back as it was, or start a new training from the run's recipe.yaml",
            ) from None
        except OSError as error:
            raise RetinueError(f"cannot be read ({error.strerror})", where=str(path)) from None

    def read_lines(self, name: str) -> list[str] | None:
        """The lines of the file `name`; None if it is not there."""
        try:
            return (self.path / name).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """`metrics.csv`: a row an epoch."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write("metrics.csv", stream.getvalue())

    def write_table(self, name: str, table: pa.Table) -> None:
        """Replace the parquet file `name`."""
        with self.replacing(name) as temporary:
            pq.write_table(table, temporary)

    def write_model(
        self, name: str, tensors: dict[str, Tensor], description: modelfile.ModelDescription
    ) -> None:
        """Replace the model file `name`."""
        with _writing(self.path / name):
            modelfile.write(self.path / name, tensors, description)
