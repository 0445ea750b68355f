"""Every `retinue …` that the pages tell is one: its command, its options, and the keys and values
of recipes in it are parsed by the command line itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from told import PAGES, ROOT, command_lines
from typer.main import get_command

from retinue.cli.app import app
from retinue.cli.data import _options
from retinue.cli.line import sorted_words
from retinue.errors import RetinueError, UsageError
from retinue.options.overrides import meaning
from retinue.options.wording import at
from retinue.training.recipe import Recipe, load_recipe
from retinue.training.written_recipes import shipped

COMMANDS: Any = get_command(app)
LEFT_OPEN = {"…", "..."}
OF_THE_SHELL = {"--help", "-h", "--version", "--install-completion", "--show-completion"}


def refused(words: list[str]) -> str:
    """Why the command line would not take `words`; empty: it would. What a person is to put in
    (PATH, runs/NAME) need not be there."""
    words = [word.rstrip("…") for word in words if word not in LEFT_OPEN]
    optional = next((k for k, word in enumerate(words) if word.startswith("[")), len(words))
    words = words[:optional]  # what may follow, in the notation of the design
    command = COMMANDS
    context = typer.Context(command, info_name="retinue")
    while hasattr(command, "get_command"):
        if not words or words[0] in OF_THE_SHELL:
            return ""
        inner = command.get_command(context, words[0])
        if inner is None:
            return f"there is no command {words[0]!r}"
        command, words = inner, words[1:]
    if not words or {"--help", "-h"} & set(words):
        return ""  # the command itself is spoken of
    try:
        made = command.make_context(command.name, list(words), parent=context)
    except Exception as error:  # Click's, which Typer may bring along under another name
        if type(error).__name__ == "MissingParameter":
            return ""  # `retinue predict --tiles 640` tells of the option alone
        return f"{type(error).__name__}: {error}"
    try:
        if made.params.get("recipe"):
            _recipe(made)
        elif made.params.get("overrides"):
            _options(made.params["overrides"])
    except RetinueError as error:
        return str(error)
    return ""


def _recipe(context: typer.Context) -> None:
    given = [context.params["recipe"], *(context.params["overrides"] or [])]
    alone, changes = sorted_words([word for word in given if word], context)
    for over in context.params.get("over") or []:
        changes[over.partition("=")[0]] = None
    name = next((word for word in alone if word in shipped()), "finetune")
    if context.params.get("resume") or alone[:1] == ["auto"] or name not in alone:
        return _keys(name, changes)
    if len(alone) > 1:
        changes["data"] = alone[1]
    if None in changes.values():
        return _keys(name, changes)
    load_recipe(name, _without_files(changes))
    return None


def _without_files(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if not str(value).isupper()}


def _keys(name: str, changes: dict[str, Any]) -> None:
    """The keys are those of some recipe, `name` or one of another task or with other samplers."""
    failure: RetinueError | None = None
    for values in map(_values, (name, "detect", "multi-label", "dogs-xception-rounds")):
        try:
            for key in changes:
                for location in meaning(Recipe, values, key):
                    if at(Recipe, values, location)[0] is Any:
                        raise UsageError(f"there is no key {key}")
            return
        except RetinueError as error:
            failure = failure or error
    assert failure is not None
    raise failure


@cache
def _values(name: str) -> dict[str, Any]:
    return load_recipe(name).model_dump(mode="json")


TOLD = [page for page in PAGES if page.name != "design.md"]  # whose lines are a notation


@pytest.mark.parametrize("page", [*TOLD, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_line_is_one_that_the_command_line_takes(page: Path) -> None:
    wrong = {}
    for place, words in command_lines(page):
        if problem := refused(words):
            wrong[place] = f"retinue {' '.join(words)}: {problem}"
    assert not wrong


def test_the_commands_of_the_recipes_are() -> None:
    from told import _words

    from retinue.training.written_recipes import header

    for name, text in shipped().items():
        for place, words in _words(name, header(text).command):
            assert not refused(words), place


@pytest.mark.parametrize(
    "line",
    [
        "trian finetune",
        "predict best.safetensors photo.jpg --drwa",
        "evaluate runs/x --engine tensorrt",
        "train finetune photos/ epohcs=3",
        "train finetune photos/ stages.0.optimizer.lr=fast",
        "data check photos/ imges=x",
        "data convert a b --too coco",
        "sweep linear-probe photos/ --over lrr=1..2",
    ],
)
def test_lines_that_it_would_not_take_are_found(line: str) -> None:
    assert refused(line.split())
