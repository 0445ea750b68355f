"""Explanations to a folder: `explained/…`, a picture an image in the folders that they came from,
`explanations.jsonl`, a line an image, `sheets/…`, what the network holds, if that was asked for,
and `skipped.jsonl`, if there are any.

Each file is written under a temporary name and takes its own only when it is whole.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retinue.data.sources.walking import DRAWN_MARK
from retinue.errors import RetinueError, UsageError
from retinue.explaining.explained import Explained
from retinue.files import or_room, replacing, sweep
from retinue.inference.extras import Painted, Shown, save
from retinue.inference.forms import JsonLines, json_line
from retinue.inference.naming import Names
from retinue.inference.predictor import Skipped
from retinue.inference.writers import (
    SKIPPED_FILE,
    check_folder,
    foreign,
    is_ours,
    tell_earlier,
)
from retinue.sample import Pixels, Result, Sample

log = logging.getLogger("retinue")

EXPLAINED = "explained"
SHEETS = "sheets"
LIST = "explanations.jsonl"


class ExplanationFolder:
    """`with ExplanationFolder.at(out, base) as folder: folder.add(explained, picture)`."""

    def __init__(self, out: Path, base: Path) -> None:
        """See `at`."""
        self.out = out
        self.skipped: dict[str, str] = {}
        self.files: list[Path] = []
        """What was written, complete once the context has ended; of pictures their folder."""
        self._lines: list[str] = []
        self._picture: Pixels | None = None
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)
        whole = Path(os.path.abspath(base))
        self._names, self._of_images = Names(whole), Names(whole)
        self._swept: set[Path] = set()
        self._sheets = False
        self._pictures = Painted(out / EXPLAINED, self._painted, self._names)

    @classmethod
    @contextmanager
    def at(cls, out: Path, base: Path) -> Iterator[ExplanationFolder]:
        """In `out`, for images whose folders are kept relative to `base`. UsageError for an `out`
        that is a file, or that holds what is somebody else's under the name of ours; RetinueError
        where it cannot be written."""
        if out.exists() and not out.is_dir():
            raise UsageError("the output is a file, not a folder", where=str(out))
        for folder in (EXPLAINED, SHEETS):
            check_folder(out / folder, DRAWN_MARK)
        for name in (LIST, SKIPPED_FILE):
            if (out / name).exists() and not is_ours(out / name, JsonLines):
                raise foreign(out / name)
        try:
            made = cls(out, base)
            yield made
            made._close()
        except OSError as error:
            raise RetinueError(
                f"explanations cannot be written: {error.strerror or error}",
                where=str(error.filename or out),
                mend=or_room(error, "choose another folder with --out"),
            ) from error

    def add(self, explained: Explained, picture: Pixels) -> None:
        """The next image, and what is shown of it."""
        self._picture = picture
        self._pictures.add(explained, Shown(Sample(explained.path)))
        self._lines.append(json_line(explained.as_dict()))

    def skip(self, item: Skipped) -> None:
        """List an image that has no explanation."""
        self.skipped[item.path] = item.reason

    def sheet(self, kind: str, picture: Pixels, of: Explained | None = None) -> None:
        """What the network holds: `sheets/KIND.png`, or, `of` an image, `sheets/KIND/…`."""
        place = self.out / SHEETS
        place.mkdir(exist_ok=True)
        (place / DRAWN_MARK).touch()
        self._sheets = True
        if of is not None:
            place /= kind
            named = self._of_images.of(of, (".png",), otherwise=".png")
        else:
            named = Path(f"{kind}.png")
        (place / named).parent.mkdir(parents=True, exist_ok=True)
        save(place / named, picture, self._swept)

    def _painted(self, result: Result, shown: Shown) -> Pixels:
        assert self._picture is not None
        return self._picture

    def _close(self) -> None:
        self.files = self._pictures.close() + [self.out / SHEETS] * self._sheets
        tell_earlier(self.out, {EXPLAINED: self._names}, log.warning, "explanation")
        self._write(LIST, self._lines)
        lines = [json_line(Skipped(*item).as_dict()) for item in self.skipped.items()]
        if lines:
            self._write(SKIPPED_FILE, lines)
        else:
            (self.out / SKIPPED_FILE).unlink(missing_ok=True)  # of an earlier one into this folder

    def _write(self, name: str, lines: list[str]) -> None:
        with replacing(self.out / name) as temporary, open(temporary, "w", encoding="utf-8") as to:
            to.writelines(lines)
        self.files.append(self.out / name)
