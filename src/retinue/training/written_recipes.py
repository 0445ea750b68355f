"""The recipes inside the package, and recipe files, as text: no schema is needed to list or copy
them, and nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from retinue import files
from retinue.documents import yaml_problem
from retinue.errors import UsageError, suggest
from retinue.options import Options
from retinue.options.typed import read_yaml


class About(Options):
    """The header of a recipe: where the training comes from and what to expect of it."""

    title: str = ""
    """What the training is, in a few words."""
    source: str = ""
    """The publication or page that the training follows."""
    command: str = ""
    """How it is run."""
    cost: str = ""
    """Time and machine."""
    figure: str = ""
    """What it reaches, and where that is measured."""


def shipped() -> dict[str, str]:
    """The recipes inside the package: name → YAML text, by name."""
    folder = resources.files("retinue.training") / "recipes"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".yaml")
    }


def header(text: str) -> About:
    """The `about` section of a recipe's YAML."""
    return About.model_validate(parse(text, "recipe").get("about", {}))


def read_text(name: str) -> tuple[str, str]:
    """(where it stands, YAML text) of a shipped recipe, a YAML file or a run folder."""
    path = Path(name)
    if path.is_dir() and (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
    if path.is_file():
        try:
            return str(path), files.read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the recipe cannot be read ({error})", where=str(path)) from error
    recipes = shipped()
    if name in recipes:
        return f"recipe {name!r}", recipes[name]
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        raise UsageError("there is no such recipe file", where=name)
    raise UsageError(
        f"there is no recipe {name!r}",
        mend=suggest(name, recipes)
        or f"shipped are {', '.join(recipes)}; nor is there a folder of that name",
    )


def parse(text: str, where: str) -> Any:
    """The values of a recipe's YAML `text`, which stands `where`. Raises UsageError."""
    try:
        values = read_yaml(text)
    except YAMLError as error:
        problem, line = yaml_problem(error)
        where += f",{line}" if line else ""
        raise UsageError(f"this is not valid YAML ({problem})", where=where) from None
    if not isinstance(values, Mapping):
        raise UsageError("a recipe is a mapping of keys to values", where=where)
    return values
