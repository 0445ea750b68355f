"""`report.html`: one page that needs nothing but a browser.

The page is a list of sections. A section is made from what the run folder holds, or left out; a
task brings its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import retinue
from retinue.files import sweep, write_text
from retinue.page.record import RunRecord, read_run
from retinue.page.section import Builder, Section
from retinue.page.text import percent
from retinue.report import general, studied
from retinue.report.task import sections_of
from retinue.text import visible


def write_report(run: Path | str) -> Path:
    """Writes `report.html` and `plots/*.png` into the run folder `run`; returns the page's path.

    Works for unfinished runs: what is not there yet is left out. Raises `UsageError` when `run`
    is no run folder.
    """
    record = read_run(Path(run))
    page = record.folder / "report.html"
    for folder in (record.folder, record.folder / "plots"):
        sweep(folder)
    write_text(page, render(record))
    return page


def render(record: RunRecord) -> str:
    """The page as text. Plots are written into the run folder on the way."""
    builders: list[Builder] = [
        general.headline,
        studied.folds,
        studied.searched,
        studied.tried,
        general.curves,
        *sections_of(record.task).builders,
        general.batches,
        general.pseudo_labels,
        general.model,
        general.recipe,
        general.skipped,
        general.run,
    ]
    sections, problems = built(builders, record)
    return page_of(
        sections,
        kind="training report",
        title=record.folder.resolve().name,
        subtitle=general.subtitle(record),
        status=general.status(record),
        problems=[*record.notes, *problems],
        again=f"retinue report {shlex.quote(str(record.folder))}",
    )


T = TypeVar("T")


def built(
    builders: Sequence[Callable[[T], Section | None]], of: T
) -> tuple[list[Section], list[str]]:
    """The sections that there are, and what kept others from being made."""
    sections: list[Section] = []
    problems: list[str] = []
    for build in builders:
        try:
            section = build(of)
        except Exception as error:  # one damaged part must not cost the whole page
            problems.append(f"{build.__name__} is left out: {type(error).__name__}: {error}")
            continue
        if section is not None:
            sections.append(section)
    return sections, problems


def page_of(sections: Sequence[Section], **values: Any) -> str:
    """The page that `sections` are shown on, as text; `values`: what else page.html wants."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        # A section names its template by its whole path; the page's own parts, by their names.
        loader=FunctionLoader(lambda name: (general.TEMPLATES / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["visible"] = visible
    environment.filters["integer"] = lambda n: f"{int(n):,}"
    return environment.get_template("page.html").render(
        sections=sections,
        version=retinue.__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **values,
    )
