"""What a form is that predictions are written in: one list of all, a file an image, or both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from retinue.sample import Result

Say = Callable[[str], None]


class Outlet(Protocol):
    """A folder to write to, in which each file is there as a whole or not at all."""

    def listed(self, name: str) -> Path:
        """A temporary name, to be written now; it becomes the file `name` once all has ended well,
        and goes if it has not. `name` is one of the form's `lists`."""
        ...

    def beside(self, folder: str, result: Result, suffix: str) -> Path:
        """The name for what belongs to `result` alone: within `folder`, as its image lies among
        the others, never given twice. Frames of videos have their number in it."""
        ...

    def say(self, line: str) -> None:
        """Tell the user."""
        ...


class Form(ABC):
    """A form of predictions. `write` each result, then `close`, unless something went wrong."""

    lists: ClassVar[tuple[str, ...]]
    """The files of all images that it may write."""
    folder: ClassVar[str] = ""
    """Where files of single images go; empty: there are none."""

    def __init__(
        self, outlet: Outlet, classes: Sequence[str], *, reference: Path | None = None
    ) -> None:
        """`reference`: a file whose numbers for images and classes are to be kept."""
        self.outlet = outlet
        self.classes = tuple(classes)

    @abstractmethod
    def write(self, result: Result) -> None:
        """Take in one image's result."""

    def close(self) -> None:  # noqa: B027 - there may be nothing to do
        """All have been written."""

    def leave(self) -> None:  # noqa: B027
        """Close what is open, whether all went well or not."""

    @classmethod
    @abstractmethod
    def wrote(cls, name: str, line: str) -> bool:
        """Whether a file of `lists` with this first line is of this form, so may be replaced."""

    @classmethod
    def wrote_at(cls, path: Path) -> bool:
        """The same of the file at `path`, which may be empty, too."""
        with open(path, encoding="utf-8", errors="replace") as file:
            line = file.readline(1 << 20)
        return not line or cls.wrote(path.name, line)

    @classmethod
    def keeps_numbers(cls) -> bool:
        """Whether a `reference` means anything to it."""
        return False
