"""What a training waits for: its data, the host that tells the device what to do, or the device.

Where it is the data or the host for a good part of a stage's time, that is said once, with what
would really mend it; it is written down always. Nothing waits for the device to find out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from retinue.data.cpus import Idleness, own_cpus
from retinue.data.growth import IDLE, to_spare
from retinue.run.log import LOGGER
from retinue.run.progress import Progress
from retinue.training.feeds import ImageFeed
from retinue.training.options import StageOptions
from retinue.training.stage_data import StageData

MATTERS = 0.2
"""The share of a stage's time from which on it is said."""
OF_PROCESSORS = 0.3
"""The share of the processors' time, where network and images share them."""
LONG_ENOUGH = 20.0
"""Seconds of a stage's steps from which on shares are steady."""
Spent = dict[str, float]
"""Seconds of the `steps`, and of these waited for `data` and for the `host`; what `threads` spent
on images, what of that a processor worked (`reading`), and what processors worked in all
(`processors`); and how many `images` these were."""


@dataclass(frozen=True)
class Supply:
    """Where a stage's images come from, as far as it tells what would bring them sooner."""

    key: str
    """Of the stage, `stages.0`."""
    accumulate: int = 1
    cached: bool = False
    """They are features of the cache."""
    packed: bool = False
    """They were made small beforehand."""
    views: bool = False
    """A part of the network is frozen, and would be cached if the stage had `views`."""
    workers: int = 0
    """Threads that read and render them."""
    grows: bool = False
    """There are more of them where that brings more images."""
    processors: int = 1
    """How many fall to this process."""
    spare: bool = True
    """The machine has some to spare, whoever else works there."""

    @classmethod
    def of(
        cls, data: StageData, stage: StageOptions, key: str, cut: int, *, spare: bool = True
    ) -> Supply:
        """That of the `stage` called `key` in the recipe, whose network can be cut before the unit
        `cut`: what lies before it is frozen."""
        feed, augment = data.train, stage.augment
        frozen = data.cached is None and cut > 0 and stage.cache_features != "off"
        return cls(
            key,
            accumulate=stage.accumulate,
            cached=data.cached is not None,
            packed=data.packed is not None,
            views=frozen and stage.views is None and augment.draws and not augment.mixes_pixels,
            workers=feed.loader.workers if isinstance(feed, ImageFeed) else 0,
            grows=isinstance(feed, ImageFeed) and feed.loader.grows,
            processors=own_cpus(),
            spare=spare,
        )


class Event(Protocol):
    """A place in the device's queue."""

    def record(self) -> None:
        """It is after all that the device was told so far."""

    def query(self) -> bool:
        """Whether the device has come to it."""


class _Event:
    """One of a CUDA `device`, which need not be the one that is PyTorch's current one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def record(self) -> None:
        self._event.record(torch.cuda.current_stream(self._device))

    def query(self) -> bool:
        return bool(self._event.query())  # type: ignore[no-untyped-call]


class Waiting:
    """Notes what each step of a stage waits for, in the `progress` of the training.

    What was waited for images counts where the device had nothing left to do when they came. The
    rest of a step is the host's where the device was not behind when the step had been told, and
    the device's otherwise. A processor computes while it is told: there is no `host` there.
    """

    def __init__(
        self,
        progress: Progress,
        stage: StageOptions,
        data: StageData,
        cut: int,
        device: torch.device,
        event: Callable[[torch.device], Event] = _Event,
    ) -> None:
        """`cut`: the last place where the network can be cut with nothing before it that learns.
        `event` makes one, on a CUDA device."""
        self._stage, self._data, self._cut = stage, data, cut
        self._key = f"stages.{progress.stage}"
        self._spent: Spent = progress.waited.setdefault(stage.name, {})
        self._epoch: Spent = progress.epoch_waited
        beside = device.type == "cuda"
        self._learnt: Event | None = event(device) if beside else None
        self._done: Event | None = event(device) if beside else None
        self._idle = True
        self._earlier = self._spent.get("steps", 0.0)
        self._said = False
        self._idleness = Idleness()
        self.begin()

    def begin(self) -> None:
        """What was done between steps, for an epoch's validation say, does not count."""
        self._before = self._data.train.work.copy()
        self._processors = time.process_time()

    def came(self) -> None:
        """The step's images are there."""
        self._idle = self._done is None or self._done.query()

    def learnt(self) -> None:
        """Forward and backward were told; the update comes."""
        if self._learnt is not None:
            self._learnt.record()

    def step(self, seconds: float) -> None:
        """The step was told, and took `seconds` from the one before it."""
        now, processors = self._data.train.work, time.process_time()
        work = now.since(self._before)
        data = min(work.waited, seconds) if self._idle else 0.0
        host = 0.0
        if self._learnt is not None and self._done is not None:
            host = seconds - data if self._learnt.query() else 0.0
            self._done.record()
        noted = {
            "steps": seconds,
            "data": data,
            "host": host,
            "images": float(work.images),
            "threads": work.busy,
            "reading": work.computed,
            "processors": processors - self._processors,
        }
        for total in (self._spent, self._epoch):
            for name, value in noted.items():
                total[name] = total.get(name, 0.0) + value
        self._before, self._processors = now.copy(), processors
        if not self._said and self._spent["steps"] - self._earlier >= LONG_ENOUGH:
            self._said = True
            if told := self.told():
                LOGGER.info("stage %s %s", self._stage.name, told)

    def told(self) -> str | None:
        """What holds the stage up, and what mends it; None: nothing that matters."""
        spare = to_spare(self._idleness)
        supply = Supply.of(self._data, self._stage, self._key, self._cut, spare=spare)
        return bottleneck(self._spent, supply, shared=self._learnt is None)

    def columns(self) -> dict[str, float]:
        """Of the running epoch, for its row; the next one begins."""
        told = shares(self._epoch)
        self._epoch.clear()
        if self._learnt is None:
            told.pop("host")
        return {f"waited_for_{name}": round(share, 4) for name, share in told.items()}


def shares(spent: Spent) -> dict[str, float]:
    """What was waited for `data` and for the `host`, of the steps' time."""
    steps = max(spent.get("steps", 0.0), 1e-9)
    return {name: min(spent.get(name, 0.0) / steps, 1.0) for name in ("data", "host")}


def bottleneck(spent: Spent, supply: Supply, *, shared: bool) -> str | None:
    """What holds the training up, and what mends it; None: nothing that matters. `shared`: network
    and images share the processors."""
    told = shares(spent)
    data, host = told["data"], told["host"]
    reading = spent.get("reading", 0.0) / max(spent.get("processors", 0.0), 1e-9)
    if host >= max(MATTERS, data):
        return f"waits for Python to tell the device what to do for {host:.0%} of its time: " + (
            f"{supply.key}.accumulate=1 gives it more to do at once"
            if supply.accumulate > 1
            else f"a larger {supply.key}.batch_size gives it more to do at once, compile=true less"
            " to be told"
        )
    waits = spent.get("reading", 0.0) < spent.get("threads", 0.0) / 2
    if supply.cached and not waits:
        return None  # nothing is read that could be read sooner
    what = "cached features" if supply.cached else "images"
    rate = spent.get("images", 0.0) / max(spent.get("steps", 0.0), 1e-9)
    by = f", {supply.workers} threads" if supply.workers > 1 else ""
    if data >= MATTERS:
        said = f"waits for {what} {data:.0%} of its time ({rate:,.0f} a second{by})"
    elif shared and reading >= OF_PROCESSORS:
        said = f"takes {reading:.0%} of the processors' time for {what} ({rate:,.0f} a second)"
        waits = False  # it is what they compute that matters
    else:
        return None
    return f"{said}: {_remedy(spent, supply, waits=waits)}"


def _remedy(spent: Spent, supply: Supply, *, waits: bool) -> str:
    """What brings images sooner; `waits`: their threads wait for the disk more than they work."""
    if supply.cached:
        return "a faster disk for cache.folder brings them sooner"
    if supply.views:
        return (
            f"{supply.key}.views=4 computes what is frozen once for so many views of each image,"
            " and then reads no images any more"
        )
    steps = max(spent.get("steps", 0.0), 1e-9)
    idle = supply.spare and spent.get("processors", 0.0) < IDLE * supply.processors * steps
    if idle and waits:
        more = "" if supply.grows else ", or data.workers=auto takes as many threads as bring more"
        if supply.packed:
            return f"the disk is slow; a faster one for cache.folder helps{more}"
        return f"their disk is slow; data.packed=auto keeps them small on this one{more}"
    if idle and supply.workers < supply.processors:
        return f"data.workers={supply.processors} takes all processors"
    if supply.packed:
        return "all processors are busy; smaller ones (input.size) or less augmentation take less"
    return "data.packed=auto keeps them small and decoded"
