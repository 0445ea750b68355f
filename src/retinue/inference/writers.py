"""Predictions to a folder: lists, drawn images and what else was asked for, and what was skipped.

Each file is written under a temporary name and takes its own only when it is whole.

- `predictions.jsonl`: `Result.as_dict` a line.
- `predictions.csv`, `.tsv`, `.parquet`: a table with the columns of the task's results, first
  `path`.
- `predictions.txt`: path and the result's fields, separated by tabs (where there are none, a tab
  ends the line); backslash, tab and line breaks in names are written `\\\\ \\t \\n \\r`.
- `frames.…`: the same of the frames of videos, with their number and time.
- whatever else a form of the task's own writes (`Task.forms`).
- `skipped.jsonl`: `{"path", "reason"}` a line; only if there are any.
- `drawn/…`: the images with their results, in the folders that they came from.

File names that are not valid text keep their bytes in JSONL (lone surrogates, as Python's
`os.fsencode` wants them) and are escaped (`\\\\udce9`) elsewhere.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from itertools import takewhile
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from retinue.data.sources.walking import DRAWN_MARK
from retinue.errors import RetinueError, UsageError, suggest
from retinue.files import or_room, replacing, sweep
from retinue.inference.extras import Cut, Extra, Paint, Painted, Shown
from retinue.inference.forms import FORMS, JsonLines, json_line
from retinue.inference.heat import coloured
from retinue.inference.inputs import DRAWN, HEATMAPS
from retinue.inference.naming import Names
from retinue.inference.predictor import Skipped
from retinue.inference.video import is_stream
from retinue.sample import Pixels, Result, Sample
from retinue.tasks.forms import Form
from retinue.tasks.results import of_image
from retinue.tasks.shipped import imported
from retinue.tasks.task import Task
from retinue.text import counted

Draw = Callable[[npt.NDArray[np.uint8], Result], npt.NDArray[np.uint8]]

SKIPPED_FILE = "skipped.jsonl"
CROPS = "crops"
"""The folder of what was cut out."""
WRITTEN_MARK = ".written-by-retinue"
"""Stands in a folder of files that a form has written, an image each: they may be replaced."""


class PredictionFolder:
    """Writes results to a folder; a context manager, and the outlet of a form.

    ``with PredictionFolder(out, format="csv") as folder: folder.add(result)``. If the context ends
    by an error, the files from before are still there, and nothing else (drawn images and other
    files of one image aside).
    """

    def __init__(
        self,
        out: Path,
        *,
        format: str = "jsonl",
        draw: Draw | None = None,
        base: Path | None = None,
        task: Task | None = None,
        reference: Path | None = None,
        crops: bool = False,
        heat: bool = False,
    ) -> None:
        """`draw`: also save the images, drawn upon by `Task.draw`, keeping their folders relative
        to `base` (default: the current folder). `task`: whose results they are, for the forms that
        it brings; `reference`: see `Form`. `crops`: save what was found cut out; `heat`: the images
        with the evidence on them. UsageError for an unknown format, for an `out` that is a
        file, and for one that holds a foreign file under the name of ours."""
        self.out = out
        self.images = 0
        """Results written."""
        self.skipped: dict[str, str] = {}
        """Images that were skipped, and why."""
        self.files: list[Path] = []
        """What was written, of files of one image each their folder; complete once the context has
        ended."""
        self._shared: dict[str, None] = {}
        self._form_type = form_type(format, task, reference)
        self._classes = () if task is None else task.classes
        self._reference = reference
        self._draw, self._crops, self._heat = draw, crops, heat
        self._base = Path(os.path.abspath(base if base is not None else Path.cwd()))
        self._names: dict[str, Names] = {}
        self._extras: list[Extra] = []
        self._stack = ExitStack()
        self._form: Form | None = None
        self._check_places()

    def names(self, folder: str) -> Names:
        """The names for files of images within `folder`."""
        return self._names.setdefault(folder, Names(self._base))

    def _check_places(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise UsageError("the output is a file, not a folder", where=str(self.out))
        for name in self._form_type.lists:
            _check_place(self.out / name, self._form_type)
        _check_place(self.out / SKIPPED_FILE, JsonLines)
        if folder := self._form_type.folder:
            check_folder(self.out / folder, WRITTEN_MARK)
        drawn = {DRAWN: self._draw is not None, HEATMAPS: self._heat, CROPS: self._crops}
        for folder in (name for name, wished in drawn.items() if wished):
            check_folder(self.out / folder, DRAWN_MARK)

    def __enter__(self) -> PredictionFolder:
        try:
            self._begin()
        except BaseException as error:
            self._give_up(error)
            if isinstance(error, OSError):
                raise _cannot_write(self.out, error) from error
            raise
        return self

    def _begin(self) -> None:
        # First, so that a bad reference leaves nothing behind.
        self._form = self._form_type(self, self._classes, reference=self._reference)
        self.out.mkdir(parents=True, exist_ok=True)
        sweep(self.out)
        if self._form_type.folder:
            marked_folder(self.out / self._form_type.folder)
        if self._draw is not None:
            self._paint(DRAWN, self._drawn)
        if self._heat:
            self._paint(HEATMAPS, _with_heat)
        if self._crops:
            self.also(Cut(self.out / CROPS, lambda folder: self.names(f"{CROPS}/{folder}")))

    @property
    def _begun(self) -> Form:
        assert self._form is not None, "the folder is a context manager"
        return self._form

    def _drawn(self, result: Result, shown: Shown) -> Pixels:
        assert self._draw is not None
        return self._draw(shown.pixels(), of_image(result))

    # --- what else is written ---

    def also(self, extra: Extra) -> None:
        """Have `extra` see every result, too."""
        self._extras.append(extra)

    def _paint(self, folder: str, paint: Paint) -> None:
        self.also(Painted(self.out / folder, paint, self.names(folder)))

    # --- the outlet ---

    def listed(self, name: str) -> Path:
        """See `Outlet`."""
        temporary = self._stack.enter_context(replacing(self.out / name))
        self.files.append(self.out / name)
        return temporary

    def beside(self, folder: str, result: Result, suffix: str) -> Path:
        """See `Outlet`."""
        self._shared[folder] = None
        names = self.names(folder)
        name = names.of(result, (suffix,), otherwise=suffix, stem=True)
        if why := names.moved.get(name.as_posix()):
            self.say(f"{result.path!r} {why}: its file is {str(name)!r}")
        return self.out / folder / name

    def say(self, line: str) -> None:
        """See `Outlet`."""
        logging.getLogger("retinue").warning(line)

    # --- what comes in ---

    def add(self, item: Result | Skipped, shown: Shown | None = None) -> None:
        """Append the outcome of one image; `shown` has its pixels, by default those of the file
        that `item` names."""
        if isinstance(item, Skipped):
            self.skip(item)
            return
        shown = shown or Shown(Sample(item.path))
        try:
            self._begun.write(item)
            for extra in self._extras:
                extra.add(item, shown)
        except OSError as error:
            raise _cannot_write(self.out, error) from error
        self.images += 1

    def skip(self, item: Skipped) -> None:
        """List an image that has no result."""
        self.skipped[item.path] = item.reason

    def ended(self) -> None:
        """The video of the last results has ended."""
        try:
            for extra in self._extras:
                extra.ended()
        except OSError as error:
            raise _cannot_write(self.out, error) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                self._give_up(error)
                return
            try:
                self._begun.close()
                self.files += [self.out / folder for folder in self._shared]
                for extra in self._extras:
                    self.files += extra.close()
                for sink in self._sinks():
                    sink.leave()
            except BaseException as late:
                self._give_up(late)
                raise
            self._stack.close()
            self._forget_earlier()
            tell_earlier(self.out, self._names, self.say, "prediction")
            self._list_skipped()
        except OSError as problem:
            raise _cannot_write(self.out, problem) from problem

    def _sinks(self) -> list[Form | Extra]:
        return [*([] if self._form is None else [self._form]), *self._extras]

    def _give_up(self, error: BaseException) -> None:
        """Leave nothing that is not whole. What is closed last may find the disk full, too."""
        for sink in self._sinks():
            with suppress(OSError):
                sink.leave()
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _forget_earlier(self) -> None:
        """Lists of an earlier prediction into this folder that this one has none of."""
        for name in self._form_type.lists:
            place = self.out / name
            if place not in self.files and place.is_file() and is_ours(place, self._form_type):
                place.unlink()

    def _list_skipped(self) -> None:
        place = self.out / SKIPPED_FILE
        if not self.skipped:
            if place.is_file() and is_ours(place, JsonLines):
                place.unlink()  # of an earlier prediction into this folder
            return
        with replacing(place) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json_line(Skipped(*item).as_dict()) for item in self.skipped.items())
        self.files.append(place)


def tell_earlier(
    out: Path, folders: Mapping[str, Names], say: Callable[[str], None], what: str
) -> None:
    """Say which files of single images in `folders` of `out` are of an earlier `what`: among those
    of this one, which have their `Names`, nothing tells them apart."""
    written = {
        f"{folder}/{name}".casefold() for folder, names in folders.items() for name in names.taken
    }
    for folder in dict.fromkeys(name.split("/")[0] for name in folders):
        left = [
            file
            for file in sorted((out / folder).rglob("[!.]*"))
            if file.is_file() and file.relative_to(out).as_posix().casefold() not in written
        ]
        if left:
            are = counted(len(left), "file there is", "files there are")
            say(
                f"{str(out / folder)!r}: {are} of an earlier {what}, {left[0].name!r} the first;"
                " remove the folder beforehand to have this one's alone"
            )


def _with_heat(result: Result, shown: Shown) -> Pixels:
    return coloured(shown.pixels(), shown.heat)


def form_type(format: str, task: Task | None, reference: Path | None = None) -> type[Form]:
    """The form called `format`, of those that all results have, and the task's own. UsageError if
    there is none, and for a `reference` that it has no use for."""
    own = {} if task is None else dict(task.forms)
    if format not in FORMS and format not in own:
        names = [*FORMS, *own]
        of = "" if task is None else f" of the task {task.name!r}"
        raise UsageError(
            f"unknown format {format!r}{of and f' for predictions{of}'}",
            mend=suggest(format, names) or f"there are {', '.join(names)}",
        )
    found = FORMS[format] if format in FORMS else imported(own[format])
    assert isinstance(found, type)
    assert issubclass(found, Form)
    if reference is not None and not found.keeps_numbers():
        raise UsageError(
            f"predictions as {format} have no numbers that a reference could give",
            where="reference",
            mend="leave it out, or choose a format that has",
        )
    return found


def marked_folder(folder: Path) -> Path:
    """`folder`, made and marked as one whose files may be replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WRITTEN_MARK).touch()
    return folder


def check_folder(folder: Path, mark: str) -> None:
    """UsageError for a `folder` with something in it but without the file `mark`, which says that
    it is ours."""
    if not folder.exists():
        return
    if not folder.is_dir() or (
        next(folder.iterdir(), None) is not None and not (folder / mark).exists()
    ):
        raise UsageError(
            "something else has that name, and retinue writes nothing into it",
            where=str(folder),
            mend="choose another folder with --out",
        )


def common_base(sources: Iterable[str | Path]) -> Path:
    """The folder that holds everything the given sources name, for `PredictionFolder`; the current
    one for lists and standard input. Streams lie nowhere."""
    folders = []
    for source in map(str, sources):
        if is_stream(source):
            continue
        whole = os.path.abspath(source)
        if source != "-" and os.path.exists(whole):
            folders.append(whole if os.path.isdir(whole) else os.path.dirname(whole))
        elif glob.has_magic(source):
            parts = Path(whole).parts
            fixed = list(takewhile(lambda part: not glob.has_magic(part), parts))
            folders.append(os.path.join(*fixed))
        else:
            folders.append(os.getcwd())
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # none, or on several drives
        return Path.cwd()


def _check_place(path: Path, form: type[Form]) -> None:
    if path.exists() and not is_ours(path, form):
        raise foreign(path)


def foreign(path: Path) -> UsageError:
    """That `path` is somebody else's."""
    return UsageError(
        "another file has that name, and is not overwritten",
        where=str(path),
        mend="choose another folder with --out",
    )


def is_ours(path: Path, form: type[Form]) -> bool:
    """Whether `path` looks like what `form` writes, or is empty."""
    return path.is_file() and form.wrote_at(path)


def _cannot_write(out: Path, error: OSError) -> RetinueError:
    return RetinueError(
        f"predictions cannot be written: {error.strerror or error}",
        where=str(error.filename or out),
        mend=or_room(error, "choose another folder with --out"),
    )
