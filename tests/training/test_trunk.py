from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from retinue.errors import RetinueError
from retinue.sample import Batch
from retinue.training import trunk
from retinue.training.feeds import Plan

COUNT, VIEWS = 11, 2


class Numbers:
    """Images that are noise by position and view; the label tells both."""

    cut = 0

    def batches(self, plan: Plan, *, epoch: int) -> Iterator[Batch]:
        for positions in plan:
            images = [
                torch.randn(
                    3, 32, 32, generator=torch.Generator().manual_seed(100 * epoch + int(i))
                )
                for i in positions
            ]
            yield Batch(
                images=torch.zeros(len(positions), 3, 1, 1, dtype=torch.uint8),
                index=torch.from_numpy(positions),
                paths=[f"{i}" for i in positions],
                labels=torch.from_numpy(positions) + 100 * epoch,
                inputs=torch.stack(images),
            )


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk, "CHUNK", 2)
    monkeypatch.setattr(trunk, "SECONDS_BETWEEN_WRITES", 0.0)


def _cache(folder: Path) -> trunk.CachedFeed:
    torch.manual_seed(0)
    return trunk.cache_trunk(
        tiny.Tiny(num_classes=3),
        2,
        Numbers(),
        count=COUNT,
        views=VIEWS,
        folder=folder,
        facts=None,
        engine="torch",
        device=torch.device("cpu"),
        each_chunk=lambda done, total: None,
        say=lambda line: None,
    )


def _everything(feed: trunk.CachedFeed) -> list[tuple[torch.Tensor, list[int], list[str]]]:
    found = []
    for epoch in range(VIEWS):
        (batch,) = feed.batches([np.arange(COUNT)], epoch=epoch)
        assert batch.labels is not None
        found.append((batch.inputs, batch.labels.tolist(), batch.paths))
    return found


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("number", [1, 3, 6, 9])
def test_stopped_between_two_writes_the_targets_stay_with_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, before: bool
) -> None:
    """The targets are written, the index that tells how many are valid not yet (or just now)."""
    whole = _everything(_cache(tmp_path / "whole"))
    expected = [100 * (i % VIEWS) + i for i in range(COUNT)]
    assert whole[0][1] == expected
    real, calls = trunk.write_text, []

    def stopped(path: Path, text: str) -> None:
        calls.append(1)
        if not before:
            real(path, text)
        if len(calls) == number:
            raise KeyboardInterrupt
        if before:
            real(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(trunk, "write_text", stopped)
        with pytest.raises(KeyboardInterrupt):
            _cache(tmp_path / "stopped")
    for ours, theirs in zip(_everything(_cache(tmp_path / "stopped")), whole, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert ours[1:] == theirs[1:]


def test_a_full_disk_is_told_before_a_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RetinueError, match=r"No space left.*state0\.f16.*cache_features=off"):
        _cache(tmp_path / "cache")
