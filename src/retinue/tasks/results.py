"""Kinds of results, for tasks to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from retinue.evaluation.boxes import iou_matrix
from retinue.sample import ImageSize, Part, Result
from retinue.tasks import display
from retinue.text import counted, few, shorten

_TOLD, _LABELS = 3, 8
"""Objects, and labels, that stand in a line for people."""


def _scored(answers: Sequence[tuple[str, float]]) -> str:
    """`rose 97.1 %, tulip 2.0 %, …`"""
    return few([f"{shorten(name, 16)} {100 * score:.1f} %" for name, score in answers])


def _named(answers: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"name": name, "score": score} for name, score in answers]


class ShownResult(Result):
    """A result that a notebook shows as a picture, and that becomes what other libraries take."""

    pictured: ClassVar[bool] = True
    """Whether the file at `path` is the picture."""

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture, where its file is still there, and the answers."""
        return display.html(self)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with the columns and rows that `predictions.csv` would have.
        RetinueError without pandas."""
        return display.table([self])


@dataclass(frozen=True, slots=True)
class ClassResult(ShownResult):
    """Classes with scores between 0 and 1, best first."""

    path: str
    classes: list[tuple[str, float]]
    heads: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Where two classifiers answer together: the best class of each, `main` and `auxiliary`."""

    def __repr__(self) -> str:
        return f"<ClassResult {shorten(self.path, 60)}: {_scored(self.classes) or 'no class'}>"

    def as_dict(self) -> dict[str, Any]:
        """See `Result`."""
        found: dict[str, Any] = {"path": self.path, "classes": _named(self.classes)}
        if self.heads:
            found["heads"] = {head: _named([best])[0] for head, best in self.heads.items()}
        return found

    def columns(self) -> list[str]:
        """See `Result`."""
        numbers = range(1, len(self.classes) + 1)
        return ["path", *(f"{key}_{i}" for i in numbers for key in ("name", "score"))]

    def rows(self) -> list[list[Any]]:
        """See `Result`: one."""
        return [[self.path, *(value for pair in self.classes for value in pair)]]

    def fields(self) -> list[str]:
        """See `Result`: the best class and its score."""
        return [part for name, score in self.classes[:1] for part in (name, f"{score:.6f}")]

    def answers(self) -> list[tuple[str, float]]:
        """See `Result`: three at most."""
        return self.classes[:3]

    def to_supervision(self, classes: Sequence[str] | None = None) -> Any:
        """`supervision.Classifications`. `classes`, in the order that their ids follow
        (`model.classes`); by default those in this result, sorted. RetinueError without
        supervision."""
        return display.classifications(self.classes, classes)


@dataclass(frozen=True, slots=True)
class LabelsResult(ShownResult):
    """Any number of labels, the likeliest first."""

    path: str
    classes: list[tuple[str, float]]
    """Those that are given, with their probabilities."""
    scores: tuple[float, ...]
    """The probability of every class, in the order of the classes."""

    def __repr__(self) -> str:
        return f"<LabelsResult {shorten(self.path, 60)}: {_scored(self.classes) or 'no label'}>"

    def as_dict(self) -> dict[str, Any]:
        """See `Result`."""
        return {"path": self.path, "classes": _named(self.classes)}

    def columns(self) -> list[str]:
        """See `Result`."""
        return ["path", "name", "score"]

    def rows(self) -> list[list[Any]]:
        """See `Result`: one a label; of none one with empty cells, so that it can be read again as
        a table of labels."""
        return [[self.path, name, score] for name, score in self.classes] or [
            [self.path, None, None]
        ]

    def fields(self) -> list[str]:
        """See `Result`: `name score` of each."""
        return [f"{name} {score:.6f}" for name, score in self.classes]

    def answers(self) -> list[tuple[str, float]]:
        """See `Result`."""
        return self.classes

    def told(self) -> list[str]:
        """See `Result`: the likeliest, and how many more there are."""
        told = [f"{name} {score:.1%}" for name, score in self.classes[:_LABELS]]
        more = len(self.classes) - len(told)
        return [*told, f"and {more:,} more"] if more else told or ["no label"]


@dataclass(frozen=True, slots=True)
class Box:
    """An object found, which is a `Part`: `xyxy` in pixels of the original image, `score` between 0
    and 1."""

    name: str
    score: float
    xyxy: tuple[float, float, float, float]
    track: int | None = None


@dataclass(frozen=True, slots=True)
class BoxResult(ShownResult):
    """Objects, best first."""

    path: str
    boxes: list[Box]
    size: ImageSize | None = None
    """Width and height of the original, where they are known."""
    tracked: bool = False
    """Whether objects are followed through a video: then each has a `track`, or None."""

    def __repr__(self) -> str:
        found = _scored([(box.name, box.score) for box in self.boxes])
        count = counted(len(self.boxes), "object")
        return f"<BoxResult {shorten(self.path, 60)}: {count}{found and f' ({found})'}>"

    def as_dict(self) -> dict[str, Any]:
        """See `Result`."""
        boxes = [
            {
                "name": box.name,
                "score": box.score,
                "xyxy": list(box.xyxy),
                **({"track": box.track} if self.tracked else {}),
            }
            for box in self.boxes
        ]
        return {"path": self.path, "boxes": boxes}

    def columns(self) -> list[str]:
        """See `Result`."""
        return ["path", "name", "score", "x1", "y1", "x2", "y2", *(["track"] * self.tracked)]

    def rows(self) -> list[list[Any]]:
        """See `Result`: one an object."""
        return [
            [self.path, box.name, box.score, *box.xyxy, *([box.track] * self.tracked)]
            for box in self.boxes
        ]

    def fields(self) -> list[str]:
        """See `Result`: `name score x1 y1 x2 y2` of each, and `#track` if it has one."""
        corners = [" ".join(f"{value:.1f}" for value in box.xyxy) for box in self.boxes]
        return [
            f"{box.name} {box.score:.6f} {place}{'' if box.track is None else f' #{box.track}'}"
            for box, place in zip(self.boxes, corners, strict=True)
        ]

    def answers(self) -> list[tuple[str, float]]:
        """See `Result`."""
        return [(box.name, box.score) for box in self.boxes]

    def told(self) -> list[str]:
        """See `Result`: `name score x1 y1 x2 y2` of the best in whole pixels, `#track` if it has
        one, and how many more there are."""
        told = [
            f"{box.name} {box.score:.1%} {' '.join(f'{value:.0f}' for value in box.xyxy)}"
            f"{'' if box.track is None else f' #{box.track}'}"
            for box in self.boxes[:_TOLD]
        ]
        more = len(self.boxes) - len(told)
        return [*told, f"and {more:,} more"] if more else told or ["nothing found"]

    def parts(self) -> Sequence[Part]:
        """See `Result`."""
        return self.boxes

    def to_supervision(self, classes: Sequence[str] | None = None) -> Any:
        """`supervision.Detections`, with the names as `data["class_name"]` and, of a video,
        `tracker_id` (−1: of no track). `classes`, in the order that `class_id` follows
        (`model.classes`); by default those in this result, sorted. RetinueError without
        supervision."""
        return display.detections(self.boxes, classes)


@dataclass(frozen=True, slots=True)
class FrameResult(ShownResult):
    """Any kind of result, of one frame of a video."""

    pictured: ClassVar[bool] = False

    path: str
    """Of the video."""
    result: Result
    frame: int
    """Counted from 0, of those that could be read."""
    time: float
    """Seconds from the video's beginning."""

    def __repr__(self) -> str:
        return f"<FrameResult {self.frame} at {self.time:.3f} s: {self.result!r}>"

    def called(self) -> str:
        """See `Result`: `clip.mp4#12`."""
        return f"{self.path}#{self.frame}"

    def as_dict(self) -> dict[str, Any]:
        """See `Result`: also `frame` and `time`."""
        there = {"path": self.path, "frame": self.frame, "time": self.time}
        return there | {k: v for k, v in self.result.as_dict().items() if k != "path"}

    def columns(self) -> list[str]:
        """See `Result`."""
        return ["path", "frame", "time", *self.result.columns()[1:]]

    def rows(self) -> list[list[Any]]:
        """See `Result`."""
        own = [self.path, self.frame, self.time]
        return [[*own, *row[1:]] for row in self.result.rows()] or [own]

    def fields(self) -> list[str]:
        """See `Result`: the frame and its time first."""
        return [str(self.frame), f"{self.time:.3f}", *self.result.fields()]

    def answers(self) -> list[tuple[str, float]]:
        """See `Result`."""
        return self.result.answers()

    def told(self) -> list[str]:
        """See `Result`."""
        return self.result.told()

    def parts(self) -> Sequence[Part]:
        """See `Result`."""
        return self.result.parts()


def overlap(one: Part, other: Part) -> float:
    """IoU of where the two are."""
    first, second = (np.array([part.xyxy], np.float32) for part in (one, other))
    return float(iou_matrix(first, second)[0, 0])


def of_image(result: Result) -> Result:
    """The result itself, also where it is of a frame."""
    return result.result if isinstance(result, FrameResult) else result
