"""A training from its recipe to its final figures, in a new run folder or a resumed one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from retinue.data.sources import Dataset
from retinue.errors import Interrupted, RetinueError
from retinue.modelfile import MODEL_FILE
from retinue.run.folder import NO_ROOM, RunFolder, holder, refused
from retinue.run.log import LOGGER, console
from retinue.run.stopping import signal_of
from retinue.training import pictures
from retinue.training.changes import RECIPE, RECORD, Changes, find_changes, go_on
from retinue.training.environment import Settings, is_main, versions
from retinue.training.finish import final_figures
from retinue.training.preflight import refuse_before_data
from retinue.training.prepare import (
    on_another_device,
    open_data,
    prepared,
    refuse_absent,
    refuse_changed,
    same_as_before,
    settings_of,
    with_absolute_paths,
    write_down,
)
from retinue.training.recipe import Recipe, dump, load_recipe
from retinue.training.trainer import Trainer


@dataclass(frozen=True)
class Run:
    """A training that is done."""

    folder: Path
    figures: dict[str, Any]
    """What stands in `metrics.json`."""
    best: Path
    """The model file."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Files that could not be read, with the reasons."""


def start(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any],
    *,
    out: Path | None,
    quiet: bool,
) -> Run:
    """A new training. The run folder is only made once the recipe and the data are in order."""
    loaded = load_recipe(recipe, overrides)
    refuse_before_data(loaded)
    name = Path(str(recipe)).stem if isinstance(recipe, str | Path) else "training"
    settings = settings_of(loaded)
    with console(None, quiet=quiet or not is_main()) as bar:
        if isinstance(recipe, str | Path) and Path(recipe, RECIPE).is_file():
            LOGGER.warning("this is a new training; --resume goes on with the one in %s", recipe)
        dataset = open_data(loaded, bar=bar)
    made = RunFolder.create(out, name) if is_main() else None
    folder = [str(made.path) if made is not None else None]
    broadcast_object_list(folder)
    run = made or RunFolder(Path(str(folder[0])))
    with run.locked() if made is not None else nullcontext(), _leaving(run, made=made is not None):
        loaded = with_absolute_paths(loaded, dataset)
        if made is not None:
            run.write(RECIPE, dump(loaded))
            if out is not None and run.path != out and (who := holder(out)):
                dataset.notes.append(f"{out} is taken{who}; this training is in {run.path}")
            write_down(run, loaded, dataset, settings)
        return _work(run, loaded, dataset, settings, quiet=quiet)


def resume(folder: Path, overrides: Mapping[str, Any], *, quiet: bool) -> Run:
    """Go on with the training in `folder`, with `overrides` of what may change on the way; one that
    has nothing left to do only gives its figures."""
    run = RunFolder.open(folder)
    with _leaving(run, made=False):
        return _resume(run, overrides, quiet=quiet)


def _resume(run: RunFolder, overrides: Mapping[str, Any], *, quiet: bool) -> Run:
    found = find_changes(run, overrides)
    recipe = found.recipe
    environment = run.read_json(RECORD) or {}
    done = run.read_json("metrics.json")
    if done is not None and not found.goes_on:
        return _done(run, found, done, environment.get("skipped", {}), quiet=quiet)
    settings = settings_of(recipe)
    if before := environment.get("settings"):
        another = any(change.key == "device" for change in found.changes)
        settings = (on_another_device if another else same_as_before)(before, settings)
    refuse_absent(run, recipe)
    _refuse_without_checkpoint(run)
    with run.locked() if is_main() else nullcontext():
        with console(None, quiet=quiet or not is_main()) as bar:
            changed = {
                f"{name} {old} → {versions().get(name)}"
                for name, old in environment.get("versions", {}).items()
                if versions().get(name) != old
            }
            if changed:
                said = ", ".join(sorted(changed))
                LOGGER.warning("versions differ, the result may too: %s", said)
            split_file = run.path / "splits.csv"
            dataset = open_data(recipe, split_file if split_file.is_file() else None, bar)
        refuse_changed(run, dataset)
        dataset.notes += [*found.said(), *pictures.other_pictures(run, dataset)]
        PartialState().wait_for_everyone()  # all have read what the first one is about to change
        if is_main():
            found.write(run, settings.as_dict())
            write_down(run, recipe, dataset, settings)
        return _work(run, recipe, dataset, settings, quiet=quiet)


@contextmanager
def _leaving(run: RunFolder, *, made: bool) -> Iterator[None]:
    """Whatever ends the training early says how to go on, if that can be. `made`: the folder was
    made for it, and goes again if nothing has begun that could go on."""
    try:
        yield
    except KeyboardInterrupt as stop:  # outside the loop, which ends by itself with a checkpoint
        mend = f"go on with: {go_on(run.path)}"
        if not (run.path / RECIPE).is_file():
            run.remove()
            mend = "nothing had begun: the same command starts it"
        raise Interrupted(signal_of(stop), where=str(run.path), mend=mend) from None
    except Interrupted:
        raise
    except (RetinueError, OSError) as error:
        failure = error
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            failure = refused(error, Path(error.filename or run.path))
        if run.checkpoints.exists():
            if isinstance(failure, RetinueError) and failure.resumable:
                ways = [failure.mend, f"go on with: {go_on(run.path)}"]
                failure.mend = ", then ".join(filter(None, ways))
        elif made:
            run.remove()
        raise failure from error.__cause__


def _refuse_without_checkpoint(run: RunFolder) -> None:
    """Raise RetinueError where the run has epochs, but nothing that can go on."""
    if (run.path / "metrics.csv").is_file() and not run.checkpoints.exists():
        again = shlex.join(["retinue", "train", str(run.path / RECIPE)])
        raise RetinueError(
            "the checkpoint of this training is gone",
            where=str(run.checkpoints.folder),
            mend=f"bring it back, or start a new training: {again}",
        )


def _done(
    run: RunFolder,
    found: Changes,
    figures: dict[str, Any],
    skipped: dict[str, str],
    *,
    quiet: bool,
) -> Run:
    """A training with nothing left to do, which says so."""
    with console(None, quiet=quiet):
        for note in found.said():
            LOGGER.warning("%s", note)
        LOGGER.info(
            "this training is done; more epochs continue it: %s",
            go_on(run.path, f"stages.{len(found.recipe.stages) - 1}.epochs=MORE"),
        )
    if found.changes or not found.written:
        with run.locked():
            found.write(run)
    return Run(run.path, figures, run.path / MODEL_FILE, skipped)


def _work(
    run: RunFolder, recipe: Recipe, dataset: Dataset, settings: Settings, *, quiet: bool
) -> Run:
    torch.set_num_threads(settings.threads)
    with ExitStack() as stack:
        log = run.path / "train.log" if is_main() else None
        bar = stack.enter_context(console(log, quiet=quiet or not is_main()))
        for note in dataset.notes:
            LOGGER.info("%s", note)
        LOGGER.info("run folder %s", run.path)
        training = prepared(run, recipe, dataset, settings, bar)
        progress = Trainer(training).fit()
        if not is_main():
            return Run(run.path, {}, run.path / MODEL_FILE)
        figures = final_figures(run, recipe, dataset, settings, progress, bar)
        return Run(run.path, figures, run.path / MODEL_FILE, progress.skipped)
