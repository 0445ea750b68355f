"""Cached features and packed images that nobody needs any more: whose they are, how large, and away
with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.errors import RetinueError
from retinue.inference.engine_cache import EngineCache
from retinue.run.folder import RunFolder
from retinue.training.features.cache import FeatureCache, root_of
from retinue.training.recipe import load_recipe


@dataclass(frozen=True)
class Cleared:
    """What was cleared, or what would be."""

    folder: Path
    """The cache."""
    spaces: Mapping[str, int]
    """Bytes that were meant, by the folder in the cache."""
    freed: int
    """Bytes that are free now: fewer, where a training at work holds some."""
    kept: int
    """Bytes of what else is in the cache."""
    shared: tuple[Path, ...] = ()
    """Other runs that had them in common, and compute them anew when they go on."""
    packed: frozenset[str] = frozenset()
    """Which of the folders hold packed images; the others hold features."""
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the runs here and in `runs/` that have used a folder, as far as they are found."""
    engines: int = 0
    """Bytes of compiled engines that were meant, too: with all features alone, as they are no
    run's."""


def clear(run: Path | None, *, folder: Path | None = None, dry: bool = False) -> Cleared:
    """Clear the cached features that `run` has used, or all, and compiled engines then, too; with
    `dry` nothing is removed.

    `folder`: the cache; None: that of the run, or the usual one. Nothing but cached features is
    ever touched, and all of them can be computed again.

    Raises:
        UsageError: no run folder.
        RetinueError: the run has not written down which features are its own.
    """
    if run is None:
        cache = FeatureCache(folder or root_of(None), 0)
        wanted = cache.sizes()
    else:
        opened = RunFolder.open(run)
        cache = FeatureCache(folder or root_of(load_recipe(run).cache.folder), 0)
        names = _spaces(opened)
        if names is None:
            raise RetinueError(
                "the run does not say which cached features are its own",
                where=str(run),
                mend="`retinue clean` shows all that there are, `retinue clean --all` clears them",
            )
        wanted = {name: size for name, size in cache.sizes().items() if name in names}
    others = () if run is None else tuple(_sharing(run, set(wanted)))
    compiled = EngineCache()
    engines = 0 if run is not None or folder is not None else sum(compiled.sizes().values())
    packed = frozenset(cache.packed())
    freed = 0 if dry else cache.clear(set(wanted))
    if engines and not dry:
        compiled.clear()
    kept = sum(cache.sizes().values()) - (sum(wanted.values()) if dry else 0)
    users = _users() if run is None else {}
    return Cleared(cache.root, wanted, freed, kept, others, packed, users, engines)


def _users() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for folder in (Path(), Path("runs")):
        for run in sorted(folder.iterdir()) if os.path.isdir(folder) else []:
            if os.path.isfile(run / "recipe.yaml"):
                with suppress(RetinueError, OSError, AttributeError, TypeError):
                    for name in sorted(_spaces(RunFolder(run)) or ()):
                        found[name] = (*found.get(name, ()), run.name)
    return found


def _spaces(run: RunFolder) -> set[str] | None:
    """The folders in the cache that the run has used; None: it does not say."""
    environment: Any = run.read_json("environment.json")
    if environment is None:
        return None
    stages = [
        stage for stage in (environment.get("trunk") or {}).values() if isinstance(stage, dict)
    ]
    if any("spaces" not in stage for stage in stages):
        return None
    packed = environment.get("packed")
    told = [*stages, packed] if isinstance(packed, dict) else stages
    return {str(name) for each in told for name in each["spaces"]}


def _sharing(run: Path, names: set[str]) -> list[Path]:
    """The runs beside `run` that have used some of the spaces `names`."""
    found = []
    for other in sorted(run.absolute().parent.iterdir()):
        if other == run.absolute() or not (other / "recipe.yaml").is_file():
            continue
        if (_spaces(RunFolder(other)) or set()) & names:
            found.append(other)
    return found
