"""What describes a data set of YOLO's kind: a YAML file, or Darknet's `.data`.

Their paths were written on other machines, or for another working directory. Each is looked for
from `path`, from the file's own folder, and with as little as possible of its start left out; which
one was taken is said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retinue.data.options import DataOptions
from retinue.data.sources.layout import image_root
from retinue.data.sources.matching import match
from retinue.data.sources.records import as_names, texts_of
from retinue.data.sources.walking import hidden, walk
from retinue.data.sources.words import split_of
from retinue.data.sources.yolo_rows import names_in, names_of
from retinue.documents import load_yaml, yaml_problem
from retinue.errors import UsageError
from retinue.files import children, expanded, nearest, read_text

_SUFFIXES = (".yaml", ".yml", ".data")
_USUAL = ("data.yaml", "dataset.yaml")
_SHOWN = 5
# Each within one line: looked for across lines, empty ones by the thousand would take hours.
_PAIR = re.compile(r"^[ \t]*(\w+)[ \t]*=(.*)$", re.MULTILINE)
_SPLIT = re.compile(r"^[ \t]*[\"']?(train|val|valid|test)[\"']?[ \t]*:", re.MULTILINE)
_NAMES = re.compile(r"^[ \t]*[\"']?(names|nc)[\"']?[ \t]*:", re.MULTILINE)


@dataclass(slots=True)
class Description:
    """What it says."""

    path: Path
    images: dict[str, list[str]] = field(default_factory=dict)
    """Split → absolute paths of its images."""
    names: dict[int, str] | None = None
    """Id → class."""
    where_names: str = ""
    points: bool = False
    """Whether rows go on with key points."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    errors: list[UsageError] = field(default_factory=list)


def description_in(folder: Path) -> Path | None:
    """The file in `folder` that describes a data set. Raises `UsageError` where several do."""
    found = [
        path
        for path in sorted(children(folder))
        if path.suffix.lower() in _SUFFIXES and not hidden(path.name) and _values(path) is not None
    ]
    usual = [path for path in found if path.name.lower() in _USUAL]
    if len(usual or found) > 1:
        names = ", ".join(repr(path.name) for path in usual or found)
        raise UsageError(
            f"several files describe the data: {names}",
            where=repr(str(folder)),
            mend="give one of them as data=PATH",
        )
    return next(iter(usual or found), None)


def describe(path: Path) -> Description | None:
    """What the file at `path` says; None if it describes no data set. Raises `UsageError` for paths
    that lead nowhere, and names that make no sense."""
    values = _values(path, asked=True)
    if values is None:
        return None
    found = Description(path)
    where = repr(str(path))
    base = _base(path, values.get("path"))
    for key in values:
        split = split_of(str(key))
        if split is None or values[key] in (None, "", []):
            continue
        given = values[key] if isinstance(values[key], list) else [values[key]]
        for entry in given:
            place = _resolved(found, base, str(entry), f"{where}, key {key}")
            found.images.setdefault(split, []).extend(_images(found, place))
    names, count = values.get("names"), values.get("nc", values.get("classes"))
    if isinstance(names, str):
        place = _resolved(found, base, names, f"{where}, key names")
        found.names, found.where_names = names_in(place), repr(str(place))
        if str(count).isdecimal() and int(str(count)) != len(found.names):
            raise UsageError(
                f"classes is {count}, but there are {len(found.names)} names",
                where=f"{where} and {found.where_names}",
                mend="make them agree: rows name classes by their place among the names",
            )
    elif names is None and (beside := [key for key in values if str(key).isdecimal()]):
        raise UsageError(
            f"names is empty, and {beside[0]}: {values[beside[0]]} stands beside it",
            where=f"{where}, key names",
            mend="indent the lines of the classes",
        )
    elif names is not None:
        found.names, found.where_names = names_of(names, where, values.get("nc")), where
    found.points = values.get("kpt_shape") is not None
    return found


def _values(path: Path, *, asked: bool = False) -> dict[str, Any] | None:
    """Keys and values; None for a file that describes no data set. `asked`: one that cannot be read
    is a UsageError."""
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
        return None
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        if not asked:
            return None
        reason = getattr(error, "strerror", None) or "it is neither UTF-8 nor UTF-16"
        what = f"cannot read the description: {reason}"
        raise UsageError(what, where=repr(str(path)), mend="save it as UTF-8") from None
    if path.suffix.lower() == ".data":
        # A key without a value must not take the next line for one.
        values: Any = {key: value.strip() for key, value in _PAIR.findall(text)}
    else:
        if not (_SPLIT.search(text) and _NAMES.search(text)):
            return None
        try:
            values = load_yaml(text)
        except Exception as error:  # ruamel's; what it is does not matter here
            problem, line = yaml_problem(error)
            what, where = f"cannot read the description: {problem}", f"{str(path)!r}{line}"
            raise UsageError(what, where=where, mend="is it YAML?") from None
    if not isinstance(values, dict) or not any(split_of(str(key)) for key in values):
        return None
    return values if "names" in values or "nc" in values else None


def _base(path: Path, given: Any) -> list[Path]:
    """The folders that its paths may start from, the likeliest first."""
    own = Path(os.path.abspath(path.parent))
    if given in (None, ""):
        return [own]
    place = expanded(str(given).replace("\\", "/"))
    if place.is_absolute():
        return [place, own]
    return [own / place, Path.cwd() / place, *_shortened(own, str(given)), own]


def _resolved(found: Description, bases: Sequence[Path], entry: str, where: str) -> Path:
    plain = entry.strip().replace("\\", "/")
    own = Path(os.path.abspath(found.path.parent))
    direct = [Path(os.path.normpath(base / plain)) for base in bases]
    for place in (*direct, *_shortened(own, plain)):
        if place.exists():
            if place != Path(os.path.normpath(own / plain)):
                found.notes.append(f"{entry!r} in {found.path.name} is read as {str(place)!r}")
            return place
    raise UsageError(f"{entry!r} is not there", where=where, mend=nearest(Path(direct[0])))


def _shortened(own: Path, entry: str) -> Iterator[Path]:
    """`entry` below `own`, more and more of its start left out."""
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        yield own.joinpath(*parts[start:])


def _images(found: Description, place: Path) -> list[str]:
    """Of a folder, or of a list."""
    if place.is_dir():
        walked = walk(place)
        found.errors += walked.closed
        if not walked.images:
            what = "no images in this folder"
            raise UsageError(what, where=f"{str(place)!r}, of {found.path.name}")
        return [os.path.join(place, name) for name in walked.images]
    try:
        lines = read_text(place).splitlines()
    except (OSError, ValueError) as error:
        what = f"cannot read the list: {getattr(error, 'strerror', None) or error}"
        raise UsageError(what, where=repr(str(place)), mend="save it as UTF-8") from None
    named = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not named:
        raise UsageError("the list is empty", where=repr(str(place)), mend="an image a line")
    names = as_names([name for _, name in named])
    matched = match(names, image_root(place, names, DataOptions(), around=True))
    for k in np.flatnonzero(matched.position < 0).tolist():
        number, name = named[k]
        found.problems.append(f"{str(place)!r} line {number}: no image {name!r}")
    there = matched.position[matched.position >= 0]
    root = os.path.abspath(matched.files.root)
    paths = [os.path.normpath(os.path.join(root, p)) for p in texts_of(matched.files.paths(there))]
    for what, count, row in matched.readings():
        example, file = named[row][1], matched.files.path(int(matched.position[row]))
        found.notes.append(
            f"{count:,} in {place.name} with other {what}: {example!r} is read as {file!r}"
        )
    return paths
