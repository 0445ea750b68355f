from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from warm import Warm

from retinue.training.features.frozen import FrozenPart


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 small pictures of three classes."""
    return tiny.write_pictures(tmp_path_factory.mktemp("pictures") / "data")


@pytest.fixture(scope="module")
def torch_alone() -> Iterator[None]:
    """`only_torch` for a whole module, its fixtures included."""
    with pytest.MonkeyPatch.context() as patch:
        for package in ("openvino", "onnxruntime"):
            patch.setitem(sys.modules, package, None)
        yield


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Trains in processes of their own."""
    started = Warm()
    yield started
    started.close()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the frozen part computed."""
    counts: list[int] = []
    real = FrozenPart.fields

    def fields(self: FrozenPart, engine: Any, inputs: Any, *taught: Any) -> Any:
        counts.append(len(inputs))
        return real(self, engine, inputs, *taught)

    monkeypatch.setattr(FrozenPart, "fields", fields)
    return counts


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    """Also for trainings in fixtures of a module: another number rounds in another way."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _tiny_network() -> None:
    tiny.register()
    torch.set_num_threads(1)
