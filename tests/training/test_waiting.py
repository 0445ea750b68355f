"""What a training waits for is told apart, with what mends it: by hand, and in one that does."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

import retinue
from retinue.data.loader import Loader
from retinue.data.work import Work
from retinue.run.progress import Progress
from retinue.training import waiting
from retinue.training.options import StageOptions
from retinue.training.waiting import Supply, Waiting, bottleneck, shares

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class _Queue:
    """A device that works off what it is told when `run` is called, and says how far it is."""

    def __init__(self) -> None:
        self.told = self.done = 0

    def tell(self) -> None:
        self.told += 1

    def run(self, all_but: int = 0) -> None:
        self.done = self.told - all_but

    def event(self, _: torch.device) -> Any:
        place = SimpleNamespace(at=0)

        def record() -> None:
            self.told += 1
            place.at = self.told

        return SimpleNamespace(record=record, query=lambda: self.done >= place.at)


def _waiting(device: torch.device, queue: _Queue | None = None) -> tuple[Waiting, Work, Progress]:
    work, progress = Work(), Progress()
    stage = StageOptions.model_validate({"name": "all", "epochs": 1})
    data: Any = SimpleNamespace(train=SimpleNamespace(work=work), cached=None, packed=None)
    event = (queue or _Queue()).event
    return Waiting(progress, stage, data, 0, device, event), work, progress


def test_a_processor_waits_for_images_or_computes() -> None:
    noted, work, progress = _waiting(CPU)
    for waited, seconds in ((1.0, 4.0), (2.0, 4.0)):
        work += Work(8, waited, 3.0, 2.5)
        noted.came()
        noted.learnt()
        noted.step(seconds)
    assert {k: v for k, v in progress.waited["all"].items() if k != "processors"} == {
        "steps": 8.0, "data": 3.0, "host": 0.0, "images": 16.0, "threads": 6.0, "reading": 5.0,
    }  # fmt: skip
    assert noted.columns() == {"waited_for_data": 0.375}
    assert progress.epoch_waited == {}
    work += Work(8, 9.0, 9.0, 9.0)  # between epochs
    noted.begin()
    noted.came()
    noted.step(2.0)
    assert noted.columns() == {"waited_for_data": 0.0}
    assert progress.waited["all"]["steps"] == 10.0


@pytest.mark.parametrize(
    ("behind", "busy", "wanted"),
    [
        # Images came late, and the device had nothing left to do.
        (True, False, {"waited_for_data": 0.75, "waited_for_host": 0.0}),
        # They came late, but the device still worked on the step before.
        (True, True, {"waited_for_data": 0.0, "waited_for_host": 0.0}),
        # The device was done with everything as soon as it was told.
        (False, False, {"waited_for_data": 0.75, "waited_for_host": 0.25}),
    ],
)
def test_a_device_waits_for_images_the_host_or_nobody(
    behind: bool, busy: bool, wanted: dict[str, float]
) -> None:
    queue = _Queue()
    noted, work, _ = _waiting(CUDA, queue)
    noted.came()
    noted.step(1.0)
    noted.columns()
    queue.tell()
    if not busy:
        queue.run()
    work += Work(8, 3.0, 3.0, 3.0)
    noted.came()
    queue.tell()  # forward and backward
    noted.learnt()
    queue.tell()  # the update
    queue.run(all_but=2 if behind else 1)
    noted.step(4.0)
    assert noted.columns() == wanted


def test_the_queue_is_that_of_the_training_s_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of PyTorch's current one, on which nothing happens, and every event has come."""
    noted: list[str] = []
    event = SimpleNamespace(record=noted.append, query=lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    progress, data = Progress(), SimpleNamespace(train=SimpleNamespace(work=Work()))
    stage = StageOptions.model_validate({"name": "all", "epochs": 1})
    second = Waiting(progress, stage, data, 0, torch.device("cuda:1"))  # type: ignore[arg-type]
    second.learnt()
    second.step(1.0)
    assert noted == ["the stream of cuda:1"] * 2


def test_a_share_is_never_more_than_all() -> None:
    noted, work, _ = _waiting(CPU)
    work += Work(8, 5.0, 5.0, 5.0)
    noted.came()
    noted.step(2.0)
    assert noted.columns() == {"waited_for_data": 1.0}
    assert shares({}) == {"data": 0.0, "host": 0.0}


def _spent(**changes: float) -> dict[str, float]:
    """100 s on 4 processors, which are all busy, 60 of them without images."""
    usual = {"steps": 100.0, "data": 40.0, "host": 0.0, "images": 5000.0, "threads": 160.0,
             "reading": 150.0, "processors": 390.0}  # fmt: skip
    return usual | changes


HERE = Supply("stages.1", workers=4, processors=4)


@pytest.mark.parametrize(
    ("changes", "supply", "shared", "wanted"),
    [
        ({}, HERE, True, "waits for images 40% of its time (50 a second, 4 threads):"
         " data.packed=auto keeps"),
        ({}, replace(HERE, packed=True), True, "input.size"),
        ({}, replace(HERE, views=True), True, "stages.1.views=4"),
        ({"processors": 120.0}, replace(HERE, workers=1), True, "data.workers=4 takes all"),
        ({"processors": 120.0, "reading": 20.0}, HERE, True,
         "keeps them small on this one, or data.workers=auto takes"),
        ({"processors": 120.0, "reading": 20.0}, replace(HERE, packed=True), True, "cache.folder"),
        ({"data": 19.0, "reading": 50.0}, HERE, True, None),
        ({"data": 19.0}, HERE, True, "takes 38% of the processors' time for images"),
        ({"data": 19.0}, HERE, False, None),
        # Others keep the processors busy: its threads wait for those, not for a disk.
        ({"processors": 120.0, "reading": 20.0}, replace(HERE, spare=False), True,
         "4 threads): data.packed=auto keeps them small and decoded"),
        ({"processors": 120.0}, replace(HERE, workers=1, spare=False), True, "data.packed=auto"),
        # It is not waited for: a slow disk is no matter.
        ({"data": 19.0, "processors": 120.0, "reading": 70.0}, HERE, True,
         "takes 58% of the processors' time for images (50 a second): data.packed=auto keeps them"
         " small and decoded"),
        ({"host": 60.0}, HERE, False, "Python to tell the device what to do for 60%"),
        ({"host": 60.0}, replace(HERE, accumulate=4), False, "stages.1.accumulate=1"),
        ({"host": 30.0}, HERE, False, "waits for images 40%"),
        ({}, replace(HERE, cached=True), True, None),
        ({"reading": 20.0}, replace(HERE, cached=True), True, "cached features 40% of its time"),
    ],
)  # fmt: skip
def test_what_is_said_is_what_mends_it(
    changes: dict[str, float], supply: Supply, shared: bool, wanted: str | None
) -> None:
    told = bottleneck(_spent(**changes), supply, shared=shared)
    assert (told is None) == (wanted is None)
    assert wanted is None or wanted in str(told)


def test_a_process_beside_others_that_is_busy_is_not_told_to_take_all_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 8 processors 2 are its own, and its one thread and the network keep them busy."""
    for name in ("sched_getaffinity", "cpu_count"):
        count = set(range(8)) if name == "sched_getaffinity" else 8
        monkeypatch.setattr(os, name, lambda *_, count=count: count, raising=False)
    monkeypatch.setattr("retinue.data.cpus._quotas", lambda root: iter(()))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    data: Any = SimpleNamespace(train=None, cached=None, packed=None)
    stage = StageOptions.model_validate({"name": "all", "epochs": 1})
    supply = replace(Supply.of(data, stage, "stages.0", 0), workers=1)
    told = bottleneck(_spent(processors=190.0), supply, shared=True)
    assert told is not None
    assert "data.packed=auto" in told
    assert "workers" not in told


def _slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    real = Loader._render

    def render(self: Loader, *given: Any) -> Any:
        time.sleep(seconds)
        return real(self, *given)

    monkeypatch.setattr(Loader, "_render", render)


def test_a_training_on_a_slow_disk_says_so_once_and_writes_it_down(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    _slow(monkeypatch, 0.01)
    monkeypatch.setattr(waiting, "LONG_ENOUGH", 0.15)
    monkeypatch.setattr(waiting, "to_spare", lambda idleness: True)  # whatever else runs here
    caplog.set_level(logging.INFO)
    stage = {"name": "own", "epochs": 2, "batch_size": 8}
    recipe = tiny.recipe(pictures, stages=[stage], ema=None)
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    (line,) = [r.getMessage() for r in caplog.records if "waits for" in r.getMessage()]
    assert line.startswith("stage own waits for images ")
    assert "data.packed=auto" in line
    assert "data.workers=auto" in line  # the recipe has 1
    rows = tiny.rows(run.folder)
    assert all(float(row["waited_for_data"]) > 0.3 for row in rows)
    told = json.loads((run.folder / "environment.json").read_text())["waited"]["own"]
    assert told["steps"] > told["data"] > 0.3 * told["steps"]
    assert told["reading"] < told["threads"] / 2
    assert told["images"] == 2 * int(rows[0]["step"]) * 8
