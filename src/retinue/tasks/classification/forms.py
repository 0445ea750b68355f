"""Answers as contests take them in: a class and a name a line, a file a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar

from retinue.sample import Result
from retinue.tasks.forms import Form, Outlet
from retinue.tasks.results import ClassResult, of_image
from retinue.text import utf8

FORMS = {"submission": f"{__name__}:Submission"}
"""For `Task.forms`."""


class Submission(Form):
    """`submission.tsv`: the best class, a tab, and the image's name without folder and suffix. Of a
    network with two classifiers that is what they answer together, and `submission_main.tsv` and
    `submission_auxiliary.tsv` have what each says alone."""

    lists: ClassVar[tuple[str, ...]] = (
        "submission.tsv",
        "submission_main.tsv",
        "submission_auxiliary.tsv",
    )

    def __init__(
        self, outlet: Outlet, classes: Sequence[str], *, reference: Path | None = None
    ) -> None:
        super().__init__(outlet, classes, reference=reference)
        self._open: dict[str, IO[str]] = {}
        self._stack = ExitStack()

    def _file(self, name: str) -> IO[str]:
        if name not in self._open:
            place = self.outlet.listed(name)
            file = open(place, "w", encoding="utf-8", newline="")  # noqa: SIM115 - see `leave`
            self._open[name] = self._stack.enter_context(file)
        return self._open[name]

    def write(self, result: Result) -> None:
        """See `Form`."""
        found = of_image(result)
        if not isinstance(found, ClassResult):
            raise TypeError(f"{found!r} has no class")
        name = PurePosixPath(found.path.replace("\\", "/")).stem
        best = {"": found.classes[0][0]}
        best |= {f"_{head}": answer[0] for head, answer in found.heads.items()}
        for head, answer in best.items():
            self._file(f"submission{head}.tsv").write(f"{_cell(answer)}\t{_cell(name)}\n")

    def close(self) -> None:
        """See `Form`. Where nothing was, the list says so by being empty."""
        self._file(self.lists[0])
        self._stack.close()

    def leave(self) -> None:
        """See `Form`."""
        self._stack.close()

    @classmethod
    def wrote(cls, name: str, line: str) -> bool:
        """See `Form`."""
        return line.count("\t") == 1


def _cell(text: str) -> str:
    return " ".join(utf8(text).split())
