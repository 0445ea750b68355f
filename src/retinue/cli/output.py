"""Printing: JSON, tables, figures, skipped files. Names are shown escaped, never as markup."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from retinue.documents import json_text
from retinue.text import counted, visible

if TYPE_CHECKING:
    from retinue.run.log import Bar

MOST_NAMED = 50
"""Skipped files beyond that many are counted; a file or `--json` has them all."""


def print_json(value: Any) -> None:
    """`value` as JSON on standard output; paths as text."""
    typer.echo(json_text(value, indent=2, plain=True, encoding=sys.stdout.encoding or "utf-8"))


def say(line: str) -> None:
    """A line on standard output, whatever the terminal can show of it."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(line.encode(encoding, "backslashreplace").decode(encoding))


def telling(bar: Bar, what: str) -> Callable[[int, int], None]:
    """Moves `bar`, which begins with the first call: so many of so many are done."""

    def tell(done: int, total: int) -> None:
        if not done:
            bar.begin(what, total)
        bar.advance(done)

    return tell


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: str = "",
    whole: str = "",
) -> None:
    """Aligned columns; those named in `right` (space-separated headings) are flush right, those
    in `whole` are not broken into lines.

    On a terminal a Rich table; in a pipe tab-separated lines without decoration, for `cut`.
    """
    if not sys.stdout.isatty():
        for row in [headings, *rows]:
            say("\t".join(visible(cell) for cell in row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        shown.add_column(heading, justify="right" if heading in right.split() else "left",
                         overflow="fold", no_wrap=heading in whole.split())  # fmt: skip
    for row in rows:
        shown.add_row(*(Text(visible(cell)) for cell in row))
    Console().print(shown)


def figures(values: Mapping[str, Any], *, own: bool = True) -> None:
    """The declared figures of `metrics.json`, one a line, a plain share with its interval; then why
    they are no fair judgement, if they are not. `own`: the split is one of the training itself."""
    from retinue.page.record import number, of_metrics, reservation
    from retinue.report.task import figures_of, remark_of

    record = of_metrics(values)
    images = values.get("images")
    if isinstance(images, int):
        split = values.get("split")
        say(counted(images, "image") + (f", {split} split" if split and split != "all" else ""))
    for figure in figures_of(record):
        value = number(values.get(figure.name))
        if value is None:
            continue
        shown = figure.shown(value, digits=4)
        if (interval := figure.interval(values)) is not None:
            shown += f"   95 % interval {figure.span(interval, digits=3)}"
        say(f"  {figure.name:<20}{shown}")
    if isinstance(rate := values.get("images_per_second"), float):
        say(f"{rate:,.4g} images a second")
    for spoken in (remark_of(record), reservation(values, own=own)):
        if spoken:
            say(spoken)


def name_skipped(skipped: Mapping[str, str], kept: str | None = None) -> None:
    """Each file that was left out, with the reason, and their number; on standard error. Of more
    than a screen can show, a file has all: the one called `kept`, or one that is written now."""
    if not skipped:
        return
    lines = [f"skipped {visible(path)}: {visible(reason)}" for path, reason in skipped.items()]
    count = len(lines)
    place = kept
    if count > MOST_NAMED and kept is None:
        from retinue.files import keep_list

        file = keep_list(lines, "skipped")
        place = None if file is None else str(file)
    all_here = count <= MOST_NAMED or place is None
    for line in lines if all_here else lines[:MOST_NAMED]:
        typer.echo(line, err=True)
    if not all_here:
        typer.echo(f"… and {count - MOST_NAMED:,} more: all are in {visible(place)}", err=True)
    typer.echo(f"{counted(count, 'file was', 'files were')} skipped", err=True)


def end_with(skipped: Mapping[str, str], kept: str | None = None) -> None:
    """Exit code 3 if files were skipped; they are named first, as `name_skipped` does."""
    name_skipped(skipped, kept)
    if skipped:
        raise typer.Exit(3)
