"""Tasks are known by name, and bring their formats with them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from retinue.data.sources.listing import Reader
from retinue.errors import UsageError
from retinue.tasks import task as module
from retinue.tasks.classification.task import Classification
from retinue.tasks.shipped import DEFAULT
from retinue.tasks.task import register_task, task_names, task_type


@pytest.fixture(autouse=True)
def tasks_as_before() -> Iterator[None]:
    known = dict(module._TASKS)
    yield
    module._TASKS.clear()
    module._TASKS.update(known)


def test_the_task_is_found_by_name() -> None:
    assert task_type("classification") is Classification
    assert task_type(DEFAULT) is Classification
    with pytest.raises(UsageError, match="'classification'"):
        task_type("clasification")


def test_a_task_of_ones_own() -> None:
    class Sorting(Classification):
        name: ClassVar[str] = "sorting"

    assert register_task(Sorting) is Sorting
    assert register_task(Sorting) is Sorting  # a file that is run twice
    assert task_type("sorting") is Sorting
    assert {"classification", "sorting"} <= set(task_names())
    assert task_names() == sorted(set(task_names()))

    class Other(Classification):
        name: ClassVar[str] = "sorting"

    with pytest.raises(ValueError, match="'sorting' is already registered"):
        register_task(Other)


def test_readers_are_the_formats_in_their_order() -> None:
    readers = Classification.readers()
    known = ["elpv", "digits", "tfrecord", "webdataset", "table", "folder"]
    assert list(readers) == list(Classification.formats) == known
    assert all(isinstance(reader, Reader) for reader in readers.values())
    assert all(name == reader.name for name, reader in readers.items())


def test_a_sketch_has_figures_before_any_data_is_read() -> None:
    sketch = Classification.sketch(Classification.options_type())
    assert Classification.default_metric in [figure.name for figure in sketch.figures()]


def test_a_task_without_merging_says_so() -> None:
    class Plain(Classification):
        merge: Any = module.Task.merge

    with pytest.raises(UsageError, match="test-time augmentation"):
        Plain(["a", "b"]).merge([])


def test_tasks_of_packages_are_known_and_looked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a package that comes to be there only while the process runs."""
    before = task_names()
    about = tmp_path / "sorters-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sorters\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[retinue.tasks]\nsort = sorters:Sort\n")
    (tmp_path / "sorters.py").write_text(
        "from retinue.tasks.classification.task import Classification\n"
        "class Sort(Classification):\n    name = 'sort'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert task_names() == sorted([*before, "sort"])
    monkeypatch.setattr(importlib.metadata, "entry_points", None)
    assert task_names() == sorted([*before, "sort"])
    assert task_type("sort").name == "sort"
    monkeypatch.undo()
    del module._TASKS["sort"]
    assert task_names() == before
