"""Fixtures that tests of predictions share."""

from __future__ import annotations

from pathlib import Path

import bright
import pytest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bright.model(tmp_path_factory.mktemp("model") / "best.safetensors")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
