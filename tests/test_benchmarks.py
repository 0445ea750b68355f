"""Benchmarks, which the suite does not run, find in each other and in the package what they take
from there."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def _file(module: str) -> Path | None:
    """Where a benchmark, or a module of the package, stands; None of others."""
    if (own := FOLDER / f"{module}.py").is_file():
        return own
    if module.partition(".")[0] != "retinue":
        return None
    found = importlib.util.find_spec(module)
    assert found is not None, module
    assert found.origin is not None, module
    return Path(found.origin)


def _defined(source: str) -> set[str]:
    """Names that a module has once it is imported, also those it imports itself."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def _lacking(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if (file := _file(node.module)) is None:
            continue
        there = _defined(file.read_text(encoding="utf-8"))
        if "__getattr__" in there:  # what is offered lazily
            continue
        below = {path.stem for path in file.parent.iterdir()} if file.stem == "__init__" else set()
        for alias in node.names:
            if alias.name not in there | below:
                yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_what_a_benchmark_imports_is_there(script: Path) -> None:
    assert not list(_lacking(script.read_text(encoding="utf-8")))


def test_what_is_not_there_is_found() -> None:
    source = "from training_step import bootstrap, gone\nfrom retinue.turns import turns, lost\n"
    assert list(_lacking(source)) == ["training_step.gone", "retinue.turns.lost"]
