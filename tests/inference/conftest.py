"""Fixtures that tests of predictions share."""

from __future__ import annotations

from pathlib import Path

import bright
import pytest
import torch
from engine_networks import Tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bright.model(tmp_path_factory.mktemp("model") / "best.safetensors")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny()
