"""A part of the page, and what a task adds to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from retinue.figures import Figure
from retinue.page.record import RunRecord


@dataclass(frozen=True)
class Section:
    """A part of the page: the Jinja2 file `template` is rendered with `values` as `s`.

    It knows the filters `percent` (a fraction), `integer` (with thousands marked) and `visible`
    (a name on one line); everything is escaped.
    """

    anchor: str
    """The `id` that the page's index leads to; unique on the page."""
    title: str
    template: Path
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, name: str, title: str, values: dict[str, Any]) -> Section:
        """That of the template called like it in `folder`."""
        return cls(name, title, folder / f"{name}.html", values)


Builder = Callable[[RunRecord], Section | None]
"""Makes a section from what the run folder holds; None where there is nothing to show."""
Sentence = Callable[[RunRecord], str]
"""Says something of a run; empty where there is nothing to say."""


def _nothing(_: Any) -> str:
    return ""


ANYTHING = ""
"""In the place of a class: whatever was found."""


class Unexplained(NamedTuple):
    """An image on the page, and a class of which one asks: why?"""

    path: str
    """As in the run's predictions."""
    name: str
    """Or `ANYTHING`."""


def _none(_: RunRecord) -> Sequence[Unexplained]:
    return ()


def _nothing_to_compare(_: Any) -> None:
    return None


Comparer = Callable[[Mapping[str, RunRecord]], Section | None]
"""Makes a section from several runs of the task, by name; None where there is nothing to show."""


@dataclass(frozen=True)
class TaskSections:
    """What a task adds to the page of a run."""

    builders: tuple[Builder, ...] = ()
    """Its sections, in order; they stand between the curves and the recipe."""
    summary: Sentence = _nothing
    """What is recognised, in a few words (`3 classes`): a part of the page's subtitle."""
    baseline: Sentence = _nothing
    """What answering without looking would reach: a sentence above the figures."""
    to_explain: Callable[[RunRecord], Sequence[Unexplained]] = _none
    """Of which images on the page it shall show what an answer rests on. Such pictures are made
    when a model is judged (`page.pictures.overlay`), since a page never asks the network."""
    remark: Callable[[Mapping[str, Any]], str] = _nothing
    """What the figures of a `metrics.json` leave out: sentences beside them, in the log, too."""
    class_figures: Sequence[Figure] = ()
    """What judges a class in a row of `per_class` of its `metrics.json`, the most telling first."""
    compared: Comparer = _nothing_to_compare
    """Its section on a page that compares runs: the images in which they differ, say."""
