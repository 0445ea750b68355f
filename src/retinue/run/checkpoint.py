"""Checkpoints: numbered folders and a pointer file that is replaced by rename.

A checkpoint is whole or it is not there: it is written under a temporary name, synced, renamed,
and only then does the pointer name it. A kill, a full disk or a power cut at any moment leaves the
one before it in place. A sum over its bytes stands beside it: PyTorch does not notice other bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from retinue.errors import RetinueError
from retinue.files import sweep, sync_folder, write_text
from retinue.text import first_line

POINTER = "current"
STATE = "state.pt"
SUM = "state.blake2b"
PARTIAL = ".partial"
_NAME = re.compile(r"\d{6,}")


class _Sink:
    """A file to write to that keeps the sum of its bytes, and the error that PyTorch hides."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.blake2b()
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.failure = error
            raise
        self.digest.update(data)
        return written

    def flush(self) -> None:
        self._file.flush()


@contextmanager
def taking_up(folder: Path) -> Iterator[None]:
    """While a state is put back into what it came from: one that does not fit there is a
    checkpoint, in `folder`, that was damaged, edited, or is of another version."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error, MemoryError | RecursionError) or "out of memory" in str(error):
            raise
        reason = first_line(error)
        raise RetinueError(
            "the checkpoint is not what this version writes"
            f" ({type(error).__name__}{f': {reason}' if reason else ''})",
            where=str(folder),
            mend="start a new training from the run's recipe.yaml",
        ) from error


class CheckpointStore:
    """The folder `last/` of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _current(self) -> str | None:
        """The name of the newest checkpoint: that of the pointer; where that is damaged or gone,
        the newest folder, for these are whole."""
        try:
            named = (self.folder / POINTER).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            named = ""
        if _NAME.fullmatch(named) and (self.folder / named).is_dir():
            return named
        names = self._names()
        whole = [name for name in names if (self.folder / name / STATE).is_file()]
        return max(whole or names, key=int, default=None)

    def _names(self) -> list[str]:
        try:
            entries = list(self.folder.iterdir())
        except OSError:
            return []
        return [e.name for e in entries if _NAME.fullmatch(e.name) and e.is_dir()]

    def exists(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self._current() is not None

    def tidy(self) -> None:
        """Remove what a kill has left: for whoever has the run for itself."""
        sweep(self.folder)
        for left in self.folder.glob(f"*{PARTIAL}"):
            if _NAME.fullmatch(left.name.removesuffix(PARTIAL)):
                shutil.rmtree(left, ignore_errors=True)

    def save(self, state: dict[str, Any]) -> Path:
        """Write `state` (tensors and plain values); the previous checkpoint goes only after it."""
        previous = self._current()
        number = int(previous) + 1 if previous else 1
        name = f"{number:06d}"
        temporary, final = self.folder / f"{name}{PARTIAL}", self.folder / name
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)  # renamed, but the pointer never came to name it
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            _write(temporary, state)
            os.replace(temporary, final)
            sync_folder(self.folder)
            write_text(self.folder / POINTER, name + "\n")
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            kept = f"the one before it ({previous}) is whole" if previous else "there is none yet"
            raise RetinueError(
                f"checkpoint {number} cannot be written ({error.strerror or error}); {kept}",
                where=str(self.folder),
                mend="make room or make the folder writable",
                resumable=True,
            ) from error
        for old in self._names():
            if old != name:
                shutil.rmtree(self.folder / old, ignore_errors=True)
        self.tidy()
        return final

    def load(self) -> dict[str, Any]:
        """The newest state."""
        name = self._current()
        if name is None:
            raise RetinueError(
                "there is no checkpoint to go on from",
                where=str(self.folder),
                mend="start a new training from the run's recipe.yaml",
            )
        path = self.folder / name / STATE
        try:
            _refuse_other_bytes(path)
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or not isinstance(state.get("progress", {}), dict):
                raise ValueError("it is no state of a training")
        except Exception as error:
            reason = error.strerror or "" if isinstance(error, OSError) else ""
            raise RetinueError(
                f"the checkpoint cannot be read ({reason or 'it is damaged'})",
                where=str(path),
                mend="bring it back from a copy, or start a new training from the run's"
                " recipe.yaml; where there is a best.safetensors, model.weights=FILE begins with"
                " those weights",
            ) from error
        return state


def _write(folder: Path, state: dict[str, Any]) -> None:
    """Raises OSError, also where PyTorch makes another one of it."""
    with open(folder / STATE, "wb") as file:
        sink = _Sink(file)
        try:
            torch.save(state, sink)  # type: ignore[arg-type]
        except RuntimeError:
            if sink.failure is not None:
                raise sink.failure from None
            raise
        file.flush()
        os.fsync(file.fileno())
    write_text(folder / SUM, sink.digest.hexdigest() + "\n")


def _refuse_other_bytes(path: Path) -> None:
    """Raise ValueError where the file's sum is not what it was; older versions kept none."""
    try:
        expected = (path.parent / SUM).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "blake2b").hexdigest() != expected:
            raise ValueError("other bytes than were written")
