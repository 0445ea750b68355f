"""`retinue demo`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinue.cli.output import figures, say
from retinue.text import visible

if TYPE_CHECKING:
    from retinue.sample import Result

EXAMPLES = "Examples: retinue demo --out runs/demo, retinue demo digits"


def demo(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="`cells`: solar cells, sound or defective; `digits`: to be found.",
        ),
    ] = "cells",
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="RUN", help="The run folder; by default runs/demo."),
    ] = None,
) -> None:
    """A real training on data that pip brings: solar cells, or handwritten digits.

    Trains (some minutes on two CPU cores), evaluates, and predicts on pictures the network has
    never seen. Needs: pip install 'retinue\\[demo]'
    """
    from retinue import demos

    done = demos.demo(what, out=out)
    say("\nPictures of the test split, which the training never saw:")
    for result in done.predictions.results:
        say(f"  {visible(Path(result.path).name)}  {_told(result, done.labels[result.path])}")
    run = done.run
    say("")
    figures(run.figures)
    say(f"drawn   {visible(run.folder / 'predictions' / 'drawn')}")
    say(f"model   {visible(run.best)}")
    say(f"report  {visible(run.folder / 'report.html')}")


def _told(result: Result, labels: Sequence[str]) -> str:
    """The answers, as many as there are labels, and whether they are these."""
    best = dict(reversed(result.answers()))
    shown = sorted(best, key=lambda name: -best[name])[: len(labels)]
    told = ", ".join(f"{name} {best[name]:.1%}" for name in shown) or "nothing"
    right = set(shown) == set(labels)
    return f"{told}  ({'right' if right else 'wrong, labelled ' + ', '.join(labels)})"
