"""`retinue data view`: a folder with a page on which a data set can be looked through.

The page asks for what it shows, a portion of the images at a time, so that it stays quick with any
number of them. It needs no server: portions are scripts that the browser loads beside it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import retinue
from retinue.data import complaints
from retinue.data.check import Finding, divide
from retinue.data.decode import Encoded, read_image, reason
from retinue.data.loader import worker_count
from retinue.data.options import DataOptions
from retinue.data.readable import Progress, Telling, in_turn, placed
from retinue.data.sources.listing import Readers
from retinue.data.sources.pool import POOL
from retinue.data.sources.recognise import read_listing
from retinue.data.sources.records import Record
from retinue.documents import json_text, read_json
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.files import children, expanded, write_text
from retinue.page.pictures import small
from retinue.text import as_file_name, counted, visible

SIDE = 320
"""Longer side of the small pictures, in pixels."""
PORTION = 400
"""Images in a file of what is known of them."""
_MARK = "view.json"
"""A folder that has it is a view, of the data that it names, and may be made anew for that."""
_SHOWN = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp"}
"""What a browser shows itself."""
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class View:
    """What was made."""

    page: Path
    images: int
    unreadable: dict[str, str] = field(default_factory=dict)
    """Path → reason; these have no picture."""
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        bad = f", {len(self.unreadable):,} unreadable" if self.unreadable else ""
        return f"<View {self.page}: {counted(self.images, 'image')}{bad}>"


def write_view(
    options: DataOptions,
    readers: Readers,
    out: Path | None = None,
    progress: Progress | None = None,
    *,
    side: int = SIDE,
    force: bool = False,
) -> View:
    """Writes the folder `out`, by default NAME-view here, and `index.html` in it last of all.

    Small pictures that are there from before, of files that have not changed, are taken as they
    are. `force`: a view of other data may be replaced. Raises UsageError where there is no data, or
    `out` holds something else.
    """
    reader, listing = read_listing(options, readers)
    findings: list[Finding] = []
    classes, _, of, beside = divide(listing, options, reader, findings)
    folder = out if out is not None else Path(f"{as_file_name(_title(options), 'data')}-view")
    _refuse_strange(folder, options)
    if not force:
        _refuse_other(folder, options)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"retinue": retinue.__version__, "data": _data_of(options, folder)}
    write_text(folder / _MARK, json_text(told))
    records: Sequence[Record] = [*listing.records, *beside] if beside else listing.records
    names = [name for name in classes if name]
    code = {name: k for k, name in enumerate(names)}
    pool = {record.name for record in beside}
    splits = sorted({*of.values(), *([POOL] if beside else [])}, key=_in_order)
    catalogue: dict[str, Any] = {
        "title": visible(_title(options)),
        "format": listing.format,
        "classes": [visible(name) for name in names],
        "splits": splits,
        "portion": PORTION,
        "labels": [],
        "of": [],
        "bad": [],
    }
    unreadable: dict[str, str] = {}
    kept: set[str] = set()
    workers = max(worker_count(options.workers), 1)
    telling = Telling(progress, len(records))
    with complaints.told_once(), ThreadPoolExecutor(workers) as threads:

        def look(k: int) -> tuple[list[Any], str]:
            return _looked_at(records[k], folder, side, code)

        portion: list[list[Any]] = []
        all_names: list[str] = []
        for k, (row, problem) in enumerate(
            in_turn(threads, look, range(len(records)), 4 * workers)
        ):
            record = records[k]
            split = POOL if record.name in pool else of.get(record.name)
            catalogue["of"].append(-1 if split is None else splits.index(split))
            catalogue["labels"].append(_labels(record, code))
            if problem:
                unreadable[record.key] = problem
                catalogue["bad"].append(k)
            elif row[3]:
                kept.add(str(row[3]))
            portion.append(row)
            all_names.append(row[0])
            if len(portion) == PORTION or k + 1 == len(records):
                _write_script(folder / "items" / f"{k // PORTION}.js", "put", k // PORTION, portion)
                portion = []
            telling(k + 1)
    telling.end()
    _write_script(folder / "names.js", "named", all_names)
    _write_script(folder / "catalogue.js", "begin", catalogue)
    _clear(folder, kept, -(-len(records) // PORTION))
    page = folder / "index.html"
    write_text(page, _page(_title(options)))
    notes = [*listing.notes, *(item for finding in findings for item in finding.items)]
    return View(page, len(records), unreadable, notes)


def _title(options: DataOptions) -> str:
    return expanded(options.path).resolve().name if options.path else options.format


def _in_order(split: str) -> tuple[int, str]:
    known = ("train", "val", "test")
    return (known.index(split) if split in known else len(known), split)


def _refuse_strange(folder: Path, options: DataOptions) -> None:
    """UsageError for a place that holds something else, or lies in the data itself."""
    table = bool(options.path) and expanded(options.path or "").is_file()
    # Of the images that a table names, no others are read.
    for place in (options.path, options.pool, None if table else options.images):
        data = expanded(place).resolve() if place else None
        if data is not None and data.is_dir() and folder.resolve().is_relative_to(data):
            what = "a view within the data would be read as data"
            mend = "name another folder with --out"
            raise UsageError(what, where=repr(str(folder)), mend=mend)
    if folder.is_dir() and _mark(folder) is None and any(children(folder)):
        raise UsageError(
            "the folder holds something else than a view",
            where=repr(str(folder)),
            mend="name a new one with --out",
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError("this is a file", where=repr(str(folder)), mend="name a folder with --out")


def _refuse_other(folder: Path, options: DataOptions) -> None:
    """UsageError for a view of other data."""
    mark = _mark(folder)
    if mark is None or (there := mark.get("data")) == _data_of(options, folder):
        return
    raise UsageError(
        f"the folder holds the view of {'other data' if there is None else repr(there)}",
        where=repr(str(folder)),
        mend="name another folder with out (--out), or replace it with force=True (--force)",
    )


def _mark(folder: Path) -> dict[str, Any] | None:
    """What the view in `folder` says of itself; None where there is none."""
    try:
        told = read_json(folder / _MARK)
    except (OSError, RetinueError):
        return None
    return told if isinstance(told, dict) and "retinue" in told else None


def _data_of(options: DataOptions, folder: Path) -> str:
    """Which data a view shows: the way there from `folder`, as the page's addresses are, so that
    both may be moved together."""
    data = expanded(options.path or "").resolve()
    try:
        return os.path.relpath(data, folder.resolve()).replace(os.sep, "/")
    except ValueError:  # on another drive
        return data.as_posix()


# --- what is known of an image -------------------------------------------------------------------


def _labels(record: Record, code: dict[str, int]) -> list[int]:
    """The classes that occur in it; those that are left out by `classes` have no number."""
    if record.target is None:
        return []
    return [code[str(name)] for name in record.target.names() if str(name) in code]


def _looked_at(
    record: Record, folder: Path, side: int, code: dict[str, int]
) -> tuple[list[Any], str]:
    """(a row of a portion: name, width, height, small picture, address of the image itself, what is
    wrong with it, marks; the same problem in full)."""
    marks: list[list[Any]] = []
    if record.target is not None:
        marks = [
            [code.get(str(name), visible(name)), *(round(value, 1) for value in place), int(hint)]
            for name, place, hint in record.target.marks()
        ]
    name, address = visible(record.name), _address(record, folder)
    thumb = _thumb_name(record, side)
    try:
        source = read_image(record.key, record.read)
        encoded = Encoded(source, path=record.key)
        width, height = encoded.size
        if encoded.orientation != 1 and not address.lower().endswith((".jpg", ".jpeg")):
            address = ""  # of other formats browsers do not agree about which side is up
        if not _is_whole(folder / thumb):
            _write_picture(folder / thumb, small(source, side, record.key))
    except BadImageError as error:
        problem = placed(next(iter(error.reasons.values())), record.shard)
        return [name, 0, 0, "", "", visible(problem), marks], problem
    except OSError as error:
        problem = placed(reason(error), record.shard)
        return [name, 0, 0, "", "", visible(problem), marks], problem
    return [name, width, height, thumb, address, "", marks], ""


def _address(record: Record, folder: Path) -> str:
    """Of the image itself, from the page, where a browser shows it; else empty."""
    if record.path is None or record.path.suffix.lower() not in _SHOWN:
        return ""
    try:
        relative = os.path.relpath(record.path.resolve(), folder.resolve())
    except ValueError:  # on another drive
        return record.path.resolve().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _thumb_name(record: Record, side: int) -> str:
    """Changes with the file's size and time; the same image of another data set has another."""
    file = record.shard or str(record.path or "")
    try:
        facts = os.stat(file)
        stamp = f"{facts.st_size} {facts.st_mtime_ns}"
    except OSError:
        stamp = ""
    told = os.fsencode(f"{record.key}\n{record.name}\n{stamp}\n{side}")
    digest = hashlib.blake2b(told, digest_size=12).hexdigest()
    return f"small/{digest[:2]}/{digest[2:]}.jpg"


def _is_whole(path: Path) -> bool:
    """Whether the JPEG file is there to its end."""
    try:
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            return file.read() == b"\xff\xd9"
    except OSError:
        return False


def _write_picture(path: Path, picture: Any) -> None:
    """Whole or not at all; without waiting for the disk, as it can be made anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    picture.save(temporary, format="JPEG", quality=80, optimize=True)
    os.replace(temporary, path)


# --- files ---------------------------------------------------------------------------------------


def _write_script(path: Path, function: str, *arguments: Any) -> None:
    """A call of the page's function; nothing in the arguments can end the script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = ", ".join(json_text(one, compact=True) for one in arguments)
    said = said.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    write_text(path, f"view.{function}({said});\n")


def _clear(folder: Path, kept: set[str], portions: int) -> None:
    """Small pictures and portions of a former view that this one has no use for."""
    for path in _pictures(folder / "small"):
        if path.relative_to(folder).as_posix() not in kept:
            path.unlink(missing_ok=True)
    for path in (folder / "items").glob("*.js"):
        if path.stem.isdigit() and int(path.stem) >= portions:
            path.unlink(missing_ok=True)


def _pictures(folder: Path) -> Iterator[Path]:
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        if path.suffix in (".jpg", ".part"):
            yield path


def _page(title: str) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("view/index.html")
    return page.render(title=visible(title), version=retinue.__version__)
