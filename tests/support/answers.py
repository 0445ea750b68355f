"""Results to be written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from retinue.sample import Result
from retinue.tasks.results import ClassResult

ODD = ["a,b.jpg", 'say "so".jpg', "new\nline.jpg", "tab\tand\\slash.jpg", "花.jpg", "caf\udce9.jpg"]


def results(names: list[str]) -> list[Result]:
    return [ClassResult(name, [("lily, white", 0.75), ("Löwe\nzahn", 0.25)]) for name in names]


@dataclass(frozen=True)
class Reading(Result):
    """A kind of result that the package has never heard of: what a gauge shows, none or several
    times."""

    path: str
    shown: list[tuple[str, float]]
    steady: bool = True

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.path, "readings": dict(self.shown), "steady": self.steady}

    def columns(self) -> list[str]:
        return ["path", "what", "value", "steady"]

    def rows(self) -> list[list[Any]]:
        return [[self.path, what, value, self.steady] for what, value in self.shown]

    def fields(self) -> list[str]:
        return [f"{what}={value:g}" for what, value in self.shown]

    def answers(self) -> list[tuple[str, float]]:
        return self.shown


READINGS = [
    Reading("花, 1.jpg", [("bar\t", 1.5), ('"°C"', 20.25)]),
    Reading("none.jpg", [], steady=False),
]


def picture(path: Path, size: tuple[int, int] = (60, 40), **more: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (30, 90, 30)).save(path, **more)
    return str(path)
