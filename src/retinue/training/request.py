"""What `train` is asked for: a recipe, or what people give in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retinue.data.options import DataOptions
from retinue.data.sources.layout import TABLES
from retinue.errors import RetinueError, UsageError
from retinue.modelfile import read_description
from retinue.models.described import description_of
from retinue.models.registry import find, is_network
from retinue.run.folder import RunFolder
from retinue.tasks.shipped import DEFAULT, SHIPPED
from retinue.tasks.task import task_of
from retinue.training.changes import RECIPE, begin_anew, go_on
from retinue.training.written_recipes import shipped
from retinue.weights import files


def asked(
    recipe: Any, overrides: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """(recipe, overrides) as they are meant: pictures in the recipe's place are trained on by the
    usual recipe, which `say` is told.

    Raises:
        UsageError: the run folder of a training that was interrupted, which can go on; a model.
    """
    changes = dict(overrides)
    if not isinstance(recipe, str | Path):
        return recipe, changes
    path = Path(recipe)
    if (path / RECIPE).is_file():
        _refuse_interrupted(path)
    elif str(recipe) not in shipped() and (path.is_dir() or _is_data(path)):
        if "data" in changes or "data.path" in changes:
            raise UsageError(
                "data is given twice",
                where=f"{str(recipe)!r} and data={changes.get('data', changes.get('data.path'))}",
                mend=f"name one; recipes are {', '.join(shipped())}",
            )
        usual = SHIPPED[task_of(DataOptions(path=str(recipe)))].usual
        say(f"{recipe} is taken for the pictures, and trained on by the recipe {usual}")
        return usual, {"data": str(recipe), **changes}
    elif path.is_file() and files.kind(path):
        raise UsageError(
            "this is a model or weights, not a recipe",
            where=str(recipe),
            mend=f"to begin from it: retinue train {_usual_of_model(path)} data=PHOTOS"
            f" model.weights={recipe}",
        )
    elif str(recipe) not in shipped() and _is_network(path):
        raise UsageError(
            f"{str(recipe)!r} is a network, not a recipe",
            mend=f"retinue train {_usual_of_network(str(recipe))} data=PHOTOS model={recipe}",
        )
    return recipe, changes


def _is_data(path: Path) -> bool:
    """Whether a file is a table, or what a task that is not the default knows by its content."""
    if not path.is_file():
        return False
    return path.suffix.lower() in TABLES or task_of(DataOptions(path=str(path))) != DEFAULT


def _usual_of_model(path: Path) -> str:
    try:
        task = read_description(path).task
    except RetinueError:  # weights alone, of other programs
        task = DEFAULT
    return SHIPPED[task if task in SHIPPED else DEFAULT].usual


def _is_network(path: Path) -> bool:
    """Whether it is the name of one, or a file that describes one."""
    return description_of(str(path)) is not None or (not path.exists() and is_network(str(path)))


def _usual_of_network(name: str) -> str:
    described = description_of(name)
    kind = find(name if described is None else described[0]).kind
    return next(there.usual for there in SHIPPED.values() if there.networks == kind)


def _refuse_interrupted(path: Path) -> None:
    run = RunFolder(path)
    if not run.checkpoints.exists() or (path / "metrics.json").is_file():
        return
    raise UsageError(
        "this training was interrupted",
        where=str(path),
        mend=f"`{go_on(path)}` goes on with it, `{begin_anew(path)}` begins a new one",
    )
