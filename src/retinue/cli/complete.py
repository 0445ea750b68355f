"""What a shell may complete: names, keys and values, without importing anything heavy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path

import typer

from retinue.files import children, read_text

_LABELS = (".json", ".yaml", ".yml", ".data", ".record", ".tfrecord")
"""Of files that hold labels of images, or say where these are."""
_MOST = 1_000
"""Entries of a folder that are looked at."""


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes, `auto`, recipe files, and folders."""
    return [*_begun(["auto", *_shipped()], incomplete), *_paths(incomplete, (".csv", *_LABELS))]


def shipped(incomplete: str) -> list[str]:
    """Shipped recipes alone."""
    return _begun(_shipped(), incomplete)


def runs(incomplete: str) -> list[str]:
    """Run folders."""
    folders = [Path(incomplete).parent, Path("runs")]
    found = [str(path) for folder in folders for path in children(folder, _MOST)
             if (path / "recipe.yaml").is_file()]  # fmt: skip
    return _begun(dict.fromkeys(found), incomplete)


def models(incomplete: str) -> list[str]:
    """Run folders and model files."""
    known = runs(incomplete)
    others = _paths(incomplete, (".safetensors",))
    return [*known, *(path for path in others if path.rstrip("/") not in known)]


def networks(incomplete: str) -> list[str]:
    """Names of networks, those of other libraries where none of ours begins so."""
    from retinue.models import names

    return _begun(names.ZOO, incomplete) or _begun(sorted(names.aliases()), incomplete)


def overrides(context: typer.Context, incomplete: str) -> list[str]:
    """`key=` and `key=value`; the pictures, too."""
    given = [str(word) for word in context.params.get("overrides") or ()]
    if len(given) > 1 and given[-1] == "=":  # so bash hands over `key=val`
        return _values(given[-2], incomplete)
    key, equals, value = incomplete.partition("=")
    if equals:
        return [f"{key}={found}" for found in _values(key, value)]
    found = list(_keys(str(context.params.get("recipe") or ""), incomplete))
    if len(found) == 1 and (values := _values(found[0].rstrip("="), "")):
        return [found[0] + each for each in values]
    return [*found, *(_paths(incomplete, (".csv", ".tsv", *_LABELS)) if not found else [])]


def _keys(recipe: str, incomplete: str) -> Iterator[str]:
    """The keys that can be set, and once a letter is typed their last words alone."""
    from retinue.cli import outline

    keys = outline.keys(_stages(recipe))
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    known = ["data", "model", *leaves] if "." not in incomplete else leaves
    last = [key.rpartition(".")[2] for key in leaves] if incomplete else []
    for key in dict.fromkeys([*known, *(word for word in last if word != "name")]):
        if key.startswith(incomplete):
            yield f"{key}="
    if "." in incomplete and not any(key.startswith(incomplete) for key in leaves):
        ends = (key[at.start() + 1 :] for key in leaves for at in re.finditer(r"\.", key))
        yield from dict.fromkeys(f"{end}=" for end in ends if end.startswith(incomplete))


def _values(key: str, incomplete: str) -> list[str]:
    from retinue.cli import outline

    if key in ("model", "model.name"):
        return networks(incomplete) or _paths(incomplete, (".cfg",))
    if key in ("data", "data.path", "data.images"):
        return _paths(incomplete, (".csv", ".tsv", ".txt", *_LABELS))
    if key in ("teacher", "model.weights", "weights"):
        return models(incomplete)
    keys = outline.keys(9)
    meant = next((k for k in keys if k == key or k.endswith(f".{key}")), None)
    return _begun(outline.words(keys[meant]), incomplete) if meant else []


def _stages(recipe: str) -> int:
    """How many stages the recipe on the line has; 2 where that cannot be told."""
    from retinue.documents import load_yaml

    path = Path(recipe)
    path = path / "recipe.yaml" if path.is_dir() else path
    with suppress(Exception):  # a shell's completion never complains
        text = read_text(path) if path.is_file() else _text(recipe)
        return len(load_yaml(text)["stages"])
    return 2


def _text(recipe: str) -> str:
    folder = resources.files("retinue.training") / "recipes"
    return (folder / f"{recipe}.yaml").read_text(encoding="utf-8")


def _shipped() -> list[str]:
    # Not through `retinue.training`'s modules, which bring PyTorch.
    folder = resources.files("retinue.training") / "recipes"
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _begun(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """Folders, ending in a slash, and files with one of the `suffixes`."""
    before = incomplete[: incomplete.rfind("/") + 1]
    found = []
    for path in sorted(children(Path(before or "."), _MOST)):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found.append(f"{before}{path.name}/")
        elif path.suffix.lower() in suffixes:
            found.append(f"{before}{path.name}")
    return _begun(found, incomplete)
