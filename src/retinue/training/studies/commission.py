"""Whatever `train` is asked for, begun or gone on with: one training, or several as one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from retinue.errors import RetinueError, UsageError
from retinue.run.folder import RunFolder
from retinue.training import session
from retinue.training.recipe import load_recipe
from retinue.training.request import asked
from retinue.training.session import Plan, RecipeLike, Run
from retinue.training.studies import auto, folds
from retinue.training.studies.member import STUDY

KINDS = MappingProxyType({"folds": "folds", auto.NAME: "auto", "sweep": "sweep"})
"""What `study.json` says it is, and the file here that goes on with it."""


def start(
    recipe: RecipeLike, overrides: Mapping[str, Any], *, out: Path | None, quiet: bool
) -> Run:
    """A new training; with `data.split.folds` and no fold, one for each; for `auto`, whatever is
    best."""
    if recipe == auto.NAME:
        return auto.start(overrides, out=out, quiet=quiet)
    notes: list[str] = []
    meant, changes = asked(recipe, overrides, notes.append)
    loaded = load_recipe(meant, changes, notes.append)
    if not folds.wanted(loaded):
        return session.start(recipe, overrides, out=out, quiet=quiet)
    name = Path(str(meant)).stem if isinstance(meant, str | Path) else "training"
    return folds.start(loaded, f"{name}-folds", out=out, quiet=quiet, notes=notes)


def plan(recipe: RecipeLike, overrides: Mapping[str, Any], *, quiet: bool) -> Plan:
    """What `start` would do; of several trainings, the first one."""
    if recipe == auto.NAME:
        raise UsageError(
            "auto finds what to train by trying it, so no dry run can tell beforehand",
            where="--dry-run",
            mend="name a recipe; `retinue recipes` lists them",
        )
    meant, changes = asked(recipe, overrides, lambda _: None)
    loaded = load_recipe(meant, changes, lambda _: None)
    if not folds.wanted(loaded):
        return session.plan(recipe, overrides, quiet=quiet)
    return folds.plan(loaded, quiet=quiet)


def resume(folder: Path, overrides: Mapping[str, Any], *, quiet: bool) -> Run:
    """Go on with what is in `folder`."""
    study = RunFolder(folder).read_json(STUDY)
    if study is None:
        return session.resume(folder, overrides, quiet=quiet)
    kind = KINDS.get(str(study.get("kind"))) if isinstance(study, dict) else None
    if kind is None:
        raise RetinueError(
            "this is not what several trainings write",
            where=f"{folder / STUDY}, key kind",
            mend="put it back as it was, or begin anew",
        )
    module = importlib.import_module(f"retinue.training.studies.{kind}")
    run: Run = module.resume(folder, overrides, quiet=quiet)
    return run
