"""YOLO's label files: rows of `class x y width height`, as shares of the image's sides."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retinue.data.sources.walking import normal
from retinue.errors import UsageError
from retinue.files import encoding_of, open_file, read_file, read_text
from retinue.text import counted

NO_LABELS = ("classes.txt", "obj.names", "_darknet.labels", "readme.txt", "readme.roboflow.txt")
"""Files that lie among labels and are none; names of classes in some of them."""
_OF_NAMES = NO_LABELS[:3]
TOLERANCE = 1e-3
"""By which a share may lie beyond 0 or 1: programs round. It is clipped."""
_START = 1 << 16
"""Bytes that tell what a file is: any text that lies about is looked at, and some are huge."""


@dataclass(slots=True)
class Rows:
    """What a label file says."""

    of: list[int] = field(default_factory=list)
    """Ids of classes."""
    xywh: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Middle and sides, from 0 to 1."""
    lines: list[int] = field(default_factory=list)
    """Where each stands, counted from 1."""
    problems: list[str] = field(default_factory=list)
    confidences: int = 0
    """Rows with a sixth column, as predictions have it."""
    outlines: int = 0
    """Rows of corners, of which the box around them is taken."""


def read_rows(path: Path, *, points: bool = False) -> Rows:
    """`points`: behind each box are key points, which are not read. What makes no sense becomes a
    problem; OSError for a file that cannot be read."""
    content = read_file(path)
    encoding = encoding_of(content[:64])
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        # Digits are the same in all of them; what else there is will be named.
        text = content.decode("latin-1")
    found = Rows()
    for number, line in enumerate(text.splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        problem = _row(cells, found, points)
        if problem:
            found.problems.append(f"line {number}: {problem}")
        else:
            found.lines.append(number)
    return found


def _row(cells: list[str], found: Rows, points: bool) -> str:
    """Adds a row to `found`, or says what is wrong with it."""
    if len(cells) < 5:
        return f"{counted(len(cells), 'column')}; a row is class, x, y, width, height"
    try:
        of = float(cells[0])
    except ValueError:
        return f"class {cells[0][:40]!r} is no number"
    try:
        values = [float(cell) for cell in cells[1:]]
    except ValueError:
        wrong = next(cell for cell in cells[1:] if not _is_number(cell))
        return f"{wrong[:40]!r} is no number"
    if not (0 <= of < 1 << 31 and of == math.floor(of)):
        return f"class {cells[0]} is no whole number from 0 on"
    outline = not points and len(values) >= 6 and len(values) % 2 == 0
    if not points and not outline and len(values) > 5:
        return f"{counted(len(cells), 'column')}; a row is class, x, y, width, height"
    shares = values if outline else values[:4]
    for value in shares:
        if not -TOLERANCE <= value <= 1 + TOLERANCE:
            return f"{value:g} is no share of the image's side, from 0 to 1"
    x, y, width, height = _around(values) if outline else shares
    found.outlines += outline
    found.confidences += not points and len(values) == 5
    clipped = [min(max(value, 0.0), 1.0) for value in (x, y, width, height)]
    found.of.append(int(of))
    found.xywh.append((clipped[0], clipped[1], clipped[2], clipped[3]))
    return ""


def _around(corners: Sequence[float]) -> tuple[float, float, float, float]:
    """Middle and sides of the box around a polygon."""
    xs, ys = corners[::2], corners[1::2]
    low, high = (min(xs), min(ys)), (max(xs), max(ys))
    return (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[0] - low[0], high[1] - low[1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def looks_like_rows(path: Path) -> bool:
    """Whether the first line with anything in it is a row of boxes, and so no list of names."""
    if path.name.lower() in NO_LABELS:
        return False
    try:
        with open_file(path) as file:
            start = file.read(_START)
        text = start.decode(encoding_of(start[:64]), "ignore" if len(start) == _START else "strict")
    except (OSError, ValueError):
        return False
    first = next((line.split() for line in text.splitlines() if line.strip()), [])
    return len(first) >= 5 and all(map(_is_number, first)) and not _row(first, Rows(), False)


# --- names of classes -----------------------------------------------------------------------------


def names_of(value: object, where: str, count: object = None) -> dict[int, str]:
    """Id → name, of a list or a mapping of a YAML file; `count`: its `nc`. Raises `UsageError` for
    what is neither, or contradicts the count."""
    pairs = value.items() if isinstance(value, Mapping) else None
    if isinstance(value, list):
        pairs = dict(enumerate(value)).items()
    if pairs is None:
        what, mend = "names is no list of classes", "names: [cat, dog]"
        raise UsageError(what, where=f"{where}, key names", mend=mend)
    found: dict[int, str] = {}
    for key, name in pairs:
        named = name is not None and not isinstance(name, dict | list) and str(name).strip()
        if not str(key).isdecimal() or not named:
            raise UsageError(
                f"{key!r}: {name!r} is no id and name of a class",
                where=f"{where}, key names",
                mend="0: cat",
            )
        found[int(str(key))] = normal(" ".join(str(name).split()))
    if count is not None and count != len(found):
        raise UsageError(
            f"nc is {count}, but there are {len(found)} names",
            where=where,
            mend="make them agree: rows name classes by their place among the names",
        )
    return _apart(found, where)


def names_in(path: Path) -> dict[int, str]:
    """Id → name, of a text with a name a line. Raises `UsageError`."""
    where = repr(str(path))
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is neither UTF-8 nor UTF-16"
        what = f"cannot read the names of the classes: {reason}"
        raise UsageError(what, where=where, mend="save it as UTF-8") from None
    while lines and not lines[-1].strip():
        lines.pop()
    found = {k: normal(" ".join(line.split())) for k, line in enumerate(lines)}
    for k, name in found.items():
        if not name:
            what, mend = "a class without a name", "a name a line: rows count the lines"
            raise UsageError(what, where=f"{where} line {k + 1}", mend=mend)
    return _apart(found, where)


def names_near(folders: Sequence[Path]) -> tuple[Path, dict[int, str]] | None:
    """The first list of names that lies in one of `folders`."""
    for folder in folders:
        for name in _OF_NAMES:
            if (folder / name).is_file():
                return folder / name, names_in(folder / name)
    return None


def _apart(names: dict[int, str], where: str) -> dict[int, str]:
    doubled = [name for name, times in Counter(names.values()).items() if times > 1]
    if doubled:
        raise UsageError(f"two classes are called {doubled[0]!r}", where=where)
    return names
