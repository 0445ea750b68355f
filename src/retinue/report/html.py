"""`report.html`: one page that needs nothing but a browser.

The page is a list of sections. A section is made from what the run folder holds, or left out; a
task adds its own builders with `register_sections`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retinue.files import write_text
from retinue.report.record import RunRecord, read_run
from retinue.text import visible

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A part of the page: `templates/<template>` is rendered with `values` as `s`."""

    anchor: str
    title: str
    template: str
    values: dict[str, Any] = field(default_factory=dict)


Builder = Callable[[RunRecord], Section | None]
_OF_TASK: dict[str, Sequence[Builder]] = {}


def register_sections(task: str, builders: Sequence[Builder]) -> None:
    """What a task shows between the curves and the recipe. A builder answers None for nothing."""
    _OF_TASK[task] = tuple(builders)


def write_report(run: Path | str) -> Path:
    """Writes `report.html` and `plots/*.png` into the run folder `run`; returns the page's path.

    Works for unfinished runs: what is not there yet is left out. Raises `UsageError` when `run`
    is no run folder.
    """
    record = read_run(Path(run))
    page = record.folder / "report.html"
    write_text(page, render(record))
    return page


def render(record: RunRecord) -> str:
    """The page as text. Plots are written into the run folder on the way."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    import retinue
    from retinue.report import classification, general

    builders: list[Builder] = [
        general.headline,
        general.curves,
        *_OF_TASK.get(record.task, classification.SECTIONS),
        general.batches,
        general.recipe,
        general.skipped,
        general.run,
    ]
    sections: list[Section] = []
    problems: list[str] = list(record.notes)
    for build in builders:
        try:
            section = build(record)
        except Exception as error:  # one damaged part must not cost the whole page
            problems.append(f"{build.__name__} is left out: {type(error).__name__}: {error}")
            continue
        if section is not None:
            sections.append(section)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["visible"] = visible
    environment.filters["integer"] = lambda n: f"{int(n):,}"
    return environment.get_template("page.html").render(
        title=record.folder.resolve().name,
        subtitle=general.subtitle(record),
        status=general.status(record),
        problems=problems,
        sections=sections,
        version=retinue.__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def percent(value: float | None, decimals: int = 1) -> str:
    """`87.2 %`; a dash for what is not defined."""
    if value is None or value != value:
        return "–"
    return f"{100 * value:.{decimals}f}\u202f%"
