"""Clearing cached features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinue import api
from retinue.errors import RetinueError, UsageError
from retinue.inference.engine_cache import EngineCache, Graph
from retinue.training.features.cache import FeatureCache
from retinue.training.features.layouts import Layout, Pieces

LAYOUT = Layout([("x", "float32", (64,))])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    """Two spaces, of 30 and 10 rows, and what is not the cache's."""
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))
    cache = FeatureCache(tmp_path / "cache", 10**9)
    for key, rows in (("a" * 32, 30), ("b" * 32, 10)):
        with cache.space(key, LAYOUT) as space, space.writer(rows) as writer:
            keys = [bytes([i, *[0] * 15]) for i in range(rows)]
            writer.append(keys, {"x": np.zeros((rows, 64), np.float32)})
    (cache.root / "mine").mkdir()
    (cache.root / "mine" / "photo.jpg").write_bytes(b"kept")
    return cache


def _run(folder: Path, *spaces: str, **environment: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("model: resnet18\nstages: [{epochs: 1}]\n")
    trunk = {"head": {"units": 3, "spaces": list(spaces)}, "all": None}
    (folder / "environment.json").write_text(json.dumps(environment or {"trunk": trunk}))
    return folder


A, B = f"1-{'a' * 32}", f"1-{'b' * 32}"


def test_a_runs_own_features_go_and_nothing_else(cache: FeatureCache, tmp_path: Path) -> None:
    run = _run(tmp_path / "runs" / "one", A, "../runs", "mine")
    _run(tmp_path / "runs" / "two", A, B)
    _run(tmp_path / "runs" / "three", B)
    before = cache.sizes()
    assert set(before) == {A, B}
    told = api.clean(run, dry_run=True)
    assert cache.sizes() == before
    assert (told.freed, dict(told.spaces), told.kept) == (0, {A: before[A]}, before[B])
    assert [path.name for path in told.shared] == ["two"]
    done = api.clean(run)
    assert (done.freed, done.kept) == (before[A], before[B])
    assert set(cache.sizes()) == {B}
    assert not (cache.root / A).exists()
    assert (cache.root / "mine" / "photo.jpg").read_bytes() == b"kept"
    assert (run / "recipe.yaml").is_file()
    assert not api.clean(run).spaces


def test_compiled_engines_go_with_all_of_it_and_with_no_run(
    cache: FeatureCache, tmp_path: Path
) -> None:
    engines = EngineCache()
    assert engines.keep_graph("0" * 32, Graph("openvino", "openvino", {"xml": bytes(500)}, {}))
    size = sum(engines.sizes().values())
    assert api.clean(_run(tmp_path / "run", A)).engines == 0
    assert sum(engines.sizes().values()) == size > 500
    assert api.clean(dry_run=True).engines == size
    assert api.clean().engines == size
    assert engines.sizes() == {}


def test_what_a_space_holds_and_whose_it_is(
    cache: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the runs that lie here and in `runs`."""
    with cache.space("c" * 32, Pieces()) as space, space.writer(1) as writer:
        writer.add(bytes(16), bytearray(b"pixels"))
    _run(tmp_path / "runs" / "one", A)
    _run(tmp_path / "two", A, B)
    _run(tmp_path / "three", trunk={"head": 3}, packed={"spaces": None})  # of another's making
    monkeypatch.chdir(tmp_path)
    told = api.clean(dry_run=True)
    assert set(told.spaces) == {A, B, f"1-{'c' * 32}"}
    assert told.packed == {f"1-{'c' * 32}"}
    assert told.users == {A: ("two", "one"), B: ("two",)}


def test_all_of_it(cache: FeatureCache) -> None:
    total = sum(cache.sizes().values())
    assert api.clean(dry_run=True).kept == 0
    assert api.clean().freed == total
    assert cache.sizes() == {}
    assert (cache.root / "mine" / "photo.jpg").is_file()


def test_what_a_training_holds_stays(cache: FeatureCache) -> None:
    with cache.space("a" * 32, LAYOUT) as space:
        space.find([bytes([1, *[0] * 15])])
        done = api.clean()
        assert set(cache.sizes()) == {A}
        assert done.freed == sum(done.spaces.values()) - cache.sizes()[A]


def test_a_run_that_does_not_say(cache: FeatureCache, tmp_path: Path) -> None:
    older = _run(tmp_path / "older", trunk={"head": {"units": 3}})
    with pytest.raises(RetinueError, match=r"does not say which.*retinue clean --all"):
        api.clean(older)
    (older / "environment.json").unlink()
    with pytest.raises(RetinueError, match="does not say which"):
        api.clean(older)
    with pytest.raises(UsageError, match="no run folder"):
        api.clean(tmp_path)
    assert set(cache.sizes()) == {A, B}


def test_no_cache_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "nowhere"))
    assert api.clean().spaces == {}
    assert not (tmp_path / "nowhere").exists()
