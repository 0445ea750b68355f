"""Files that take their place together, once all of them are whole and proven."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retinue.errors import UsageError
from retinue.files import sync_folder
from retinue.text import cut

_STAGE = re.compile(r"\..+\.[a-z0-9_]{8}\.staged", re.DOTALL)
_SECONDS_UNTOUCHED = 86_400
"""What is older has been left by a process that was killed."""


def check_target(target: Path, model: Path, force: bool) -> None:
    """Raise UsageError where `target` may not be written: it is the model, or there already."""
    if not os.path.lexists(target):
        return
    if target.exists() and target.samefile(model):
        raise UsageError("this is the model itself", where=str(target), mend="choose another name")
    if not force:
        raise UsageError(
            "the file is there already",
            where=str(target),
            mend="choose another name with out (--out), or replace it with force=True (--force)",
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A path of the same name in a new folder beside `target`; what lies in that folder takes its
    place beside `target` if the context ends well, `target` itself last. The folder goes in any
    case.

    Raises OSError where nothing can be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    folder = Path(
        tempfile.mkdtemp(".staged", f".{cut(target.name, 80)}.", target.parent.absolute())
    )
    try:
        yield folder / target.name
        made = sorted(folder.iterdir(), key=lambda path: path.name == target.name)
        for path in made:
            _sync(path)
        for path in made:
            os.replace(path, target.parent / path.name)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sweep(folder: Path) -> None:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _STAGE.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    if time.time() - entry.stat().st_mtime > _SECONDS_UNTOUCHED:
                        shutil.rmtree(entry.path, ignore_errors=True)
