"""`retinue report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retinue.cli.complete import runs as known
from retinue.cli.options import Json
from retinue.cli.output import print_json, say
from retinue.text import visible

EXAMPLES = (
    "Example: retinue report runs/finetune"
    "\n\n"
    "Compare: retinue report runs/finetune runs/linear-probe --out comparison.html"
)


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="A run folder, or a folder that evaluate --out wrote; several are compared.",
            autocompletion=known,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Where the comparison of several goes; by default comparison.html in the folder"
            " that they share.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's report.html and plots anew, from what stands in its folder.

    Nothing is computed by the network again; a run that is not finished gets the report of what
    there is so far. Of several runs: one page that compares their figures, curves, recipes, classes
    and answers.
    """
    from retinue import api
    from retinue.errors import UsageError

    if len(runs) > 1:
        page = api.compare_runs(runs, out=out)
    elif out is not None:
        raise UsageError(
            "the report of one run is the report.html in its folder",
            where="--out",
            mend="leave it out, or name several runs to be compared",
        )
    else:
        page = api.write_report(runs[0])
    if as_json:
        print_json({"report": page})
    else:
        say(visible(page))
