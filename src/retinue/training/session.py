"""A training from its recipe to its final figures, in a new run folder or a resumed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from retinue.data.sources import Dataset
from retinue.errors import Interrupted, RetinueError, UsageError
from retinue.figures import Figure
from retinue.modelfile import MODEL_FILE
from retinue.run.folder import NO_ROOM, RunFolder, holder, refused
from retinue.run.log import LOGGER, console
from retinue.run.stopping import signal_of
from retinue.tasks.display import figures_html
from retinue.tasks.task import task_type
from retinue.text import counted, shorten
from retinue.training import pictures
from retinue.training.changes import RECIPE, RECORD, Changes, begin_anew, find_changes, go_on
from retinue.training.environment import Settings, is_main, versions
from retinue.training.features.wanted import refuse_closed_cache
from retinue.training.finish import final_figures
from retinue.training.planning.clock import Clock
from retinue.training.planning.estimate import Estimate
from retinue.training.planning.lengths import fitted_to_data, steps_of_epochs
from retinue.training.planning.plan import begin_forecast, planned
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
    write_fitted,
)
from retinue.training.recipe import Recipe, dump, load_recipe
from retinue.training.request import asked
from retinue.training.trackers import refuse_absent_trackers, tracking
from retinue.training.trainer import Trainer
from retinue.training.training import Training


@dataclass(frozen=True)
class Run:
    """A training that is done."""

    folder: Path
    figures: dict[str, Any]
    """What stands in `metrics.json`."""
    best: Path | None
    """The model file; None where there are several, those of the `parts`."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Files that could not be read, with the reasons."""
    parts: tuple[Run, ...] = ()
    """The trainings that it is made of, such as the folds of a cross-validation."""

    def __repr__(self) -> str:
        parts = self._judged()
        for figure, value in self._measured()[:2]:
            parts.append(f"{figure.title.lower()} {figure.shown(value)}")
        if self.skipped:
            parts.append(f"{len(self.skipped):,} skipped")
        return f"<Run {shorten(str(self.folder), 60)}: {', '.join(parts) or 'no figures yet'}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures with their intervals."""
        rows = []
        for figure, value in self._measured():
            interval = figure.interval(self.figures)
            span = "" if interval is None else figure.span(interval)
            rows.append((figure.title, figure.shown(value), span))
        judged = ", ".join(self._judged())
        return figures_html(str(self.folder), judged or "no figures yet", rows)

    def _judged(self) -> list[str]:
        """What the figures were measured on."""
        parts = [f"{self.figures['split']} split"] if self.figures.get("split") else []
        if isinstance(images := self.figures.get("images"), int):
            parts.append(counted(images, "image"))
        return parts

    def _measured(self) -> list[tuple[Figure, float]]:
        """The declared figures with their values."""
        try:
            kind = task_type(str(self.figures.get("task")))
        except UsageError:  # of another installation
            return []
        declared = kind.figures_among(list(self.figures), ())
        values = [(figure, self.figures.get(figure.name)) for figure in declared]
        return [(figure, float(v)) for figure, v in values if isinstance(v, int | float)]


@dataclass(frozen=True)
class Plan:
    """What a training would be."""

    recipe: Recipe
    """With everything settled that is settled when a training begins."""
    notes: list[str]
    """What was found and chosen, a line each."""
    settings: Settings
    images: dict[str, int]
    """Split → how many."""
    estimate: Estimate | None
    """How long it would take; None where that cannot be told."""

    def __repr__(self) -> str:
        images = ", ".join(f"{split} {count:,}" for split, count in self.images.items())
        stages = counted(len(self.recipe.stages), "stage")
        return f"<Plan {self.recipe.model.name}: {images or 'no images'}; {stages}>"

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "notes": self.notes,
            "settings": self.settings.as_dict(),
            "images": self.images,
            "estimate": None if self.estimate is None else self.estimate.as_dict(),
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield from self.notes
        chosen = self.settings
        threads = counted(chosen.threads, "thread")
        world = f", {chosen.world} processes" if chosen.world > 1 else ""
        yield f"{self.recipe.model.name} on {chosen.device}, {chosen.precision}, {threads}{world}"
        if self.estimate is None:
            yield "how long it takes cannot be told"
        else:
            yield from self.estimate.lines()


Watch = Callable[[Mapping[str, Any]], None]
"""Is told each row of `metrics.csv`, once that is written; what it raises ends the training."""
RecipeLike = str | Path | Mapping[str, Any] | Recipe


def start(
    recipe: RecipeLike,
    overrides: Mapping[str, Any],
    *,
    out: Path | None,
    quiet: bool,
    within: RunFolder | None = None,
    said: Sequence[str] = (),
    watch: Watch | None = None,
) -> Run:
    """A new training. The run folder is only made once the recipe and the data are in order;
    `within`: one that is there already. `said`: what is to be said first."""
    clock = Clock()
    notes = list(said)
    recipe, overrides = asked(recipe, overrides, notes.append)
    loaded, dataset, settings = opened(recipe, overrides, notes, quiet=quiet)
    name = Path(str(recipe)).stem if isinstance(recipe, str | Path) else "training"
    made = (within or RunFolder.create(out, name)) if is_main() else None
    folder = [str(made.path) if made is not None else None]
    broadcast_object_list(folder)
    run = made or RunFolder(Path(str(folder[0])))
    ours = made is not None and within is None
    with run.locked() if made is not None else nullcontext(), _leaving(run, made=ours):
        loaded = with_absolute_paths(loaded, dataset)
        if made is not None:
            run.write(RECIPE, dump(loaded))
            if out is not None and run.path != out and (who := holder(out)):
                notes.append(f"{out} is taken{who}; this training is in {run.path}")
            write_down(run, loaded, dataset, settings)
        how: dict[str, Any] = {"quiet": quiet, "notes": notes, "watch": watch}
        return _work(run, loaded, dataset, settings, clock, **how)


def plan(recipe: RecipeLike, overrides: Mapping[str, Any], *, quiet: bool) -> Plan:
    """What `start` would do, up to its first step; nothing of it stays."""
    clock = Clock()
    notes: list[str] = []
    recipe, overrides = asked(recipe, overrides, notes.append)
    loaded, dataset, settings = opened(recipe, overrides, notes, quiet=quiet)
    torch.set_num_threads(settings.threads)
    with (
        TemporaryDirectory() as folder,
        console(None, quiet=quiet or not is_main()) as bar,
    ):
        loaded = with_absolute_paths(loaded, dataset)
        training = prepared(RunFolder(Path(folder)), loaded, dataset, settings, bar, clock)
        training, estimate, fitted = planned(training)
    images = {split: len(samples) for split, samples in dataset.splits.items()}
    return Plan(training.recipe, [*notes, *fitted], training.settings, images, estimate)


def opened(
    recipe: RecipeLike, overrides: Mapping[str, Any], notes: list[str], *, quiet: bool
) -> tuple[Recipe, Dataset, Settings]:
    """The recipe, settled for machine and data; the data; and what `auto` comes to. What is to be
    said of all that joins `notes`."""
    loaded = load_recipe(recipe, overrides, notes.append)
    refuse_before_data(loaded)
    refuse_closed_cache(loaded)
    refuse_absent_trackers(loaded)
    settings = settings_of(loaded)
    with console(None, quiet=quiet or not is_main()) as bar:
        if isinstance(recipe, str | Path) and Path(recipe, RECIPE).is_file():
            LOGGER.warning("this is a new training; --resume goes on with the one in %s", recipe)
        dataset = open_data(loaded, bar=bar)
        bar.done()
    notes += dataset.notes
    if any(stage.min_steps or stage.max_steps for stage in loaded.stages):
        loaded, lengths = fitted_to_data(loaded, steps_of_epochs(loaded, dataset.parts))
        notes += lengths
    return loaded, dataset, settings


def resume(
    folder: Path, overrides: Mapping[str, Any], *, quiet: bool, watch: Watch | None = None
) -> Run:
    """Go on with the training in `folder`, with `overrides` of what may change on the way; one that
    has nothing left to do only gives its figures."""
    clock = Clock()
    run = RunFolder.open(folder)
    with _leaving(run, made=False):
        return _resume(run, overrides, clock, quiet=quiet, watch=watch)


def _resume(
    run: RunFolder,
    overrides: Mapping[str, Any],
    clock: Clock,
    *,
    quiet: bool,
    watch: Watch | None = None,
) -> Run:
    found = find_changes(run, overrides)
    recipe = found.recipe
    environment = run.read_json(RECORD) or {}
    done = run.read_json("metrics.json")
    if done is not None and not found.goes_on:
        if found.changes:
            refuse_absent(run, recipe)
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
        how: dict[str, Any] = {"quiet": quiet, "notes": dataset.notes, "watch": watch}
        return _work(run, recipe, dataset, settings, clock, **how)


@contextmanager
def _leaving(run: RunFolder, *, made: bool) -> Iterator[None]:
    """Whatever ends the training early says how to go on, if that can be. `made`: the folder was
    made for it, and goes again if nothing has begun that could go on."""
    try:
        yield
    except KeyboardInterrupt as stop:  # outside the loop, which ends by itself with a checkpoint
        mend = f"go on with: {go_on(run.path)}"
        if made and not (run.path / RECIPE).is_file():
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
        raise RetinueError(
            "the checkpoint of this training is gone",
            where=str(run.checkpoints.folder),
            mend=f"bring it back, or start a new training: {begin_anew(run.path)}",
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
    run: RunFolder,
    recipe: Recipe,
    dataset: Dataset,
    settings: Settings,
    clock: Clock,
    *,
    quiet: bool,
    notes: Sequence[str],
    watch: Watch | None,
) -> Run:
    torch.set_num_threads(settings.threads)
    with ExitStack() as stack:
        log = run.path / "train.log" if is_main() else None
        bar = stack.enter_context(console(log, quiet=quiet or not is_main()))
        for note in notes:
            LOGGER.info("%s", note)
        LOGGER.info("run folder %s", run.path)
        training = _told(run, prepared(run, recipe, dataset, settings, bar, clock))
        recipe = training.recipe
        if is_main():
            trackers = stack.enter_context(tracking(run, recipe))
            training.recorder.listeners += [trackers.tell, *([watch] if watch else [])]
        progress = Trainer(training).fit()
        if not is_main():
            return Run(run.path, {}, run.path / MODEL_FILE)
        figures = final_figures(run, recipe, dataset, training.settings, progress, bar, clock)
        trackers.tell_final(figures)
        return Run(run.path, figures, run.path / MODEL_FILE, progress.skipped)


def _told(run: RunFolder, training: Training) -> Training:
    """`training` with its recipe fitted to its budget, and how long it will take said aloud; of one
    that goes on, what was found when it began."""
    if run.checkpoints.exists():
        written = (run.read_json(RECORD) or {}).get("plan")
        try:
            estimate = None if written is None else Estimate.from_dict(written)
        except (LookupError, TypeError):
            raise RetinueError(
                "this is not what a training writes",
                where=f"{run.path / RECORD}, key plan",
                mend="remove it there: the training goes on without saying how long it takes",
            ) from None
    else:
        training, estimate, notes = planned(training)
        if is_main():
            write_fitted(run, training, None if estimate is None else estimate.as_dict())
        for line in [*notes, *(estimate.lines() if estimate is not None else ())]:
            LOGGER.info("%s", line)
    begin_forecast(training, estimate)
    return training
