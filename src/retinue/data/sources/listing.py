"""What every format is read into: records, and what was odd about them; what a format is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.data.options import DataOptions
from retinue.data.sources.box_rules import Oddity
from retinue.data.sources.records import Records
from retinue.errors import UsageError
from retinue.files import expanded, nearest


@dataclass(slots=True)
class Listing:
    """A data set as it was found, before classes and splits are settled."""

    format: str
    root: Path
    records: Records
    notes: list[str] = field(default_factory=list)
    """Worth telling, and nothing wrong."""
    problems: list[str] = field(default_factory=list)
    """Labels that cannot be used, with file and line: what `on_bad_image` decides on."""
    each_problem: str = "label"
    """What each of these is one of: a label, or an example that has an image and its label."""
    errors: list[UsageError] = field(default_factory=list)
    """What training refuses in any case."""
    empty_classes: list[str] = field(default_factory=list)
    without_label: list[Path] = field(default_factory=list)
    """Images that lie beside the data and belong to no class or row."""
    without_label_become: str = "in no class folder or row: left out"
    """What is done with them."""
    looks_like: str = ""
    """What data of another task this looks like, and what reads it; empty: nothing does."""
    missing: list[str] = field(default_factory=list)
    """Labels without an image: the names."""
    not_images: list[str] = field(default_factory=list)
    """Files beside the images that are not called like one."""
    classes: list[str] | None = None
    """In their order, where the data set brings them, those without an image among them."""
    class_ids: dict[str, Any] = field(default_factory=dict)
    image_ids: dict[str, Any] = field(default_factory=dict)
    """What the format itself calls classes and images, by their names, where it has ids."""
    oddities: list[Oddity] = field(default_factory=list)
    """What is remarkable about boxes."""


@dataclass(frozen=True)
class Reader:
    """A format of data."""

    name: str
    find: Callable[[DataOptions, bool], Path | None]
    """The file or folder to be read, if the options' path is of this format. The second argument
    tells whether the options ask for the format by name: then what does not fit is a UsageError."""
    read: Callable[[Path, DataOptions], Listing]
    """Raises `UsageError` for what makes no sense."""
    class_order: tuple[str, ...] | None = None
    """Where the format brings an order of its classes."""
    installed: bool = False
    """Whether it is one set of data that an installed package brings, and no path leads to."""
    heeds: frozenset[str] = frozenset()
    """Of the options that not every format has a use for, those that this one has."""
    also: frozenset[str] = frozenset()
    """What else people call it."""
    claims: Callable[[Path, DataOptions], bool] | None = lambda place, options: True
    """Whether what `find` gave is surely meant for a task that has this format, where nobody has
    named one: other tasks may read it as well. None: it never is."""
    labels: str = ""
    """What its labels are, for "this looks like …", where they may lie beside those of other
    formats; empty: they cannot, or nobody would take them for another task's."""
    drawn_without_train: bool = False
    """Whether splits are drawn where its own have nothing to train on, as shards of one split
    are."""

    def refuse_unheeded(self, options: DataOptions) -> None:
        """Raises `UsageError` for an option that would have no effect."""
        for name in ("first_pixel", "unlabelled", "features", "label_separator"):
            default = type(options).model_fields[name].default
            if getattr(options, name) != default and name not in self.heeds:
                raise UsageError(
                    f"data of format {self.name!r} has no use for it",
                    where=f"key data.{name}",
                    mend="leave it out",
                )


class Readers(dict[str, Reader]):
    """The formats that a task reads, by name; of those that recognise a path, the first counts."""

    def __init__(
        self,
        own: Mapping[str, Reader],
        others: Callable[[], Iterable[tuple[Reader, str]]] = lambda: (),
    ) -> None:
        """`others`: what other tasks read, each with how to have it read; asked for only where the
        data seems to be for one of them."""
        super().__init__(own)
        self.others = others

    def called(self, name: str) -> Reader | None:
        """The format of that name, or that people call so."""
        return self.get(name) or next((r for r in self.values() if name in r.also), None)


def given_path(options: DataOptions) -> Path:
    """Where the options say the data is. Raises `UsageError` if they do not, or there is none."""
    if options.path is None:
        raise UsageError("no data", where="key data.path", mend="say data=PATH")
    path = expanded(options.path)
    if not path.exists():
        several = any(c in options.path for c in "*?{") and path.parent.is_dir()
        mend = f"give the folder, {str(path.parent)!r}: all in it is read" if several else ""
        what = "no such file or folder"
        raise UsageError(what, where=repr(options.path), mend=mend or nearest(path))
    if not (path.is_dir() or path.is_file()):
        raise UsageError("neither a file nor a folder", where=repr(str(path)), mend=nearest(path))
    return path
