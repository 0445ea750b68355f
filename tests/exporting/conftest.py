"""What tests of exports share."""

from __future__ import annotations

from pathlib import Path

import exports
import pytest


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exports.photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exports.model(tmp_path_factory.mktemp("model") / "best.safetensors")


@pytest.fixture
def model(_model: Path, tmp_path: Path) -> Path:
    """Of a classifier, alone in its folder."""
    place = tmp_path / "best.safetensors"
    place.write_bytes(_model.read_bytes())
    return place
