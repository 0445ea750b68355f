"""`retinue clean`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retinue.cli.complete import runs
from retinue.cli.options import Json
from retinue.cli.output import print_json, say
from retinue.text import visible

EXAMPLES = (
    "Example: retinue clean runs/finetune"
    "\n\n"
    "What there is: retinue clean\n\nAll of it: retinue clean --all"
)


def clean(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="The run whose cached features go; without one, all are shown.",
            show_default=False,
            autocompletion=runs,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Clear the cached features of all runs, and engines.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be cleared.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Clear cached features, which a network's frozen part gave for pictures, and packed images.

    --all clears compiled engines, too. Nothing else is touched. Runs on the same pictures share
    them; a training that needs them again computes them anew. What a training at work holds stays.
    """
    from retinue import api
    from retinue.errors import UsageError

    if run is not None and everything:
        raise UsageError(
            "a run and --all contradict each other", where=visible(run), mend="give one of them"
        )
    dry = dry_run or (run is None and not everything)
    done = api.clean(run, dry_run=dry)
    total = sum(done.spaces.values())
    if as_json:
        told = {"folder": done.folder, "spaces": dict(done.spaces), "bytes": total}
        print_json(
            told
            | {"freed": done.freed, "kept": done.kept, "shared": list(done.shared)}
            | {"packed": sorted(done.packed & set(done.spaces)), "engines": done.engines}
        )
        return
    if done.engines:
        what = "compiled engines" + ("" if dry else " cleared")
        say(f"{_size(done.engines)} of {what}")
    kinds = {name in done.packed for name in done.spaces}
    what = " and ".join(
        name for packed, name in ((False, "cached features"), (True, "packed images"))
        if packed in kinds
    )  # fmt: skip
    if not done.spaces:
        whose = "" if run is None else f" of {visible(run)}"
        say(f"no cached features or packed images{whose} in {visible(done.folder)}")
    elif dry:
        say(f"{_size(total)} of {what} in {visible(done.folder)}")
        if run is None and not everything:
            for name, size in done.spaces.items():
                kind = "packed images" if name in done.packed else "features"
                whose = ", ".join(map(visible, done.users.get(name, ())))
                say(f"  {_size(size):>9}  {name}  {kind}{f' of {whose}' if whose else ''}")
            say("`retinue clean --all` clears them, `retinue clean RUN` those of a run")
    else:
        say(f"{_size(done.freed)} of {what} cleared in {visible(done.folder)}")
        if done.freed < total:
            say(f"{_size(total - done.freed)} stay: a training at work holds them")
    if done.spaces and done.shared:
        names = ", ".join(visible(Path(other).name) for other in done.shared)
        say(f"shared with {names}: computed anew when they are trained again")
    if done.kept and run is not None:
        say(f"{_size(done.kept)} of other runs stay")


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"
