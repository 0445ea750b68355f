"""Checkpoints: numbered folders and a pointer file that is replaced by rename.

A checkpoint is whole or it is not there: it is written under a temporary name, synced, renamed,
and only then does the pointer name it. A kill, a full disk or a power cut at any moment leaves the
one before it in place.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from retinue.errors import RetinueError
from retinue.files import sync_folder, write_text

POINTER = "current"
STATE = "state.pt"


class CheckpointStore:
    """The folder `last/` of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _current(self) -> str | None:
        try:
            name = (self.folder / POINTER).read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        if not re.fullmatch(r"[0-9]{6,12}", name):
            raise RetinueError(
                "this does not name a checkpoint",
                where=str(self.folder / POINTER),
                mend="write the name of the folder beside it into it, or start a new training",
            )
        return name

    def exists(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self._current() is not None

    def save(self, state: dict[str, Any]) -> Path:
        """Write `state` (tensors and plain values); the previous checkpoint goes only after it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        previous = self._current()
        number = int(previous) + 1 if previous else 1
        name = f"{number:06d}"
        temporary, final = self.folder / f"{name}.partial", self.folder / name
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)  # renamed, but the pointer never came to name it
        try:
            temporary.mkdir()
            with open(temporary / STATE, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, final)
            sync_folder(self.folder)
            write_text(self.folder / POINTER, name + "\n")
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            shutil.rmtree(temporary, ignore_errors=True)
            reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
            kept = f"the one before it ({previous}) is whole" if previous else "there is none yet"
            raise RetinueError(
                f"checkpoint {number} cannot be written ({reason}); {kept}",
                where=str(self.folder),
                mend="make room or make the folder writable, then go on with --resume",
            ) from error
        for old in self.folder.iterdir():
            if old.is_dir() and old.name != name:
                shutil.rmtree(old, ignore_errors=True)
        return final

    def load(self) -> dict[str, Any]:
        """The state that the pointer names."""
        name = self._current()
        if name is None:
            raise RetinueError(
                "there is no checkpoint to go on from",
                where=str(self.folder),
                mend="start the training anew without --resume",
            )
        path = self.folder / name / STATE
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RetinueError(
                f"the checkpoint cannot be read ({reason})",
                where=str(path),
                mend="start the training anew without --resume",
            ) from error
        return state
