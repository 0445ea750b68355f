"""`retinue demo`."""

from __future__ import annotations

from typing import Annotated

import typer

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

    api.demo(out=out)
