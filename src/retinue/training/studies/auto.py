"""`retinue train auto`: what to train is found by trying, and the best of it trained in the time.

The first of a task's recipes compares the networks whose weights are on this machine, each for a
little while on the frozen network, whose features are kept; the others are then tried on the best
network. Only the validation split is looked at. What wins is trained in the rest of the time, in
the same run folder.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from retinue.data.options import DataOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.errors import RetinueError, UsageError
from retinue.figures import Figure, uncertainty
from retinue.inference.devices import fit_threads
from retinue.models.registry import NetworkEntry, find, list_models
from retinue.options.overrides import OTHER_WORDS
from retinue.processor import cpu_name
from retinue.run.folder import RunFolder
from retinue.run.forecast import spoken
from retinue.tasks.shipped import SHIPPED
from retinue.tasks.task import task_of, task_type
from retinue.text import counted
from retinue.training import session
from retinue.training.changes import RECIPE, RECORD, absolute
from retinue.training.environment import Settings
from retinue.training.options import BudgetOptions
from retinue.training.preflight import refuse_before_data, refuse_metric, task_options
from retinue.training.prepare import asked_data, settings_of
from retinue.training.recipe import Recipe, load_recipe
from retinue.training.session import Run
from retinue.training.stage_samples import Subset
from retinue.training.studies import member
from retinue.training.studies.member import STUDY
from retinue.weights import catalogue
from retinue.weights.resolution import at_hand

NAME = "auto"
TIME = "10m"
NETWORKS_SHARE = 0.35
"""Of the time, at most so much goes into comparing networks."""
RECIPES_SHARE = 0.5
"""Of what is left then, so much into each further recipe that is tried."""
MOST_NETWORKS = 6
MOST_IMAGES = 2_000
"""What a try learns from, of more; the same images in all tries."""
SHORT = 60.0
"""Seconds for everything from which on a try of few images is made without asking how long it
takes, which takes a few seconds itself."""


@dataclass
class Try:
    """One of the trainings that are compared."""

    recipe: str
    network: str
    weights: str | None
    figure: float | None = None
    """That of the validation split; None: it was not trained."""
    seconds: float = 0.0
    why: str = ""
    """Why it was not trained."""
    whole: bool = False
    """Whether it learnt from all images for as long as its recipe says."""

    @property
    def name(self) -> str:
        """That of its folder."""
        return f"{self.recipe}-{self.network}"


@dataclass
class Study:
    """What is tried, and how far that is; it stands in the folder as `study.json`."""

    seconds: float
    """The time for everything."""
    recipes: dict[str, dict[str, Any]]
    """The recipes to be compared, with everything that was asked for."""
    metric: str
    images: dict[str, int]
    """Split → how many."""
    notes: list[str] = field(default_factory=list)
    tries: list[Try] = field(default_factory=list)
    spent: float = 0.0
    """Seconds, of earlier sittings too."""
    chosen: str | None = None
    """The try that is trained in the rest of the time."""

    @classmethod
    def read(cls, run: RunFolder) -> Study:
        """What stands in the folder. Raises RetinueError."""
        values = dict(run.read_json(STUDY))
        values.pop("kind", None)
        try:
            tries = [Try(**one) for one in values.pop("tries")]
            return cls(**values, tries=tries)
        except (KeyError, TypeError) as error:
            raise RetinueError(
                f"this is not what several trainings write ({error})",
                where=str(run.path / STUDY),
                mend="put it back as it was, or begin anew",
            ) from error

    def write(self, run: RunFolder) -> None:
        """Replace what stands in the folder."""
        run.write_json(STUDY, {"kind": NAME, **asdict(self)})

    def recipe(self, of: Try) -> Recipe:
        """That of a try, as it would be trained in full."""
        own = load_recipe(self.recipes[of.recipe])
        model = own.model.model_copy(update={"name": of.network, "weights": of.weights})
        return own.model_copy(update={"model": model})


def start(overrides: Mapping[str, Any], *, out: Path | None, quiet: bool) -> Run:
    """Look, try and train, in a new folder."""
    began = time.monotonic()
    member.refuse_processes("name a recipe; `retinue recipes` lists them")
    changes = dict(overrides)
    budget = _budget(changes)
    recipes = {name: load_recipe(name, changes) for name in _recipes(changes)}
    first = next(iter(recipes.values()))
    if first.data.split.folds is not None:
        raise UsageError(
            "folds judge one recipe, and auto compares several",
            where="key data.split.folds",
            mend="leave them out, or name a recipe",
        )
    for recipe in recipes.values():
        refuse_before_data(recipe)
        member.refuse_learnt_validation(recipe)
    dataset = open_dataset(asked_data(first), task_type(first.task).readers())
    refuse_metric(first, task_type(first.task)(dataset.classes, task_options(first)))
    metric = first.evaluation.metric or task_type(first.task).default_metric
    recipes = {
        name: absolute(recipe.model_copy(update={"data": dataset.options, "budget": None}))
        for name, recipe in recipes.items()
    }
    settings = settings_of(first)
    study = Study(
        budget.seconds,
        {name: recipe.model_dump(mode="json") for name, recipe in recipes.items()},
        metric,
        {split: len(samples) for split, samples in dataset.splits.items()},
    )
    study.notes = [*_looked(dataset, settings, budget)]
    study.tries = list(_networks(recipes, changes))
    run = RunFolder.create(out, NAME)
    study.write(run)
    with run.locked():
        member.say(run, *study.notes, f"run folder {run.path}", quiet=quiet)
    return _work(run, study, began, quiet=quiet)


def resume(folder: Path, overrides: Mapping[str, Any], *, quiet: bool) -> Run:
    """Go on with the tries, or with the training that they led to."""
    run = RunFolder(folder)
    if (folder / RECIPE).is_file():
        return session.resume(folder, overrides, quiet=quiet)
    member.refuse_changes(folder, overrides)
    study = Study.read(run)
    return _work(run, study, time.monotonic() - study.spent, quiet=quiet)


def _work(run: RunFolder, study: Study, began: float, *, quiet: bool) -> Run:
    """The tries that are not made yet, then the training. `began`: on the monotonic clock."""
    with run.locked(), member.going_on(run.path):
        try:
            _compare(run, study, began, quiet=quiet)
        finally:
            study.spent = time.monotonic() - began
            study.write(run)
        chosen = next(one for one in study.tries if one.name == study.chosen)
        lines = [*_table(study), *_why(study, chosen)]
        member.say(run, *lines, quiet=quiet)
    return _train(run, study, chosen, quiet=quiet)


def _train(run: RunFolder, study: Study, chosen: Try, *, quiet: bool) -> Run:
    """What was chosen, in the time that is left; without a limit where that is too little. What was
    tried at its full length keeps that."""
    recipe = study.recipe(chosen)
    left = study.seconds - study.spent
    why = "the time has gone into the tries"
    with member.going_on(run.path):
        if chosen.whole and chosen.seconds <= left:
            return session.start(recipe, {}, out=None, quiet=quiet, within=run)
        if left > 1:
            timed = recipe.model_copy(update={"budget": BudgetOptions(time=left)})
            try:
                return session.start(timed, {}, out=None, quiet=quiet, within=run)
            except UsageError as error:
                if error.where != "key budget":
                    raise
                why = error.what
            for name in (RECIPE, RECORD):  # of what did not fit
                (run.path / name).unlink(missing_ok=True)
        said = [f"{why}: it takes longer than was asked for"]
        return session.start(recipe, {}, out=None, quiet=quiet, within=run, said=said)


# --- looking ------------------------------------------------------------------------------------


def _budget(changes: dict[str, Any]) -> BudgetOptions:
    """The time for everything, taken out of the `changes`."""
    given: Any = changes.pop("budget", None) or changes.pop("budget.time", TIME)
    if isinstance(given, Mapping):
        given = given.get("time", TIME)
    try:
        return BudgetOptions(time=given if isinstance(given, int | float) else str(given))
    except ValidationError as error:
        raise UsageError(
            error.errors()[0]["msg"].removeprefix("Value error, "), where="key budget"
        ) from None


def _recipes(changes: Mapping[str, Any]) -> Sequence[str]:
    """Those to compare, for the data that is asked for."""
    given: Any = changes.get("data", changes.get("data.path"))
    form: Any = changes.get("data.format")
    if given is None and form is None:
        raise UsageError("there is no data", where="key data", mend="data=PHOTOS")
    path = given
    if isinstance(given, Mapping):
        path, form = given.get("path"), given.get("format", form)
    options = DataOptions(
        path=None if path is None else str(path), format=str(form) if form else "auto"
    )
    task = str(changes.get("task") or task_of(options))
    if task not in SHIPPED:
        raise UsageError(f"no recipes are shipped for {task!r}", where="key task")
    return SHIPPED[task].tried


def _looked(dataset: Dataset, settings: Settings, budget: BudgetOptions) -> Iterator[str]:
    """What was found: the data, and the machine."""
    yield from dataset.notes
    train = dataset.splits["train"]
    of = np.bincount(train.target[train.target >= 0], minlength=len(train.targets))
    times = np.zeros(len(dataset.classes), np.int64)
    for target, images in zip(train.targets, of.tolist(), strict=True):
        times[list(map(int, target.names()))] += images
    fewest, most = int(times.min(initial=len(train))), int(times.max(initial=0))
    images = counted(most, "image")
    images = images if fewest == most else f"{fewest:,} to {images}"
    yield f"to learn from, {images} of each of {counted(len(times), 'class', 'classes')}"
    chip = cpu_name() if settings.device == "cpu" else settings.device
    threads = counted(fit_threads(), "thread")
    yield f"on {chip}, {threads}; {spoken(budget.seconds)} for everything"


def _networks(recipes: Mapping[str, Recipe], changes: Mapping[str, Any]) -> Iterator[Try]:
    """A try of the first recipe for each network whose weights are here: that of the recipe first,
    then from the most accurate one down. With a network that was asked for, it alone; with a
    single recipe there is nothing to compare."""
    name, recipe = next(iter(recipes.items()))
    own = Try(name, recipe.model.name, recipe.model.weights)
    yield own
    asked = {OTHER_WORDS.get(key, key) for key in changes}
    if asked & {"model", "model.name"} or len(recipes) == 1:
        return
    here: dict[str, tuple[float, str]] = {}
    known = set(list_models(kind=SHIPPED[recipe.task].networks))  # type: ignore[arg-type]
    for entry in catalogue.entries():
        if entry.network not in known or entry.top1 is None or at_hand(entry) is None:
            continue
        if entry.network not in here or entry.top1 > here[entry.network][0]:
            here[entry.network] = entry.top1, entry.tag
    best = sorted(here, key=lambda network: (-here[network][0], network))
    for network in [one for one in best if one != own.network][: MOST_NETWORKS - 1]:
        yield Try(name, network, here[network][1])


# --- trying -------------------------------------------------------------------------------------


def _compare(run: RunFolder, study: Study, began: float, *, quiet: bool) -> None:
    """Make the tries, and choose."""
    first, *further = study.recipes
    judge = member.declared(load_recipe(next(iter(study.recipes.values()))), study.metric)
    networks = [one for one in study.tries if one.recipe == first]
    default = networks[0]
    why = "" if study.images.get("val") else "there is no validation split to compare by"
    if not why and not further and len(networks) == 1:
        why = "nothing else is known for this data"
    if not why and default.figure is None and not default.why:
        why = _too_long(study, default, quiet=quiet)
    if why:
        usual = further[-1] if further else first
        only = replace(default, recipe=usual, why=why)
        study.tries = [only]
        study.chosen = only.name
        return
    measured: list[tuple[Try, float]] = []
    for one in networks:
        cost = _cost(study, one)
        spent = time.monotonic() - began
        pending = one.figure is None and not one.why
        if pending and measured and not _begun(run, one):
            rate = max(known.seconds / of for known, of in measured)
            if spent + rate * cost > NETWORKS_SHARE * study.seconds:
                one.why = f"it would take about {spoken(rate * cost)}"
                continue
        if pending:
            _make(run, study, one, _short(study, one), quiet=quiet)
        if one.figure is not None:
            measured.append((one, cost))
    best = _best(judge, study.tries)
    for name in further:
        known = next((t for t in study.tries if t.recipe == name), None)
        one = known or Try(name, best.network, best.weights)
        if known is None:
            study.tries.append(one)
        if one.figure is None and not one.why:
            left = study.seconds - (time.monotonic() - began)
            if left <= 1 and not _begun(run, one):
                one.why = "the time has gone into the tries before it"
                continue
            budget = BudgetOptions(time=max(RECIPES_SHARE * left, 1.0))
            short = _short(study, one).model_copy(update={"budget": budget})
            _make(run, study, one, short, quiet=quiet)
    study.chosen = _best(judge, study.tries[::-1]).name  # of equal ones that which learns more


def _too_long(study: Study, one: Try, *, quiet: bool) -> str:
    """Why not even the first try is made; empty: it is."""
    few = study.images["train"] + 2 * study.images["val"] <= MOST_IMAGES
    if few and study.seconds >= SHORT:
        return ""
    estimate = session.plan(_short(study, one), {}, quiet=quiet).estimate
    if estimate is None or estimate.total_s <= NETWORKS_SHARE * study.seconds:
        return ""
    return f"a try alone would take about {spoken(estimate.total_s)}"


def _begun(run: RunFolder, one: Try) -> bool:
    return (run.path / "tries" / one.name).is_dir()


def _short(study: Study, one: Try) -> Recipe:
    """The recipe of a try: judged on validation, and of many images a part."""
    recipe = study.recipe(one)
    judged = recipe.evaluation.model_copy(update={"split": "val"})
    share = MOST_IMAGES / study.images["train"]
    stages = recipe.stages
    if share < 1 and stages[0].data is None:
        part = stages[0].model_copy(update={"data": Subset(share=share)})
        stages = (part, *stages[1:])
    quiet = {"tensorboard": False, "evaluation": judged, "stages": stages}
    return recipe.model_copy(update=quiet)


def _make(run: RunFolder, study: Study, one: Try, recipe: Recipe, *, quiet: bool) -> None:
    """Train `one`, and note what came of it; what cannot be trained says why."""
    member.say(run, f"trying {one.recipe} on {one.network}", quiet=quiet)
    began = time.monotonic()
    try:
        made = member.train(run.path / "tries" / one.name, recipe, quiet=quiet)
    except UsageError as error:
        one.why = error.what
    else:
        value = made.figures.get(study.metric)
        one.figure = None if value is None else float(value)
        one.whole = recipe.budget is None and recipe.stages == study.recipe(one).stages
        if value is None:
            one.why = f"{study.metric} is not defined for it"
    one.seconds += time.monotonic() - began
    study.write(run)


def _cost(study: Study, one: Try) -> float:
    """What an image costs, in multiply-adds."""
    entry: NetworkEntry = find(one.network)
    recipe = load_recipe(study.recipes[one.recipe])
    height, width = entry.preprocessing.size
    size = recipe.input.size
    tall, wide = (size, size) if isinstance(size, int) else size or (height, width)
    return max(entry.macs, 1) * (tall * wide) / (height * width)


def _best(judge: Figure, tries: Sequence[Try]) -> Try:
    """The try with the best figure; of equal ones the first."""
    best = tries[0]
    for one in tries[1:]:
        if judge.better(one.figure, best.figure):
            best = one
    return best


# --- telling ------------------------------------------------------------------------------------


def _table(study: Study) -> Iterator[str]:
    judge = member.declared(load_recipe(next(iter(study.recipes.values()))), study.metric)
    rows = [("tried", judge.name, "time")]
    for one in study.tries:
        told = judge.shown(one.figure) if one.figure is not None else f"– ({one.why})"
        took = spoken(one.seconds) if one.seconds else "–"
        rows.append((f"{one.recipe} on {one.network}", told, took))
    wide, middle = (max(len(row[k]) for row in rows) for k in (0, 1))
    yield from (f"  {a:<{wide}}  {b:<{middle}}  {c}".rstrip() for a, b, c in rows)


def _why(study: Study, chosen: Try) -> Iterator[str]:
    """What was chosen, and why."""
    judge = member.declared(load_recipe(next(iter(study.recipes.values()))), study.metric)
    if chosen.figure is None:
        yield f"chosen: {chosen.recipe} on {chosen.network}, because {chosen.why}"
        return
    images = study.images["val"]
    doubt = f", give or take {judge.shown(uncertainty(images))}" if judge.of else ""
    left = spoken(max(study.seconds - study.spent, 0))
    yield (
        f"chosen: {chosen.recipe} on {chosen.network}, the best {judge.name} on the validation"
        f" split ({judge.shown(chosen.figure)} of {counted(images, 'image')}{doubt}); it is"
        f" trained {'as it was tried' if chosen.whole else f'in the {left} that are left'}"
    )
