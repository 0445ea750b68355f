"""A cache of features with room, and a space in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cached_rows import LAYOUT, PLENTY

from retinue.training.features import cached_views
from retinue.training.features.cache import FeatureCache, Space


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", PLENTY)


@pytest.fixture
def space(cache: FeatureCache) -> Iterator[Space]:
    with cache.space("a", LAYOUT) as space:
        yield space


@pytest.fixture
def folder(cache: FeatureCache) -> Path:
    return cache.root / "1-a"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_views, "CHUNK", 2)
    monkeypatch.setattr("retinue.training.features.segments.SECONDS_BETWEEN_FLUSHES", 0.0)
