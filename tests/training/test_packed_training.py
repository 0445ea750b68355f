"""Trainings on images that were made small."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

import retinue
from retinue import api

pytestmark = pytest.mark.usefixtures("only_torch")


@pytest.fixture
def large(tmp_path: Path, pictures: Path) -> Path:
    """The pictures, old enough to be known by their time."""
    for path in pictures.rglob("*.*"):
        os.utime(path, ns=(10**18, 10**18))
    return pictures


def _train(place: Path, data: Path, **more: Any) -> dict[str, torch.Tensor]:
    stage = {"epochs": 1, "batch_size": 8, "augment": {"crop_scale": [0.5, 1.0]}}
    values = tiny.recipe(data, stages=[stage], ema=None)
    retinue.train(values, out=place, report=False, quiet=True, overrides=more)
    return load_file(place / "best.safetensors")


def test_the_cache_changes_nothing_but_the_time(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))
    kept = _train(tmp_path / "kept", large, **{"data.packed": 16})
    environment = json.loads((tmp_path / "kept" / "environment.json").read_text())
    assert environment["packed"]["side"] == 16
    assert environment["packed"]["images"] > 0
    told = api.clean(tmp_path / "kept", dry_run=True)
    assert set(told.spaces) == set(environment["packed"]["spaces"])
    (tmp_path / "file").touch()
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "file" / "cache"))
    without = _train(tmp_path / "without", large, **{"data.packed": 16})
    assert all(torch.equal(kept[name], without[name]) for name in kept)
