"""k-fold cross-validation: each fold is judged by a training on the others.

The folds share what is computed once, which is kept by the content of images. The figures of all
are told as one: the mean over the folds, and how far they spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retinue.data.sources import open_dataset
from retinue.data.sources.folds import fold_names
from retinue.errors import RetinueError
from retinue.figures import Figure, refuse_not_finite
from retinue.run.folder import RunFolder
from retinue.tasks.task import Task, task_type
from retinue.text import counted
from retinue.training import session
from retinue.training.changes import RECIPE, absolute
from retinue.training.preflight import refuse_before_data, task_options
from retinue.training.prepare import asked_data
from retinue.training.recipe import Recipe, dump, load_recipe
from retinue.training.session import Plan, Run
from retinue.training.studies import member
from retinue.training.studies.member import STUDY

KIND = "folds"


def wanted(recipe: Recipe) -> bool:
    """Whether the recipe is of all folds, not of one."""
    split = recipe.data.split
    return split.folds is not None and split.fold is None and split.file is None


def of_fold(recipe: Recipe, name: str) -> Recipe:
    """The recipe of the training that is judged on the fold called `name`."""
    split = recipe.data.split.model_copy(update={"fold": name})
    data = recipe.data.model_copy(update={"split": split})
    return recipe.model_copy(update={"data": data})


def start(
    recipe: Recipe, name: str, *, out: Path | None, quiet: bool, notes: Sequence[str] = ()
) -> Run:
    """The trainings of all folds by `recipe`, in a new folder; by default it is called `name`."""
    member.refuse_processes("train each fold by itself: data.split.fold=1")
    member.refuse_learnt_validation(recipe)
    readers = task_type(recipe.task).readers()
    names = fold_names(recipe.data, readers)
    first = of_fold(recipe, names[0])
    refuse_before_data(first)
    dataset = open_dataset(asked_data(first), readers)
    split = dataset.options.split.model_copy(update={"fold": None})
    data = dataset.options.model_copy(update={"split": split})
    recipe = absolute(recipe.model_copy(update={"data": data}))
    run = RunFolder.create(out, name)
    with run.locked():
        run.write_json(STUDY, {"kind": KIND, "folds": names})
        run.write_json("classes.json", list(dataset.classes))
        run.write(RECIPE, dump(recipe))
        return _work(run, recipe, names, [*notes, *dataset.notes[:1]], quiet=quiet)


def plan(recipe: Recipe, *, quiet: bool) -> Plan:
    """What the training of the first fold would be."""
    member.refuse_learnt_validation(recipe)
    names = fold_names(recipe.data, task_type(recipe.task).readers())
    first = session.plan(of_fold(recipe, names[0]), {}, quiet=quiet)
    told = f"one of {len(names)} trainings, that of fold {names[0]}; they take about as long each"
    return replace(first, notes=[told, *first.notes])


def resume(folder: Path, overrides: Mapping[str, Any], *, quiet: bool) -> Run:
    """Go on with the folds that are not done."""
    member.refuse_changes(folder, overrides)
    run = RunFolder.open(folder)
    recipe = load_recipe(run.path / RECIPE)
    study = run.read_json(STUDY)
    with run.locked():
        return _work(run, recipe, study["folds"], [], quiet=quiet)


def _work(
    run: RunFolder, recipe: Recipe, names: Sequence[str], notes: Sequence[str], *, quiet: bool
) -> Run:
    if (before := member.done(run.path)) is None:
        member.say(run, *notes, f"run folder {run.path}", quiet=quiet)
    parts = []
    with member.going_on(run.path):
        for number, name in enumerate(names, 1):
            folder = run.path / f"fold-{name}"
            if before is None and member.done(folder) is None:
                member.say(run, f"fold {name}, {number} of {len(names)}", quiet=quiet)
            parts.append(member.train(folder, of_fold(recipe, name), quiet=quiet))
    skipped = {path: why for part in parts for path, why in part.skipped.items()}
    if before is not None:
        return Run(run.path, before.figures, None, skipped, tuple(parts))
    classes: list[str] = run.read_json("classes.json")
    task = task_type(recipe.task)(classes, task_options(recipe))
    figures = _together(run, task, names, parts)
    if recipe.evaluation.keep == "best":
        figures[FITTED] = ["best epoch", *figures.get(FITTED, ())]
    run.write_json("metrics.json", figures)
    member.say(run, *lines(task, figures), quiet=quiet)
    return Run(run.path, figures, None, skipped, tuple(parts))


def _together(
    run: RunFolder, task: Task, names: Sequence[str], parts: Sequence[Run]
) -> dict[str, Any]:
    """What stands in `metrics.json`: the mean of each declared figure, its `spread`, the figures of
    each fold, and what all images together say, each judged by the training that had not seen it.
    The tables of these are written into the folder."""
    declared = task.figures_among([key for part in parts for key in part.figures], task.classes)
    tables = [_tables(part.folder) for part in parts]
    pooled: dict[str, Any] = {}
    meter = task.meter(tables=True)
    try:
        for each in tables:
            meter.reread(each)
    except NotImplementedError:  # the task's tables do not hold all that it judges by
        pass
    else:
        pooled = meter.compute()
        refuse_not_finite(pooled, "folds", mend="look at the models of the folds")
        for name, table in meter.tables().items():
            run.write_table(f"{name}.parquet", table)
    folds: list[dict[str, Any]] = []
    for name, part in zip(names, parts, strict=True):
        own = {figure.name: part.figures.get(figure.name) for figure in declared}
        folds.append({"fold": name, "images": part.figures.get("images"), **own})
    means, spread = summary(declared, folds)
    fitted = sorted({str(k) for part in parts for k in part.figures.get(FITTED, ())})
    learnt = {key: True for key in LEARNT if any(part.figures.get(key) for part in parts)}
    return {
        **pooled,
        "task": task.name,
        "split": KIND,
        "images": sum(fold["images"] or 0 for fold in folds),
        **means,
        "spread": spread,
        "folds": folds,
        **learnt,
        **({FITTED: fitted} if fitted else {}),
    }


FITTED = "fitted_on_this_split"
LEARNT = ("trained_on_this_split", "transductive")
"""What speaks against the figures of a fold speaks against those of all."""


def summary(
    declared: Sequence[Figure], folds: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, float | None], dict[str, float]]:
    """(means, spread) of the `declared` figures over the `folds`: the spread is the sample's
    standard deviation. A figure that some fold does not have is None, and has no spread."""
    means: dict[str, float | None] = {}
    spread: dict[str, float] = {}
    for figure in declared:
        values = [fold.get(figure.name) for fold in folds]
        known = [float(value) for value in values if value is not None]
        if len(known) < len(values):
            means[figure.name] = None
            continue
        mean = math.fsum(known) / len(known)
        means[figure.name] = mean
        squares = math.fsum((value - mean) ** 2 for value in known)
        spread[figure.name] = math.sqrt(squares / (len(known) - 1))
    return means, spread


def lines(task: Task, figures: Mapping[str, Any]) -> list[str]:
    """A short table for a person: a fold a line, then the mean and the spread."""
    names = [figure for figure in task.figures() if figures.get(figure.name) is not None]
    wide = max(len(figure.name) for figure in names) + 3 if names else 0
    first = max(6, *(len(str(fold["fold"])) for fold in figures["folds"]))
    found = [f"{'fold':<{first}}" + "".join(f"{figure.name:>{wide}}" for figure in names)]
    for fold in figures["folds"]:
        told = "".join(f"{figure.shown(fold[figure.name], 4):>{wide}}" for figure in names)
        found.append(f"{fold['fold']:<{first}}{told}")
    for title, values in (("mean", figures), ("spread", figures["spread"])):
        told = "".join(f"{figure.shown(values[figure.name], 4):>{wide}}" for figure in names)
        found.append(f"{title:<{first}}{told}")
    judged = counted(figures["images"], "image")
    found.append(f"{judged}, each judged by the training on the folds that it is not in")
    return found


def _tables(folder: Path) -> dict[str, pa.Table]:
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        try:
            found[path.stem] = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise RetinueError(
                f"the table cannot be read ({error})",
                where=str(path),
                mend="remove the fold's folder: it is trained anew",
            ) from error
    return found
