"""`retinue demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retinue.cli.output import figures, say
from retinue.text import visible

EXAMPLES = "Example: retinue demo --out runs/demo"


def demo(
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="RUN", help="The run folder; by default runs/demo."),
    ] = None,
) -> None:
    """A real training on data that pip brings: solar cells, functional or defective.

    Trains (about ten minutes on two CPU cores), evaluates, and predicts on pictures the network has
    never seen. Needs: pip install 'retinue\\[demo]'
    """
    from retinue import api

    done = api.demo(out=out)
    say("\nPictures of the test split, which the training never saw:")
    for result in done.predictions.results:
        name, score = result.answers()[0]
        label = done.labels[result.path]
        verdict = "right" if name == label else f"wrong, labelled {label}"
        say(f"  {visible(Path(result.path).name)}  {name} {score:.1%}  ({verdict})")
    run = done.run
    say("")
    figures(run.figures)
    say(f"drawn   {visible(run.folder / 'predictions' / 'drawn')}")
    say(f"model   {visible(run.best)}")
    say(f"report  {visible(run.folder / 'report.html')}")
