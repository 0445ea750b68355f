"""Answers of which all scores are wanted: a row an image, a column a class."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

from retinue.sample import Result
from retinue.tasks.forms import Form, Outlet
from retinue.tasks.results import LabelsResult, of_image
from retinue.text import utf8

FORMS = {"scores": f"{__name__}:Scores"}
"""For `Task.forms`."""


class Scores(Form):
    """`scores.csv`: the path, the labels that are given with `|` between, and the probability of
    every class, whether its label is given or not."""

    lists: ClassVar[tuple[str, ...]] = ("scores.csv",)

    def __init__(
        self, outlet: Outlet, classes: Sequence[str], *, reference: Path | None = None
    ) -> None:
        super().__init__(outlet, classes, reference=reference)
        self._file: IO[str] | None = None
        self._rows: Any = None

    def _open(self) -> Any:
        if self._rows is None:
            place = self.outlet.listed(self.lists[0])
            self._file = open(place, "w", encoding="utf-8", newline="")  # noqa: SIM115 - see `leave`
            self._rows = csv.writer(self._file, lineterminator="\n")
            self._rows.writerow(["path", "labels", *map(utf8, self.classes)])
        return self._rows

    def write(self, result: Result) -> None:
        """See `Form`."""
        found = of_image(result)
        if not isinstance(found, LabelsResult):
            raise TypeError(f"{found!r} has no labels")
        labels = utf8("|".join(name for name, _ in found.classes))
        self._open().writerow([utf8(result.called()), labels, *map(repr, found.scores)])

    def close(self) -> None:
        """See `Form`. Where nothing was, the list has its header alone."""
        self._open()

    def leave(self) -> None:
        """See `Form`."""
        if self._file is not None:
            self._file.close()

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        return line.startswith("path,labels")
