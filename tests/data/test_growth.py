"""More threads where they wait for a disk, as long as that brings more; and the same batches."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from rows import plan_of

from retinue.data import growth, loader
from retinue.data.growth import Growth
from retinue.data.loader import Loader
from retinue.data.options import AugmentOptions
from retinue.data.targets.one_class import OneClass
from retinue.data.views import TrainView
from retinue.data.work import Work
from retinue.sample import Preprocessing, Sample

picture, encoded = sys.modules["salted"].picture, sys.modules["salted"].encoded


class _Machine:
    """Two processors. A file takes `latency` seconds to come, and decoding it `decoding`; no more
    than `most` come a second. The caller takes `wants` of them a second, if they are there."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, latency: float, decoding: float = 1e-3,
        most: float = 1e9, wants: float = 1e9,
    ) -> None:  # fmt: skip
        self.now = self.computed = 0.0
        self.idle: float | None = None
        self.latency, self.decoding, self.most, self.wants = latency, decoding, most, wants
        self.work = Work()
        clock = SimpleNamespace(perf_counter=lambda: self.now, process_time=lambda: self.computed)
        monkeypatch.setattr(growth, "time", clock)
        monkeypatch.setattr(growth, "Idleness", lambda: SimpleNamespace(share=lambda: self.idle))

    def run(self, seconds: float = 20.0) -> list[int]:
        """How many threads there are, from change to change."""
        made = Growth(2, 2, self.work)
        said = [2]
        while self.now < seconds:
            threads = made.workers
            comes = min(threads / (self.latency + self.decoding), self.most, 2 / self.decoding)
            rate = min(comes, self.wants)
            waited = 0.1 * (1 - rate / self.wants) if rate < self.wants else 0.0
            self.now += 0.1
            images = 0.1 * rate
            self.work += Work(
                round(images), waited, images * (self.latency + self.decoding),
                images * self.decoding,
            )  # fmt: skip
            self.computed += images * self.decoding
            if made.wanted(self.work) != said[-1]:
                said.append(made.workers)
        return said


def test_threads_double_while_that_brings_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _Machine(monkeypatch, latency=0.1).run() == [2, 4, 8, 16, 32, 64]


def test_threads_that_bring_nothing_go_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network brings 150 a second: 15 threads' worth, of which there are 8, then 16."""
    assert _Machine(monkeypatch, latency=0.1, most=150).run() == [2, 4, 8, 16, 32, 16]


@pytest.mark.parametrize(
    "how",
    [
        {"latency": 0.0, "decoding": 0.01},  # the processors decode
        {"latency": 0.005, "decoding": 0.01},
        {"latency": 0.1, "wants": 15.0},  # nobody waits
    ],
)
def test_where_threads_would_not_help_there_are_no_more(
    monkeypatch: pytest.MonkeyPatch, how: dict[str, float]
) -> None:
    assert _Machine(monkeypatch, **how).run() == [2]


def _slow(k: int) -> Sample:
    image = encoded(picture(k), "JPEG")

    def read() -> bytes:
        time.sleep(0.01)
        return image

    return Sample(f"{k}.jpg", read, OneClass(k % 3, 3))


DATA = [_slow(k) for k in range(12)]
VIEW = TrainView(AugmentOptions(crop_scale=(0.3, 1)), Preprocessing(size=(16, 16)), 0)
PLANS = [plan_of(DATA, list(range(12)), epoch=epoch) for epoch in range(20)]


def test_threads_that_wait_for_busy_processors_are_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = _Machine(monkeypatch, latency=0.1)
    machine.idle = 0.1
    assert machine.run() == [2]


def test_a_loader_grows_and_gives_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "WINDOW", 0.02)
    monkeypatch.setattr(growth, "to_spare", lambda idleness: True)  # whatever else runs here
    grows = Loader(VIEW, DATA, workers="auto")
    first = grows.workers
    grown = list(grows.batches(PLANS))
    assert grows.workers > first
    fixed = Loader(VIEW, DATA, workers=3)
    for mine, other in zip(grown, fixed.batches(PLANS), strict=True):
        assert torch.equal(mine.images, other.images)
    assert fixed.workers == 3
    assert grows.work.images == fixed.work.images == 240
    assert grows.work.busy > 2.4 > grows.work.computed


def test_what_one_walk_has_found_out_the_next_does_not_try_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(growth, "WINDOW", 0.02)
    monkeypatch.setattr(growth, "to_spare", lambda idleness: True)  # whatever else runs here
    monkeypatch.setattr(growth, "GAIN", 1e9)  # more threads bring nothing
    caplog.set_level("INFO", "retinue")
    grows = Loader(VIEW, DATA, workers="auto")
    first = grows.workers
    for _ in range(3):
        list(grows.batches(PLANS))
        assert grows.workers == first
    said = [record.message for record in caplog.records if "threads read" in record.message]
    assert [line.split()[0] for line in said] == [str(2 * first), str(first)]


def test_a_walk_that_ends_early_begins_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What still waits for a thread goes, of all pools, before any of them is waited for."""
    monkeypatch.setattr(growth, "WINDOW", 0.02)
    ended: list[tuple[ThreadPoolExecutor, bool]] = []

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            if cancel_futures:
                ended.append((self, wait))
            super().shutdown(wait, cancel_futures=cancel_futures)

    monkeypatch.setattr(loader, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(growth, "to_spare", lambda idleness: True)  # whatever else runs here
    grows = Loader(VIEW, DATA, workers="auto")
    first, walk = grows.workers, grows.batches(PLANS)
    while grows.workers == first:
        next(walk)
    walk.close()
    pools = [pool for pool, wait in ended if not wait]
    assert len(pools) > 1
    assert ended == [(pool, wait) for wait in (False, True) for pool in pools]
