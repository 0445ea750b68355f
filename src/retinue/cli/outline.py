"""The keys of a recipe and the words that they take, read from the schema's source.

Importing the schema brings PyTorch, which takes longer than a shell's completion may. So its files
are parsed, not imported; a test compares what is found with the schema itself.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import retinue
from retinue.tasks.shipped import DEFAULT, SHIPPED

_FILES = ("training/recipe.py", "training/written_recipes.py", "training/options.py",
          "training/stage_samples.py", "data/options.py", "models/options.py")  # fmt: skip


class _Outline(NamedTuple):
    classes: dict[str, dict[str, str]]
    """Options class → field → annotation, as written."""
    aliases: dict[str, str]
    """Name of an annotation → what it stands for."""
    task: str
    """The options class of the usual task."""


@cache
def _read() -> _Outline:
    root = Path(retinue.__file__).parent
    task = SHIPPED[DEFAULT].task.partition(":")[0].removeprefix("retinue.").replace(".", "/")
    found = _Outline({}, {}, "")
    for file in (*_FILES, f"{task}.py"):
        for node in ast.parse((root / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and _is_options(node):
                found.classes[node.name] = dict(_fields(node))
                if file not in _FILES:
                    found = found._replace(task=node.name)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found.aliases[node.targets[0].id] = ast.unparse(node.value)
    return found


def _is_options(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Options" for base in node.bases)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            annotation = ast.unparse(line.annotation)
            if not annotation.startswith("ClassVar"):
                yield line.target.id, annotation


def keys(stages: int) -> dict[str, str]:
    """Every dotted key of a recipe with so many stages → its annotation, groups included."""
    return dict(_walk("Recipe", "", stages))


def _walk(options: str, before: str, stages: int) -> Iterator[tuple[str, str]]:
    outline = _read()
    for name, annotation in outline.classes[options].items():
        key = f"{before}{name}"
        yield key, annotation
        inner = [outline.task] if key == "task_options" else _classes(annotation)
        if len(inner) != 1:
            continue
        many = re.search(rf"tuple\[{inner[0]}, \.\.\.\]", annotation)
        for place in [f"{key}.{k}." for k in range(stages)] if many else [f"{key}."]:
            yield from _walk(inner[0], place, stages)


def _classes(annotation: str) -> list[str]:
    """The options classes that an annotation names, through aliases."""
    outline = _read()
    words = re.findall(r"\b[A-Za-z_]\w*\b", re.sub(r"'[^']*'", "", annotation))
    found: list[str] = []
    for word in words:
        if word in outline.classes:
            found.append(word)
        elif word in outline.aliases:
            found += _classes(outline.aliases[word])
    return list(dict.fromkeys(found))


def words(annotation: str) -> list[str]:
    """What a field may be set to, as far as it is a matter of words."""
    outline = _read()
    found = re.findall(r"'([^']*)'", " ".join(re.findall(r"Literal\[[^\]]*\]", annotation)))
    for options in _classes(annotation):
        if name := outline.classes[options].get("name"):
            found += re.findall(r"'([^']*)'", name)
    if re.search(r"\bbool\b", annotation):
        found += ["true", "false"]
    return found + ["null"] * bool(found and "None" in annotation)
