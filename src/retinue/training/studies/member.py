"""One training of several, in a folder below theirs: begun, gone on with, or done already."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState

from retinue.errors import Interrupted, RetinueError, UsageError
from retinue.figures import Figure, plain
from retinue.modelfile import MODEL_FILE
from retinue.run.folder import RunFolder
from retinue.run.log import LOGGER, console
from retinue.run.stopping import signal_of
from retinue.tasks.task import task_type
from retinue.training import session
from retinue.training.changes import RECIPE, RECORD, go_on
from retinue.training.preflight import task_options
from retinue.training.recipe import Recipe
from retinue.training.session import Run, Watch
from retinue.training.stage_samples import WithValidation

STUDY = "study.json"
"""What several trainings are for, and how far they are: in the folder that holds them."""


def done(folder: Path) -> Run | None:
    """The training in `folder`, if it has its final figures."""
    run = RunFolder(folder)
    figures = run.read_json("metrics.json")
    if figures is None:
        return None
    skipped = (run.read_json(RECORD) or {}).get("skipped", {})
    return Run(folder, figures, folder / MODEL_FILE, skipped)


def train(folder: Path, recipe: Recipe, *, quiet: bool, watch: Watch | None = None) -> Run:
    """The training by `recipe` in `folder`, however far it was. `watch` is told every row of
    `metrics.csv`, and may raise."""
    if (before := done(folder)) is not None:
        return before
    run = RunFolder(folder)
    if (folder / RECIPE).is_file() and run.checkpoints.exists():
        return session.resume(folder, {}, quiet=quiet, watch=watch)
    if folder.is_dir():  # of a start that came to nothing
        run.remove()
    return session.start(recipe, {}, out=folder, quiet=quiet, watch=watch)


def declared(recipe: Recipe, metric: str) -> Figure:
    """The figure called `metric` of the recipe's task."""
    figures = task_type(recipe.task).sketch(task_options(recipe)).figures()
    return next((one for one in figures if one.name == metric), plain(metric))


@contextmanager
def going_on(whole: Path) -> Iterator[None]:
    """Whatever ends one of several trainings says how to go on with all of them."""
    mend = f"go on with: {go_on(whole)}"
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(signal_of(stop), where=str(whole), mend=mend) from None
    except Interrupted as stop:
        stop.where, stop.mend = str(whole), mend
        raise
    except RetinueError as error:
        own = (error.mend or "").split(", then go on with:")[0].split("go on with:")[0].rstrip(", ")
        error.mend = ", then ".join(filter(None, (own, mend)))
        raise


def say(whole: RunFolder, *lines: str, quiet: bool) -> None:
    """Into the log of all, between the trainings, each of which has its own."""
    with console(whole.path / "train.log", quiet=quiet):
        for line in lines:
            LOGGER.info("%s", line)


def refuse_processes(instead: str) -> None:
    """Raise UsageError in one of several processes."""
    if PartialState().num_processes > 1:
        raise UsageError("several trainings in turn cannot run in several processes", mend=instead)


def refuse_learnt_validation(recipe: Recipe) -> None:
    """Raise UsageError for a stage that learns from the images that the trainings are compared
    by."""
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage.data, WithValidation):
            raise UsageError(
                f"stage {stage.name} learns from the validation split, by which the trainings are"
                " judged",
                where=f"key stages.{index}.data",
                mend="leave the stage out here, or let it go on with the data that it has"
                f" (stages.{index}.data=null); train with it once everything is chosen",
            )


def refuse_changes(folder: Path, overrides: Mapping[str, Any]) -> None:
    """Raise UsageError for what is to be another way in the midst of several trainings."""
    if overrides:
        raise UsageError(
            "trainings that are to be compared go on as they began",
            where=f"key {next(iter(overrides))}",
            mend=f"leave it out, or begin anew: retinue train {shlex.quote(str(folder / RECIPE))}"
            if (folder / RECIPE).is_file()
            else "leave it out, or begin anew",
        )
