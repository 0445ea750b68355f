"""`retinue report`."""

from __future__ import annotations

from typing import Annotated

import typer

from retinue.cli.complete import runs
from retinue.cli.options import Json
from retinue.cli.output import print_json, say
from retinue.text import visible

EXAMPLES = "Example: retinue report runs/finetune"


def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, or a folder that evaluate --out wrote.",
            autocompletion=runs,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Write a run's report.html and plots anew, from what stands in its folder.

    Nothing is computed by the network again; a run that is not finished gets the report of what
    there is so far.
    """
    from retinue import api

    page = api.write_report(run)
    if as_json:
        print_json({"report": page})
    else:
        say(visible(page))
