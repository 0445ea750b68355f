"""What may change while a training is under way: the one rule for a run's edited `recipe.yaml` and
for overrides given with `--resume`.

The fields of the schema are marked (`OnResume`): what is marked is taken over, everything else is
refused by its name, with the command of a new training that starts from these weights.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retinue.documents import json_text
from retinue.errors import RetinueError, UsageError, some
from retinue.files import expanded
from retinue.modelfile import MODEL_FILE
from retinue.models.described import paths_among
from retinue.options import OnResume
from retinue.options.resuming import on_resume
from retinue.run.folder import RunFolder
from retinue.run.progress import Progress
from retinue.training.recipe import Recipe, dump, load_recipe
from retinue.training.stage import is_over, is_stopped
from retinue.weights.resolution import names_a_file

RECIPE = "recipe.yaml"
RECORD = "environment.json"
_NOTHING = object()
_AUTO = "auto"


@dataclass(frozen=True)
class Change:
    """A value that is another than when the training began."""

    key: str
    """Dotted."""
    old: Any
    new: Any
    mark: OnResume | None
    """None: it may not change."""
    given: bool
    """As an override, not in the file."""
    came: str | None = None
    """What the training made of an old value `auto`."""

    def __str__(self) -> str:
        came = f", which came to {self.came}" if self.came else ""
        return f"{self.key} was {_shown(self.old)}{came}, is {_shown(self.new)}"


@dataclass(frozen=True)
class Changes:
    """A run's recipe as it is to go on, and what is new in it."""

    recipe: Recipe
    changes: Sequence[Change]
    progress: Progress | None
    """Where the training stands; None where no length has changed, or it has no checkpoint."""
    written: bool
    """Whether `recipe.yaml` says so already."""

    @property
    def goes_on(self) -> bool:
        """Whether a training that was done has more to do by them."""
        progress, stages = self.progress, self.recipe.stages
        if progress is None or progress.stage < len(stages):
            return False
        return not is_over(stages[-1], progress)

    def said(self) -> Iterator[str]:
        """What is to be said of them aloud."""
        for change in self.changes:
            yield f"changed since the training began: {change}"
        if any(change.mark is OnResume.CLOSE for change in self.changes):
            yield "the training stays the same, but not bit for bit"
        progress, stages = self.progress, self.recipe.stages
        if progress is None:
            return
        index = min(progress.stage, len(stages) - 1)
        lengths = [f"stages.{index}.epochs", f"stages.{index}.steps"]
        if any(change.key in lengths for change in self.changes):
            yield (
                f"stage {stages[index].name} goes on from its step {progress.stage_steps}, from"
                " here on by the schedule of the new length: the learning rate jumps to that, and"
                " the weights are not those of a training that had this length from the beginning"
            )

    def write(self, run: RunFolder, settings: Mapping[str, Any] | None = None) -> None:
        """Into the run. A kill in between leaves changes that are found again. `settings`: what
        the recipe's choices come to now, where that is another thing than before."""
        if not self.written:
            run.write(RECIPE, dump(self.recipe))
        if self.goes_on:
            (run.path / "metrics.json").unlink(missing_ok=True)  # of what was done until here
        if self.changes:
            known = run.read_json(RECORD) or {}
            steps = None if self.progress is None else self.progress.steps
            fresh = [
                {"after_step": steps, "key": c.key, "old": _plain(c.old), "new": _plain(c.new)}
                for c in self.changes
            ]
            told = {"recipe": leaves_of(self.recipe), "changes": known.get("changes", []) + fresh}
            if settings is not None:
                told["settings"] = settings
            if any(change.mark is OnResume.LENGTH for change in self.changes):
                told["plan"] = None  # how long it was thought to take is not true any more
            run.write_json(RECORD, {**known, **told})


def find_changes(run: RunFolder, overrides: Mapping[str, Any]) -> Changes:
    """What the run's `recipe.yaml` with `overrides` says, and how that differs from what the
    training began with.

    Raises UsageError for an override that makes no sense or that may not be, RetinueError for an
    edit of the file that may not be.
    """
    file = run.path / RECIPE
    on_file = load_recipe(file)
    recipe = load_recipe(file, overrides, begun=True) if overrides else on_file
    if recipe.data.path != on_file.data.path and not any("format" in key for key in overrides):
        kept = {"format": on_file.data.format}  # moved data is still of its format
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=kept)})
    if recipe != on_file:
        recipe = absolute(recipe)
    record = run.read_json(RECORD) or {}
    recorded, settings = record.get("recipe"), record.get("settings") or {}
    begun = leaves_of(on_file) if recorded is None else recorded
    changes = [
        replace(change, came=_came_to(change, settings))
        for change in _compared(begun, recipe, leaves_of(on_file))
    ]
    forbidden = [change for change in changes if change.mark is None]
    if forbidden:
        raise _refusal(run, recipe, forbidden)
    progress = None
    if any(change.mark is OnResume.LENGTH for change in changes) and run.checkpoints.exists():
        progress = Progress.from_dict(run.checkpoints.load()["progress"])
        for change in changes:
            if change.mark is OnResume.LENGTH:
                _refuse_late(run, recipe, change, progress)
    return Changes(recipe, changes, progress, written=recipe == on_file)


def _came_to(change: Change, settings: Mapping[str, Any]) -> str | None:
    """`settings`: what the training's choices came to, where they have been made."""
    came = settings.get(change.key)
    return None if change.old != _AUTO or came in (None, _AUTO) else str(came)


def absolute(recipe: Recipe) -> Recipe:
    """With paths that lead there from anywhere."""
    return _moved(recipe, lambda path: str(expanded(path).absolute()))


def without_paths(recipe: Recipe) -> dict[str, Any]:
    """Plain values of the recipe as a model file keeps it: what paths lead to by its name alone."""
    return _moved(recipe, lambda path: path.name).model_dump(mode="json")


def _moved(recipe: Recipe, place: Callable[[Path], str]) -> Recipe:
    """With every path that it holds as `place` gives it."""

    def placed(path: str | None) -> str | None:
        return None if path is None else place(Path(path))

    data, model = recipe.data, recipe.model
    places: dict[str, Any] = {n: placed(getattr(data, n)) for n in ("path", "images", "pool")}
    places["split"] = data.split.model_copy(update={"file": placed(data.split.file)})
    if model.weights is not None and names_a_file(model.weights):
        model = model.model_copy(update={"weights": placed(model.weights)})
    described = {k: placed(v) for k, v in paths_among(model.name, model.arguments).items()}
    if described:
        model = model.model_copy(update={"arguments": {**model.arguments, **described}})
    cache = recipe.cache.model_copy(update={"folder": placed(recipe.cache.folder)})
    return recipe.model_copy(
        update={
            "data": data.model_copy(update=places),
            "model": model,
            "teacher": placed(recipe.teacher),
            "cache": cache,
        }
    )


def leaves_of(recipe: Recipe) -> dict[str, Any]:
    """Dotted key → plain value, for everything that the recipe says of the training."""
    return dict(_leaves(recipe.model_dump(mode="json", exclude={"about"})))


def go_on(run: Path, *overrides: str) -> str:
    """The command that goes on with the run."""
    return shlex.join(["retinue", "train", str(run), "--resume", *overrides])


def begin_anew(run: Path, *overrides: str) -> str:
    """The command that begins a new training by the run's recipe."""
    return shlex.join(["retinue", "train", str(run / RECIPE), *overrides])


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _compared(
    begun: Mapping[str, Any], recipe: Recipe, on_file: Mapping[str, Any]
) -> Iterator[Change]:
    """`begun`: what was written down; `on_file`: what stands in the file."""
    now = leaves_of(recipe)
    old_stages, new_stages = _stages(begun), _stages(now)
    if old_stages != new_stages:
        yield Change("stages", f"{old_stages} of them", f"{new_stages} of them", None, given=False)
        return
    # A field that the version of then did not have is an edit only where it is set.
    chosen = {key for key, _ in _leaves(recipe.model_dump(mode="json", exclude_defaults=True))}
    all_keys = [*begun, *(key for key in now if key not in begun and key in chosen)]
    for key in dict.fromkeys(map(_of_list, all_keys)):
        old, new = _gathered(begun, key), _gathered(now, key)
        location = [int(part) if part.isdigit() else part for part in key.split(".")]
        mark = on_resume(Recipe, location)
        if mark is OnResume.FREE and old is _NOTHING:
            continue  # an older version wrote only down what decides
        if old != new and not _same_name(old, new):
            yield Change(key, old, new, mark, given=_gathered(on_file, key) != new)


def _of_list(key: str) -> str:
    """That of the list whose value `key` is, which is told as a whole; any other one as it is."""
    return re.sub(r"(\.\d+)+$", "", key)


def _gathered(leaves: Mapping[str, Any], key: str) -> Any:
    """The value, or the list of values, at `key`."""
    if key in leaves:
        return leaves[key]
    places = {
        rest.split(".")[0]
        for rest in (leaf.removeprefix(f"{key}.") for leaf in leaves if leaf.startswith(f"{key}."))
    }
    if not places or not all(place.isdigit() for place in places):
        return _NOTHING
    return [_gathered(leaves, f"{key}.{place}") for place in sorted(places, key=int)]


def _stages(leaves: Mapping[str, Any]) -> int:
    return len({key.split(".")[1] for key in leaves if key.startswith("stages.")})


def _same_name(old: Any, new: Any) -> bool:
    """An older version wrote the last part of a path down."""
    texts = isinstance(old, str) and isinstance(new, str)
    return texts and not Path(old).is_absolute() and Path(new).name == old


def _refusal(run: RunFolder, recipe: Recipe, forbidden: Sequence[Change]) -> RetinueError:
    keys = ", ".join(change.key for change in forbidden[:5])
    what = some(list(map(str, forbidden)), 5)
    given = [change for change in forbidden if change.given]
    each = (setting for change in given for setting in _settings(recipe, change))
    settings = list(dict.fromkeys(each))
    same_network = not any(change.key.startswith("model.") for change in forbidden)
    begins_here = same_network and (run.path / MODEL_FILE).is_file()
    if begins_here:
        settings.insert(0, f"model.weights={run.path / MODEL_FILE}")
    place = "given as an override" if given else f"{run.path / RECIPE}"
    kind: type[RetinueError] = UsageError if given else RetinueError
    return kind(
        f"a training that is under way cannot change what its weights come from: {what}",
        where=f"{place}, key{'s' * (len(forbidden) > 1)} {keys}",
        mend=f"{'leave it out' if given else 'put it back'}, or start a new training"
        f"{' from these weights' if begins_here else ''}:"
        f" {begin_anew(run.path, *settings)}",
    )


def _settings(recipe: Recipe, change: Change) -> Iterator[str]:
    """The override that gives what `change` came to. Of a section that is gone its own; one that
    has come has its fields among the changes."""
    if change.new is not _NOTHING:
        yield f"{change.key}={_shown(change.new)}"
        return
    now = leaves_of(recipe)
    parts = change.key.split(".")
    sections = (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    yield from (f"{section}={_shown(now[section])}" for section in sections if section in now)


def _refuse_late(run: RunFolder, recipe: Recipe, change: Change, progress: Progress) -> None:
    """Raise RetinueError where a stage's new length comes too late, or changes nothing."""
    index = int(change.key.split(".")[1])
    field = change.key.split(".")[2]
    stage = recipe.stages[index]
    reached = min(progress.stage, len(recipe.stages) - 1)
    where = f"{'given as an override' if change.given else run.path / RECIPE}, key {change.key}"
    fresh = f"or start a new training: {begin_anew(run.path, f'{change.key}={_shown(change.new)}')}"
    if index < reached:
        raise RetinueError(
            f"stage {stage.name} is over, and others have gone on from it: {change}",
            where=where,
            mend=f"put it back, {fresh}",
        )
    if index > reached or field == "early_stop":
        return
    if change.old is None or change.new is None:
        raise RetinueError(
            f"the length of stage {stage.name} is counted in another unit: {change}",
            where=where,
            mend=f"keep to the one it began with, {fresh}",
        )
    done = progress.stage_steps if field == "steps" else progress.epoch + (progress.step > 0)
    if change.new < done or (change.new == done and change.new < change.old):
        raise RetinueError(
            f"stage {stage.name} has done {done} {field} already: {change}",
            where=where,
            mend=f"give it more than {done}, {fresh}",
        )
    if progress.step == 0 and is_stopped(stage, progress):
        raise RetinueError(
            f"early_stop has ended stage {stage.name} after {progress.epoch} epochs, so that a new"
            f" length changes nothing: {change}",
            where=where,
            mend=f"also raise stages.{index}.early_stop.patience, or set"
            f" stages.{index}.early_stop=null",
        )


def _shown(value: Any) -> str:
    """As an override would give it."""
    if value is _NOTHING:
        return "nothing"
    return value if isinstance(value, str) else json_text(value)


def _plain(value: Any) -> Any:
    return None if value is _NOTHING else value
