"""How many of what: in each image, in zones of it, and across lines.

A file of YAML or JSON says where zones and lines are, in pixels of the images, or with
`relative: true` in shares of their sides:

```yaml
zones:
  yard: [[0, 0], [640, 0], [640, 200], [0, 200]]
lines:
  gate: [[100, 300], [500, 300]]
point: bottom
```

A thing is where its `point` is: the `centre` of its rectangle, or the middle of its `bottom`, where
it stands. In a video that is followed, things are counted, not sightings: only what has a number,
and each once. A line is crossed where a thing's way, straight from where it was seen last, passes
between its two ends: to the `right` or to the `left`, as seen from the first end towards the
second.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from ruamel.yaml.error import YAMLError

from retinue.documents import NotJson, json_text, load_yaml, parse_json, yaml_problem
from retinue.errors import UsageError, suggest
from retinue.files import open_file, read_text
from retinue.inference.extras import Shown
from retinue.options import Options
from retinue.sample import Part, Result
from retinue.tasks.results import FrameResult
from retinue.text import shorten, utf8

JSON, CSV = "counts.json", "counts.csv"
_HEAD = ("path", "frame", "time", "all")
Point = tuple[float, float]


class Places(Options):
    """What a file of zones and lines says."""

    zones: dict[str, list[Point]] = Field(default_factory=dict)
    """Polygons: three corners or more each, in order."""
    lines: dict[str, tuple[Point, Point]] = Field(default_factory=dict)
    """From one end to the other."""
    point: Literal["centre", "bottom"] = "centre"
    """Where a thing is said to be."""
    relative: bool = False
    """Whether places are shares of the image's width and height."""


def read_places(path: str | Path) -> Places:
    """Raises UsageError for a file that is not there, or that says something else."""
    where = str(path)
    try:
        values = load_yaml(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text of UTF-8 or UTF-16"
        raise UsageError(f"zones and lines cannot be read: {said}", where=where) from None
    except YAMLError as error:
        problem, line = yaml_problem(error)
        raise UsageError(f"this is neither YAML nor JSON: {problem}", where=where + line) from None
    if not isinstance(values, Mapping):
        raise UsageError("there are neither zones nor lines in it", where=where)
    plain = dict(values)
    try:
        places = Places.model_validate(plain)
    except ValidationError as error:
        raise _refusal(error, where) from None
    for name, corners in places.zones.items():
        if len(corners) < 3:
            raise UsageError(f"the zone {name!r} has {len(corners)} corners", where=where,
                             mend="give three or more")  # fmt: skip
    for name, (start, end) in places.lines.items():
        if start == end:
            raise UsageError(f"the line {name!r} has no length", where=where)
    if not places.zones and not places.lines:
        raise UsageError("there are neither zones nor lines in it", where=where)
    return places


_MENDS = {"point": "point: centre, or bottom", "relative": "relative: true, or false"}


def _refusal(error: ValidationError, where: str) -> UsageError:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = list(Places.model_fields)
        mend = suggest(key, known) or f"there are {', '.join(known)}"
        return UsageError(f"unknown key {key!r}", where=where, mend=mend)
    given = shorten(repr(first["input"]), 40)
    mend = _MENDS.get(key, "a zone is a list of points [x, y], a line has two of them")
    if first["loc"][-1] == "[key]":
        mend = "write names in quotes"
    return UsageError(f"{given} is not allowed", where=f"{where}, key {key}", mend=mend)


def inside(point: Point, corners: npt.NDArray[np.float64]) -> bool:
    """Whether a polygon (k, 2), convex or not, contains the point: by how many of its sides a ray
    to the right crosses."""
    x, y = point
    (x1, y1), (x2, y2) = corners.T, np.roll(corners, -1, axis=0).T
    across = (y1 > y) != (y2 > y)
    at = x1 + (y - y1) * (x2 - x1) / np.where(across, y2 - y1, 1)
    return bool((across & (x < at)).sum() % 2)


def side_of(point: Point, line: npt.NDArray[np.float64]) -> float:
    """Above 0 to the right of the line (2, 2) as seen from its first end, below to the left."""
    x1, y1, x2, y2 = (float(value) for value in line.flat)
    return (x2 - x1) * (point[1] - y1) - (y2 - y1) * (point[0] - x1)


def crossing(
    before: Point, now: Point, line: npt.NDArray[np.float64]
) -> Literal["right", "left"] | None:
    """The side to which the way from `before` to `now` crosses the line between its ends."""
    a, b = side_of(before, line), side_of(now, line)
    if (a > 0) == (b > 0) or a == b:
        return None
    share = a / (a - b)
    met = np.array(before) + share * (np.array(now) - np.array(before))
    along = line[1] - line[0]
    at = float((met - line[0]) @ along / (along @ along))
    return None if not 0 <= at <= 1 else "right" if b > 0 else "left"


def wrote(path: Path) -> bool:
    """Whether the file `path`, called `counts.json` or `counts.csv`, is one of ours."""
    try:
        if path.name == CSV:
            head = ",".join(_HEAD).encode()
            with open_file(path) as file:  # it may have a million rows
                return file.read(len(head)) in (b"", head)
        found = parse_json(read_text(path))
    except (OSError, UnicodeDecodeError, NotJson):
        return False
    return isinstance(found, dict) and bool({"objects", "videos"} & set(found))


class Count:
    """Takes in results, and tells totals; an `Extra` that may also write a row an image."""

    def __init__(
        self,
        classes: Sequence[str],
        places: Places | None = None,
        *,
        followed: bool = False,
        listed: Callable[[str], Path] | None = None,
    ) -> None:
        """`followed`: whether videos are: only then can lines be crossed. `listed`: gives the
        places to write `counts.json` and `counts.csv` to; None: they are not written."""
        if places is not None and places.lines and not followed:
            raise UsageError(
                "counting who crosses a line needs tracking",
                where="lines",
                mend="--track follows them (from Python: track=True); or count in zones",
            )
        self._classes = tuple(classes)
        self._places = places or Places()
        self._followed = followed
        self._listed = listed
        self._images = 0
        self._objects: Counter[str] = Counter()
        self._zones: dict[str, Counter[str]] = {name: Counter() for name in self._places.zones}
        self._videos: list[dict[str, Any]] = []
        self._video: _Seen | None = None
        self._file: IO[str] | None = None
        if listed is not None:
            self._file = open(  # noqa: SIM115 - closed by `leave`
                listed(CSV), "w", encoding="utf-8", errors="backslashreplace", newline=""
            )
            zones = [f"zone {name}" for name in self._zones]
            self._row([*_HEAD, *self._classes, *zones])

    def _row(self, cells: Sequence[Any]) -> None:
        if self._file is not None:
            row = [utf8(str(cell)) for cell in cells]
            csv.writer(self._file, lineterminator="\n").writerow(row)

    def add(self, result: Result, shown: Shown) -> None:
        """See `Extra`. Of a video that is followed, what has no number does not count."""
        parts = list(result.parts())
        if isinstance(result, FrameResult) and self._followed:
            parts = [part for part in parts if part.track is not None]
        there = Counter(part.name for part in parts)
        zones = {
            name: [
                part for part in parts if inside(self._point(part), self._scaled(corners, shown))
            ]
            for name, corners in self._places.zones.items()
        }
        if isinstance(result, FrameResult):
            self._frame(result, parts, zones, shown)
        else:
            self._images += 1
            self._objects += there
            for name, within in zones.items():
                self._zones[name] += Counter(part.name for part in within)
        moment = [result.frame, result.time] if isinstance(result, FrameResult) else ["", ""]
        classes = [there[name] for name in self._classes]
        self._row([result.path, *moment, len(parts), *classes, *map(len, zones.values())])

    def _frame(
        self,
        result: FrameResult,
        parts: Sequence[Part],
        zones: Mapping[str, Sequence[Part]],
        shown: Shown,
    ) -> None:
        if self._video is None:
            self._video = _Seen(result.path, self._places)
        video = self._video
        video.frames += 1
        video.most |= Counter(part.name for part in parts)
        for name, within in zones.items():
            video.zones_most[name] |= Counter(part.name for part in within)
        for part in parts:
            if part.track is None:
                continue
            video.things[part.name].add(part.track)
            for name, within in zones.items():
                if part in within:
                    video.zones[name][part.name].add(part.track)
            now = self._point(part)
            before = video.last.get(part.track)
            video.last[part.track] = now
            for name, ends in self._places.lines.items():
                line = self._scaled(ends, shown)
                way = None if before is None else crossing(before, now, line)
                if way is not None:
                    video.lines[name][part.name][way] += 1

    def ended(self) -> None:
        """See `Extra`: numbers begin anew."""
        if self._video is not None:
            self._videos.append(self._video.told(self._followed))
            self._video = None

    def _point(self, part: Part) -> Point:
        x1, y1, x2, y2 = part.xyxy
        return (x1 + x2) / 2, y2 if self._places.point == "bottom" else (y1 + y2) / 2

    def _scaled(self, points: Sequence[Point], shown: Shown) -> npt.NDArray[np.float64]:
        array = np.array(points, np.float64)
        return array * shown.size() if self._places.relative else array

    def totals(self) -> dict[str, Any]:
        """Plain JSON values. `images`, the `objects` in them by class and in `zones`; and of each
        of the `videos` its frames, the most of a class that a frame had (`most`), and where things
        are followed the number of different ones (`things`), those that were in each of `zones`,
        and how often each of `lines` was crossed, to either side."""
        self.ended()
        told: dict[str, Any] = {}
        if self._images or not self._videos:
            told = {"images": self._images, "objects": dict(self._objects)}
            if self._zones:
                told["zones"] = {name: dict(count) for name, count in self._zones.items()}
        return told | ({"videos": self._videos} if self._videos else {})

    def close(self) -> list[Path]:
        """See `Extra`: the places have been named."""
        if self._listed is not None:
            text = json_text(self.totals(), indent=2) + "\n"
            self._listed(JSON).write_text(text, encoding="utf-8", newline="")
        return []

    def leave(self) -> None:
        """See `Extra`."""
        if self._file is not None:
            self._file.close()


class _Seen:
    """What was counted in one video."""

    def __init__(self, path: str, places: Places) -> None:
        self.path = path
        self.frames = 0
        self.most: Counter[str] = Counter()
        self.zones_most: dict[str, Counter[str]] = {name: Counter() for name in places.zones}
        self.things: dict[str, set[int]] = defaultdict(set)
        self.zones: dict[str, dict[str, set[int]]] = {
            name: defaultdict(set) for name in places.zones
        }
        self.lines: dict[str, dict[str, Counter[str]]] = {
            name: defaultdict(Counter) for name in places.lines
        }
        self.last: dict[int, Point] = {}

    def told(self, followed: bool) -> dict[str, Any]:
        """Plain JSON values."""
        there: dict[str, Any] = {
            "path": self.path, "frames": self.frames, "most": dict(self.most),
        }  # fmt: skip
        zones: Mapping[str, Mapping[str, Any]] = self.zones_most
        if followed:
            there["things"] = {name: len(numbers) for name, numbers in self.things.items()}
            zones = {n: {c: len(ids) for c, ids in z.items()} for n, z in self.zones.items()}
        if zones:
            there["zones"] = {name: dict(count) for name, count in zones.items()}
        if self.lines:
            there["lines"] = {
                name: {
                    thing: {"right": ways["right"], "left": ways["left"]}
                    for thing, ways in crossed.items()
                }
                for name, crossed in self.lines.items()
            }
        return there
