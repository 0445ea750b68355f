"""A room imports only from the rooms below it in the list of docs/design.md; no file imports, over
whatever way, itself; and the frame names no task."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "retinue"

FRAME = (
    "training/*.py",
    "training/features/*.py",
    "training/planning/*.py",
    "run/*.py",
    "data/loader.py",
    "data/sources/recognise.py",
    "explaining/*.py",
    "inference/*.py",
    "inference/runtimes/*.py",
    "exporting/*.py",
    "report/*.py",
    "api/*.py",
    "cli/*.py",
    "serving/*.py",
)
"""What serves every task: these files know none of them."""
NAMES_OF_A_TASK = re.compile(
    r"(?<![a-z])(classifications?|detections?|multi_?labels?|(bounding[ _]?)?box(es)?)(?![a-z])",
    re.I,
)
"""Also within `batch_boxes` and `BoundingBox`; not within `letterbox`."""
OF_RICH = {"from rich import box", "shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)"}
"""Rich's name for the lines around a table."""


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


def modules() -> dict[str, str]:
    """Dotted name → source of every file of the package."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = ("retinue", *path.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path.read_text("utf-8")
    return found


def without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node, but for those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from without_type_checking(node)


def files_imported(source: str, known: Mapping[str, str]) -> set[str]:
    """The modules among `known` that a file imports, at its head or inside a function."""
    found = set()
    for node in without_type_checking(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in known else node.module or "")
    return found & set(known)


def circles(files: Mapping[str, str]) -> list[set[str]]:
    """The strongly connected components of more than one file (or of one that imports itself)."""
    arrows = {name: files_imported(source, files) for name, source in files.items()}
    reached: dict[str, set[str]] = {}
    for name in arrows:
        seen: set[str] = set()
        open_ends = list(arrows[name])
        while open_ends:
            if (end := open_ends.pop()) not in seen:
                seen.add(end)
                open_ends += arrows[end]
        reached[name] = seen
    found: list[set[str]] = []
    for name in sorted(arrows):
        if name in reached[name] and not any(name in circle for circle in found):
            found.append({other for other in reached[name] if name in reached[other]})
    return found


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


def test_no_file_imports_itself_over_others() -> None:
    # Being mended with the weights' room: a file of weights asks the folders what a folder holds.
    assert circles(modules()) == []


def test_a_circle_between_files_is_seen() -> None:
    files = {
        "retinue": "import importlib\n",
        "retinue.a.one": "from retinue.a import two\n",
        "retinue.a.two": "def late():\n    from retinue.b.three import Thing\n",
        "retinue.b.three": "import retinue.a.one\nfrom retinue.b.four import x\n",
        "retinue.b.four": "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from retinue.b.three import Thing\n",
        "retinue.a": "",
        "retinue.b": "",
    }
    assert circles(files) == [{"retinue.a.one", "retinue.a.two", "retinue.b.three"}]
    assert circles({**files, "retinue.b.three": ""}) == []
    assert circles({**files, "retinue.a": "from retinue.b import four\n",
                    "retinue.b.four": "from retinue.a import limit\n", "retinue.b.three": "",
                    }) == [{"retinue.a", "retinue.b.four"}]  # fmt: skip


def named_tasks(text: str) -> list[str]:
    return [match[0] for match in NAMES_OF_A_TASK.finditer(text)]


def test_the_frame_names_no_task() -> None:
    files = sorted({path for pattern in FRAME for path in SOURCE.glob(pattern)})
    found = {
        f"{path.relative_to(SOURCE)}:{number}": line.strip()
        for path in files
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if named_tasks(line) and line.strip() not in OF_RICH
    }
    assert found == {}


def test_a_task_that_is_named_is_seen() -> None:
    assert named_tasks('task: str = "classification"') == ["classification"]
    assert named_tasks("from retinue.tasks.detection import Detection") == [
        "detection",
        "Detection",
    ]
    assert named_tasks("batch.boxes, box_labels = add_Boxes(BoundingBox)") == [
        "boxes", "box", "Boxes", "BoundingBox",
    ]  # fmt: skip
    assert named_tasks("fit: Literal['letterbox'], boxed in, a classifier") == []


def test_the_frame_is_where_the_test_looks() -> None:
    assert [pattern for pattern in FRAME if not list(SOURCE.glob(pattern))] == []
