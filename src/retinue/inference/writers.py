"""Predictions to files: JSONL, CSV or plain text, drawn images, and the list of what was skipped.

Each file is written under a temporary name and takes its own only when it is whole.

- `predictions.jsonl`: `Result.as_dict` a line.
- `predictions.csv`: a table with the columns of the task's results, `path` first.
- `predictions.txt`: path and the result's fields, separated by tabs (where there are none, a tab
  ends the line); backslash, tab and line breaks in names are written `\\\\ \\t \\n \\r`.
- `skipped.jsonl`: `{"path", "reason"}` a line; only if there are any.
- `drawn/…`: the images with their results, in the folders that they came from.

File names that are not valid text keep their bytes in JSONL (lone surrogates, as Python's
`os.fsencode` wants them) and are escaped (`\\\\udce9`) elsewhere.
"""

from __future__ import annotations

import csv
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retinue.data.decode import Encoded, read_bytes
from retinue.data.sources.walking import DRAWN_MARK
from retinue.data.views import turn
from retinue.documents import NotJson, json_text, parse_json
from retinue.errors import RetinueError, UsageError, suggest
from retinue.files import replacing, sweep
from retinue.inference.inputs import DRAWN
from retinue.inference.predictor import Skipped
from retinue.sample import Result
from retinue.text import utf8

Draw = Callable[[npt.NDArray[np.uint8], Result], npt.NDArray[np.uint8]]

SKIPPED_FILE = "skipped.jsonl"
_SAVED_AS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


class Writer(ABC):
    """A format of the list of predictions."""

    suffix: str

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    @abstractmethod
    def write(self, result: Result) -> None:
        """Append one image's result."""

    @classmethod
    @abstractmethod
    def wrote(cls, line: str) -> bool:
        """Whether a file with this first line is of this format, and so may be replaced."""


class JsonLines(Writer):
    """An object a line."""

    suffix = ".jsonl"

    def write(self, result: Result) -> None:
        self.file.write(json_line(result.as_dict()))

    @classmethod
    def wrote(cls, line: str) -> bool:
        try:
            found = parse_json(line)
        except NotJson:
            return False
        return isinstance(found, dict) and "path" in found


class Csv(Writer):
    """A table with a header; RFC 4180, so names may hold commas, quotes and line breaks."""

    suffix = ".csv"

    def __init__(self, file: IO[str]) -> None:
        super().__init__(file)
        self._rows = csv.writer(file, lineterminator="\n")
        self._header = False

    def write(self, result: Result) -> None:
        if not self._header:
            self._rows.writerow(result.columns())
            self._header = True
        rows = result.rows() or [[result.path]]
        self._rows.writerows([utf8(str(value)) for value in row] for row in rows)

    @classmethod
    def wrote(cls, line: str) -> bool:
        return line.startswith("path,")


class Text(Writer):
    """A line an image, for `cut` and `awk`."""

    suffix = ".txt"

    def write(self, result: Result) -> None:
        # Also where nothing was found: a line without a tab would not be known for ours again.
        fields = [result.path, *(result.fields() or [""])]
        self.file.write("\t".join(map(_one_line, fields)) + "\n")

    @classmethod
    def wrote(cls, line: str) -> bool:
        return "\t" in line


_FORMATS: dict[str, type[Writer]] = {"jsonl": JsonLines, "json": JsonLines, "csv": Csv, "txt": Text}


class PredictionFolder:
    """Writes results to a folder; a context manager.

    ``with PredictionFolder(out, format="csv") as folder: folder.add(result)``. If the context ends
    by an error, the files from before are still there, and nothing else (drawn images aside).
    """

    def __init__(
        self,
        out: Path,
        *,
        format: str = "jsonl",
        draw: Draw | None = None,
        base: Path | None = None,
    ) -> None:
        """`draw`: also save the images, drawn upon by `Task.draw`, keeping their folders relative
        to `base` (default: the current folder). UsageError for an unknown format, for an `out`
        that is a file, and for one that holds a foreign file under the name of ours."""
        if format not in _FORMATS:
            raise UsageError(
                f"unknown format {format!r}",
                mend=suggest(format, _FORMATS) or f"there are {', '.join(_FORMATS)}",
            )
        self.out = out
        self.images = 0
        """Results written."""
        self.skipped: dict[str, str] = {}
        """Images that were skipped, and why."""
        self.files: list[Path] = []
        """What was written, drawn images aside; complete once the context has ended."""
        self._writer_type = _FORMATS[format]
        self._draw = draw
        self._base = Path(os.path.abspath(base if base is not None else Path.cwd()))
        self._taken: set[str] = set()
        self._swept: set[Path] = set()
        self._stack = ExitStack()
        self._list = out / f"predictions{self._writer_type.suffix}"
        _check_place(out, self._list, self._writer_type)

    def __enter__(self) -> PredictionFolder:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            sweep(self.out)
            if self._draw is not None:
                (self.out / DRAWN).mkdir(exist_ok=True)
                (self.out / DRAWN / DRAWN_MARK).touch()
            temporary = self._stack.enter_context(replacing(self._list))
        except OSError as error:
            raise _cannot_write(self.out, error) from error
        file = self._stack.enter_context(
            open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="")
        )
        self._writer = self._writer_type(file)
        return self

    def add(self, item: Result | Skipped) -> None:
        """Append the outcome of one image."""
        if isinstance(item, Skipped):
            self.skipped[item.path] = item.reason
            return
        try:
            self._writer.write(item)
            if self._draw is not None:
                self._save_drawn(item, self._draw)
        except OSError as error:
            raise _cannot_write(self.out, error) from error
        self.images += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
            if error is None:
                self.files.append(self._list)
                self._list_skipped()
        except OSError as problem:
            raise _cannot_write(self.out, problem) from problem

    def _list_skipped(self) -> None:
        place = self.out / SKIPPED_FILE
        if not self.skipped:
            if place.is_file() and _is_ours(place, JsonLines):
                place.unlink()  # of an earlier prediction into this folder
            return
        with replacing(place) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json_line(Skipped(*item).as_dict()) for item in self.skipped.items())
        self.files.append(place)

    def _save_drawn(self, result: Result, draw: Draw) -> None:
        encoded = Encoded(read_bytes(result.path), path=result.path)
        image = turn(encoded.decode().image, encoded.orientation)
        place = self.out / DRAWN / self._name_drawn(result.path)
        kind = _SAVED_AS[place.suffix.lower()]
        if place.parent not in self._swept:
            self._swept.add(place.parent)
            sweep(place.parent)
        with replacing(place) as temporary:
            Image.fromarray(draw(image, result)).save(temporary, format=kind, quality=92)

    def _name_drawn(self, path: str) -> Path:
        """Inside `base`: as it lies there; elsewhere: `outside/` and its whole path."""
        whole = Path(os.path.abspath(path))
        try:
            relative = whole.relative_to(self._base)
        except ValueError:
            relative = Path("outside", *(part.strip(":") for part in whole.parts[1:]))
        if relative.suffix.lower() not in _SAVED_AS:
            relative = relative.with_name(f"{relative.name}.png")
        stem, number = relative.stem, 1
        # Not the same name twice, whatever the file system thinks of capitals.
        while str(relative).casefold() in self._taken:
            number += 1
            relative = relative.with_name(f"{stem}-{number}{relative.suffix}")
        self._taken.add(str(relative).casefold())
        return relative


def common_base(sources: Iterable[str | Path]) -> Path:
    """The folder that holds everything the given sources name, for `PredictionFolder`; the current
    one for lists, patterns and standard input."""
    folders = []
    for source in map(str, sources):
        whole = os.path.abspath(source)
        there = source != "-" and os.path.exists(whole)
        if there:
            folders.append(whole if os.path.isdir(whole) else os.path.dirname(whole))
        else:
            folders.append(os.getcwd())
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # none, or on several drives
        return Path.cwd()


def json_line(value: dict[str, Any]) -> str:
    """One line of JSON: readable in every script, escaped only where it is no valid text."""
    return json_text(value) + "\n"


def _one_line(value: str) -> str:
    for raw, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(raw, escaped)
    return utf8(value)


def _check_place(out: Path, place: Path, writer: type[Writer]) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError("the output is a file, not a folder", where=str(out))
    for path, kind in ((place, writer), (out / SKIPPED_FILE, JsonLines)):
        if path.exists() and not _is_ours(path, kind):
            raise UsageError(
                "there is another file of that name, which will not be overwritten",
                where=str(path),
                mend="choose another folder with --out",
            )


def _is_ours(path: Path, kind: type[Writer]) -> bool:
    """Whether `path` looks like what `kind` writes, or is empty."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        line = file.readline(1 << 20)
    return not line or kind.wrote(line)


def _cannot_write(out: Path, error: OSError) -> RetinueError:
    return RetinueError(
        f"predictions cannot be written: {error.strerror or error}",
        where=str(error.filename or out),
        mend="free some space or choose another folder with --out",
    )
