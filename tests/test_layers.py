"""A room imports only from the rooms below it in the list of docs/design.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "retinue"


def rooms() -> list[str]:
    """From the top to the bottom, as the design lists them."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    tree = text.split("src/retinue/\n", 1)[1].split("\ntests/", 1)[0]
    return re.findall(r"^  (\w+)(?:/|\.py)(?=\s|$)", tree, re.MULTILINE)


def imported(source: str) -> Iterator[tuple[int, str]]:
    """(line, room) of every import from this package, also those inside functions."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "retinue":
            names = [f"retinue.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "retinue" and rest:
                yield node.lineno, rest.split(".")[0]


def upwards(room: str, source: str) -> list[tuple[int, str]]:
    order = rooms()
    return [(n, r) for n, r in imported(source) if order.index(r) < order.index(room)]


def test_every_room_is_in_the_list() -> None:
    found = {
        p.stem if p.suffix == ".py" else p.name for p in SOURCE.iterdir() if p.suffix != ".typed"
    }
    found = {name for name in found if not name.startswith("_") and name != "py"}
    assert found <= set(rooms())


def test_rooms_import_from_below() -> None:
    wrong = {
        str(path.relative_to(SOURCE)): found
        for path in SOURCE.rglob("*.py")
        if path.parent != SOURCE or path.stem != "__init__"
        if (
            found := upwards(
                path.relative_to(SOURCE).parts[0].removesuffix(".py"), path.read_text("utf-8")
            )
        )
    }
    assert not wrong


def test_an_import_from_above_is_seen() -> None:
    source = "def f():\n    from retinue.training import session\n    import retinue.data.check\n"
    assert upwards("models", source) == [(2, "training"), (3, "data")]
    assert upwards("report", source) == []
