"""Fixtures that every room's tests share."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from salted import SaltedFolder

# Several processes of tests (`pytest -n`) have a core each, and before anything loads OpenMP.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before anything else: no test writes into the user's cache.
os.environ["RETINUE_CACHE"] = tempfile.mkdtemp(prefix="retinue-test-cache-")
atexit.register(shutil.rmtree, os.environ["RETINUE_CACHE"], ignore_errors=True)


def _without_a_disk(file: Any) -> None:
    """In place of `os.fsync`, on which trainings in tests would spend most of their time. No test
    can see what survives a power cut; that everything is synced, and when, tests see all the same
    (test_files.py), and what is no file is refused. Processes that tests kill do wait for the disk.
    """
    os.fstat(file if isinstance(file, int) else file.fileno())


os.fsync = _without_a_disk

# How long an example takes says nothing on a machine that has other work.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

SHARED = Path(__file__).resolve().parents[2] / "shared"


MOST_PROCESSES = 8
"""Of tests: each imports PyTorch anew and comes to a gigabyte."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` comes to: the processors that this process may use, by affinity and quota."""
    from retinue.data.cpus import usable_cpus

    return min(usable_cpus(), MOST_PROCESSES)


_modules = 0


def pytest_runtest_setup() -> None:
    """What has been imported stays, so nobody need look whether it is garbage: each training
    collects that between its stages, and going over all of PyTorch takes longer than the stage."""
    global _modules
    if len(sys.modules) > _modules + 50:
        gc.collect()
        gc.freeze()
        _modules = len(sys.modules)


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("data/flowers5")`: real material beside the project; the test skips without it."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"needs {relative}, which is not here")
        return path

    return find


@pytest.fixture
def only_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO and ONNX Runtime are not installed, so that `auto` compiles nothing: for tests that
    are not about engines."""
    for package in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)


def _load_salted() -> ModuleType:
    """tests/salted.py; `--import-mode=importlib` leaves the folder out of the search path."""
    spec = importlib.util.spec_from_file_location("salted", Path(__file__).with_name("salted.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["salted"] = module
    spec.loader.exec_module(module)
    return module


_salted = _load_salted()


@pytest.fixture
def salted(tmp_path: Path) -> SaltedFolder:
    """A small folder data set with everything odd and bad in it: see tests/salted.py."""
    folder: SaltedFolder = _salted.build(tmp_path / "salted")
    return folder
