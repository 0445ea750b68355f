"""What the benchmark of `retinue predict` tells is what it has seen."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def predict() -> Iterator[ModuleType]:
    before = {*sys.modules}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("predict")
    for name in {*sys.modules} - before:
        if (FOLDER / f"{name}.py").is_file():
            del sys.modules[name]


def test_memory_is_compared_after_a_tenth_and_at_the_end(predict: ModuleType) -> None:
    """The start, where everything is loaded, does not count, nor does what comes and goes."""
    seen = [(0, 900.0), (5, 950.0), (10, 300.0), (15, 310.0), (25, 500.0), (90, 330.0), (100, 320)]
    assert predict.growth(seen) == (310.0, 330.0)
    with pytest.raises(SystemExit, match="too few"):
        predict.growth([(0, 1.0), (100, 1.0)])


def test_links_have_names_of_their_own(predict: ModuleType, tmp_path: Path) -> None:
    photographs = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for path in photographs:
        path.write_text(path.name)
    folder = predict.linked(photographs, tmp_path / "many", 1003)
    found = sorted(folder.rglob("*.jpg"))
    assert len({path.name for path in found}) == 1003
    assert [path.read_text() for path in found[-2:]] == ["b.jpg", "a.jpg"]
    assert len(list(folder.iterdir())) == 2


def test_answers_of_both_sides_are_told_by_file(predict: ModuleType, tmp_path: Path) -> None:
    rows = [{"path": "x/a.jpg", "best": 3}, {"path": "y/b.jpg", "best": 4}]
    (tmp_path / "said").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = predict.best(tmp_path / "said", "path", lambda row: row["best"])
    assert said == {"a.jpg": "3", "b.jpg": "4"}
