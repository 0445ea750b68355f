"""A search for a recipe's values: Optuna proposes them, trainings judge them on the validation
split, and those that fall behind are ended early."""

from __future__ import annotations

import importlib
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retinue.data.sources import open_dataset
from retinue.errors import Interrupted, RetinueError, UsageError
from retinue.figures import Figure
from retinue.modelfile import MODEL_FILE
from retinue.options.overrides import meaning
from retinue.options.typed import Unread
from retinue.run.folder import RunFolder
from retinue.run.forecast import spoken
from retinue.tasks.task import task_type
from retinue.text import counted, short
from retinue.training.changes import absolute
from retinue.training.preflight import refuse_before_data, refuse_metric, task_options
from retinue.training.prepare import asked_data
from retinue.training.recipe import Recipe, load_recipe
from retinue.training.request import asked
from retinue.training.session import Run
from retinue.training.studies import member
from retinue.training.studies.member import STUDY

KIND = "sweep"
JOURNAL = "optuna.log"
TRIALS = 20
FAR = 10.0
"""A range whose end is so many times its beginning is searched by its logarithm."""
_RANGE = re.compile(r"(?P<low>[^.].*?)\.\.(?P<high>.+)")
_BETWEEN = re.compile(r",(?![^\[\]{}]*[\]}])")
"""A comma between choices, not one within a list or a mapping."""


class Pruned(RetinueError):  # noqa: N818 - the field says so
    """A trial that falls behind the others is not trained to its end."""

    def __init__(self) -> None:
        super().__init__("it fell behind the other trials")


@dataclass(frozen=True)
class Span:
    """What one key may be: a range of numbers, or one of some values, as they are written."""

    key: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Any) -> Any:
        """A value that Optuna's `trial` proposes."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    @property
    def example(self) -> Any:
        """One of its values."""
        if self.choices:
            return self.choices[0]
        return int(self.low) if self.whole else self.low


@dataclass
class Trial:
    """One training of the search."""

    number: int
    values: dict[str, Any]
    figure: float | None = None
    """Of the validation split; None: it was not trained to its end."""
    why: str = ""
    """Why not."""
    seconds: float = 0.0

    @property
    def folder(self) -> str:
        """Below that of the search."""
        return f"trials/{self.number:03}"


@dataclass
class Study:
    """What is searched, and how far that is; it stands in the folder as `study.json`."""

    recipe: dict[str, Any]
    spans: list[Span]
    metric: str
    less: bool
    wanted: int
    seed: int
    done: list[Trial] = field(default_factory=list)

    @classmethod
    def read(cls, run: RunFolder) -> Study:
        """What stands in the folder. Raises RetinueError."""
        values = dict(run.read_json(STUDY))
        values.pop("kind", None)
        try:
            spans = [Span(**{**s, "choices": tuple(s["choices"])}) for s in values.pop("spans")]
            done = [Trial(**one) for one in values.pop("done")]
            return cls(**values, spans=spans, done=done)
        except (KeyError, TypeError) as error:
            raise RetinueError(
                f"this is not what a sweep writes ({error})",
                where=str(run.path / STUDY),
                mend="put it back as it was, or begin anew",
            ) from error

    def write(self, run: RunFolder) -> None:
        """Replace what stands in the folder."""
        run.write_json(STUDY, {"kind": KIND, **asdict(self)})

    @property
    def best(self) -> Trial | None:
        """The trial with the best figure."""
        known = [one for one in self.done if one.figure is not None]
        sign = 1 if self.less else -1
        return min(known, key=lambda one: (sign * (one.figure or 0.0), one.number), default=None)


def parsed(text: str) -> Span:
    """`lr=1e-5..1e-2`, a range, whole numbers where both ends are; `batch_size=16,32,64`, one of
    these. Raises UsageError."""
    key, equals, values = text.partition("=")
    key, values = key.strip(), values.strip()
    where = f"--over {text}"
    if not equals or not key or not values:
        raise UsageError(
            "a search is written KEY=LOW..HIGH or KEY=A,B,C",
            where=where,
            mend="for example lr=1e-5..1e-2, or batch_size=16,32",
        )
    if match := _RANGE.fullmatch(values):
        try:
            low, high = float(match["low"]), float(match["high"])
        except ValueError:
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError("a range goes from a number up to another", where=where)
        whole = all(re.fullmatch(r"-?\d+", match[end].strip()) for end in ("low", "high"))
        return Span(key, low, high, whole, log=low > 0 and high >= FAR * low)
    choices = tuple(one.strip() for one in _BETWEEN.split(values))
    if len(set(choices)) < 2 or len(set(choices)) < len(choices) or "" in choices:
        raise UsageError("there is nothing to choose from", where=where, mend="KEY=A,B,C")
    return Span(key, choices=choices)


def with_values(recipe: Any, values: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial with these `values`: a choice is read as the command line reads it.
    Raises UsageError."""
    read = {key: Unread(one) if isinstance(one, str) else one for key, one in values.items()}
    return load_recipe(recipe, read)


def _refuse_given(recipe: Recipe, overrides: Mapping[str, Any], spans: Sequence[Span]) -> None:
    """A field that is searched over cannot have a value in all trials as well."""
    values = recipe.model_dump(mode="json")
    for key in overrides:
        places = meaning(Recipe, values, key)
        for span in spans:
            searched = meaning(Recipe, values, span.key)
            if any(a[: len(b)] == b or b[: len(a)] == a for a in places for b in searched):
                raise UsageError(
                    f"{span.key} is searched over, and {key} is given",
                    where="--over",
                    mend="leave one of them out",
                )


def start(
    recipe: Any,
    overrides: Mapping[str, Any],
    over: Sequence[str],
    *,
    trials: int = TRIALS,
    seed: int = 0,
    out: Path | None = None,
    quiet: bool = True,
) -> Run:
    """Search in a new folder; what comes back is the best trial's."""
    member.refuse_processes("sweep in one process")
    _optuna()
    spans = [parsed(text) for text in over]
    if not spans:
        raise UsageError(
            "there is nothing to search over", mend="say --over lr=1e-5..1e-2, for example"
        )
    if len({span.key for span in spans}) < len(spans):
        raise UsageError("a key is searched over twice", where="--over")
    if trials < 1:
        raise UsageError("a sweep needs at least one trial", where="--trials")
    notes: list[str] = []
    recipe, overrides = asked(recipe, overrides, notes.append)
    loaded = load_recipe(recipe, overrides, notes.append)
    _refuse_given(loaded, overrides, spans)
    kind = task_type(loaded.task)
    first = with_values(loaded, {span.key: span.example for span in spans})
    refuse_before_data(first)
    member.refuse_learnt_validation(first)
    dataset = open_dataset(asked_data(loaded), kind.readers())
    if not dataset.splits.get("val"):
        raise UsageError(
            "there is no validation split to judge by", where="key data", mend="data.split.val=0.1"
        )
    task = kind(dataset.classes, task_options(loaded))
    refuse_metric(loaded, task)
    metric = loaded.evaluation.metric or task.default_metric
    judge = member.declared(loaded, metric)
    judged = loaded.evaluation.model_copy(update={"split": "val"})
    loaded = absolute(loaded.model_copy(update={"data": dataset.options, "evaluation": judged}))
    study = Study(loaded.model_dump(mode="json"), spans, metric, judge.less_is_better, trials, seed)
    name = Path(str(recipe)).stem if isinstance(recipe, str | Path) else "training"
    run = RunFolder.create(out, f"{name}-sweep")
    study.write(run)
    member.say(run, *notes, quiet=quiet)
    return _work(run, study, judge, quiet=quiet)


def resume(folder: Path, overrides: Mapping[str, Any], *, quiet: bool) -> Run:
    """Go on with the trials that are not done."""
    member.refuse_changes(folder, overrides)
    _optuna()
    run = RunFolder(folder)
    study = Study.read(run)
    return _work(run, study, member.declared(load_recipe(study.recipe), study.metric), quiet=quiet)


def _work(run: RunFolder, study: Study, judge: Figure, *, quiet: bool) -> Run:
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(str(run.path / JOURNAL))
    search = optuna.create_study(
        study_name=KIND,
        storage=optuna.storages.JournalStorage(backend),
        sampler=optuna.samplers.TPESampler(seed=study.seed + len(study.done)),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        direction="minimize" if study.less else "maximize",
        load_if_exists=True,
    )
    with run.locked(), member.going_on(run.path):
        known = {one.number for one in study.done}
        running = optuna.trial.TrialState.RUNNING
        left = [one for one in search.get_trials(deepcopy=False, states=(running,))
                if one.number not in known]  # fmt: skip
        for frozen in left:  # of a sitting that was ended
            _try(run, study, search, optuna.trial.Trial(search, frozen._trial_id), quiet=quiet)
        while len(study.done) < study.wanted:
            _try(run, study, search, search.ask(), quiet=quiet)
        member.say(run, *_table(study, judge), quiet=quiet)
    best = study.best
    if best is None:
        whys = "; ".join(dict.fromkeys(one.why for one in study.done))
        raise RetinueError(f"no trial came to its end: {whys}", where=str(run.path))
    made = member.done(run.path / best.folder)
    assert made is not None
    return Run(run.path, made.figures, run.path / best.folder / MODEL_FILE, made.skipped, (made,))


def _try(run: RunFolder, study: Study, search: Any, trial: Any, *, quiet: bool) -> None:
    """One trial, told to Optuna and written down."""
    optuna = _optuna()
    values = {span.key: span.suggest(trial) for span in study.spans}
    one = Trial(trial.number, values)
    told = ", ".join(f"{key}={short(value)}" for key, value in values.items())
    member.say(run, f"trial {one.number + 1} of {study.wanted}: {told}", quiet=quiet)

    def watch(row: Mapping[str, Any]) -> None:
        figure = row.get(f"val_{study.metric}")
        if figure is not None:
            trial.report(float(figure), int(row["epoch"]))
            if trial.should_prune():
                raise Pruned

    began = time.monotonic()
    state = optuna.trial.TrialState.FAIL
    try:
        recipe = with_values(load_recipe(study.recipe), values)
        member.refuse_learnt_validation(recipe)
        made = member.train(run.path / one.folder, recipe, quiet=quiet, watch=watch)
    except Interrupted:
        raise
    except RetinueError as error:
        one.why = error.what
        if isinstance(error, Pruned):
            state = optuna.trial.TrialState.PRUNED
    else:
        value = made.figures.get(study.metric)
        one.figure = None if value is None else float(value)
        one.why = "" if one.figure is not None else f"{study.metric} is not defined for it"
        state = optuna.trial.TrialState.COMPLETE if one.figure is not None else state
    one.seconds = time.monotonic() - began
    if state == optuna.trial.TrialState.COMPLETE:
        search.tell(trial, one.figure)
    else:
        search.tell(trial, state=state)
    study.done.append(one)
    study.write(run)


def _table(study: Study, judge: Figure) -> Iterator[str]:
    """The trials, the best first; those without a figure last."""
    sign = 1 if study.less else -1
    last = math.inf
    order = sorted(study.done, key=lambda one: last if one.figure is None else sign * one.figure)
    keys = [span.key for span in study.spans]
    rows = [("trial", study.metric, *keys, "time", "")]
    for one in order:
        shown = judge.shown(one.figure, 4) if one.figure is not None else "–"
        own = [short(one.values[key]) for key in keys]
        rows.append((str(one.number + 1), shown, *own, spoken(one.seconds), one.why))
    wide = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, wide, strict=True)).rstrip()
    if (best := study.best) is not None:
        values = " ".join(f"{key}={short(best.values[key])}" for key in keys)
        images = counted(len(study.done), "trial")
        yield f"best of {images}: {values}; on this validation split, which has chosen it"


def _optuna() -> Any:
    """Optuna itself. Raises UsageError where it is not installed."""
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise UsageError(
            "a sweep needs optuna, which is not installed",
            mend="pip install 'retinue[sweep]'",
        ) from error
