"""Batches from plans, read and rendered by threads.

Decoder and warp release the interpreter's lock, so threads scale; each writes its row of a batch in
place, and the batch is handed over without a copy. What a batch contains depends on the plan alone,
never on the number of threads.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np

from retinue.data import complaints
from retinue.data.cpus import own_cpus, usable_cpus
from retinue.data.growth import Growth
from retinue.data.readable import unreadable
from retinue.data.views import Seen, View
from retinue.data.work import Work, worked
from retinue.errors import BadImageError
from retinue.sample import Batch, BatchPlan, ImageSize, Pixels, Row, Sample, Size, Target

if TYPE_CHECKING:  # a batch of arrays need not wait for torch
    from torch import Tensor

BadImages = Literal["stop", "substitute", "drop"]
LOGGER = logging.getLogger("retinue")


def worker_count(workers: int | Literal["auto"]) -> int:
    """Threads to use: for `auto`, one for every CPU that this process may use, at most 16."""
    return min(usable_cpus(), 16) if workers == "auto" else workers


def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="retinue-loader")


def in_order(samples: Iterable[Sample], batch_size: int, size: Size) -> Iterator[BatchPlan]:
    """Plans of `batch_size` rows each for `samples` one after the other, each counting once,
    without knowing how many there are. `size` (height, width) is the network's input."""
    rows: list[Row] = []
    for key, sample in enumerate(samples):
        rows.append(Row(key, (sample,)))
        if len(rows) == batch_size:
            yield BatchPlan(rows, size, total=len(rows))
            rows = []
    if rows:
        yield BatchPlan(rows, size, total=len(rows))


class Rendered(NamedTuple):
    """What a thread made of a row."""

    row: Row
    """With the samples that it shows in fact."""
    seen: Seen | None
    """None: its image cannot be read."""
    sizes: list[ImageSize]


class _Job(NamedTuple):
    plan: BatchPlan
    images: Pixels
    rows: list[Future[tuple[Rendered, Work]]]


class Loader:
    """Plans to batches, through a view.

    `bad_images`: `stop` raises a `BadImageError` that names every bad image of `samples`;
    `substitute` puts the next readable one of `samples` in its place (the row keeps its key and
    weight); `drop` keeps the row, black and with weight 0. Both of these list the file in
    `skipped`. `samples` is the split that the rows are of; `drop` needs none.

    `arrays`: images and weights are handed over as NumPy arrays, for what computes without PyTorch;
    the samples then have no targets.

    `pinned`: images are rendered into memory that a CUDA device can fetch them from by itself.

    `workers`: threads; 0: the caller's alone. `auto`: one for every CPU at first (`worker_count`),
    and more where they wait for a slow disk or a network (`growth`).

    With workers, OpenCV's own threads are switched off for the whole process, and stay so.
    """

    def __init__(
        self,
        view: View,
        samples: Sequence[Sample] = (),
        *,
        workers: int | Literal["auto"] = "auto",
        bad_images: BadImages = "stop",
        arrays: bool = False,
        pinned: bool = False,
    ) -> None:
        self.view = view
        self._arrays = arrays
        self._pinned = pinned
        self.samples = samples
        self.workers = worker_count(workers)
        self.grows = workers == "auto"
        self._growth: Growth | None = None
        self.bad_images: BadImages = bad_images
        self.skipped: dict[str, str] = {}
        """Key of each sample whose image was found to be bad so far, and why."""
        self.work = Work()
        """What it took so far."""

    def batches(self, plans: Iterable[BatchPlan]) -> Iterator[Batch]:
        """The batches of `plans`, in their order.

        Reads ahead while the caller works. Closing the iterator, an error, or an interrupt ends the
        threads.
        """
        for batch, _ in self.rendered(plans):
            yield batch

    def rendered(self, plans: Iterable[BatchPlan]) -> Iterator[tuple[Batch, list[Rendered]]]:
        """The same, with what each row came to."""
        walk = self._threaded if self.workers else self._in_turn
        try:
            with complaints.told_once():
                yield from walk(plans)
        except BadImageError as error:
            if self.bad_images == "stop":
                raise self._all_bad(error) from error
            raise

    def _in_turn(self, plans: Iterable[BatchPlan]) -> Iterator[tuple[Batch, list[Rendered]]]:
        for plan in plans:
            began = time.perf_counter()
            images = self._allocate(plan)
            done = [worked(self._render, row, plan, images[k]) for k, row in enumerate(plan.rows)]
            yield self._collated(plan, images, done, began)

    def _threaded(self, plans: Iterable[BatchPlan]) -> Iterator[tuple[Batch, list[Rendered]]]:
        # The threads of this pool are the parallelism; OpenCV's own would only compete with them.
        cv2.setNumThreads(1)
        pools = [_pool(self.workers)]
        growth = self._grown() if self.grows else None
        waiting: deque[_Job] = deque()
        upcoming = iter(plans)
        try:
            while True:
                while self._wants_more(waiting):
                    plan = next(upcoming, None)
                    if plan is None:
                        break
                    images = self._allocate(plan)
                    rows = [
                        pools[-1].submit(worked, self._render, row, plan, images[k])
                        for k, row in enumerate(plan.rows)
                    ]
                    waiting.append(_Job(plan, images, rows))
                if not waiting:
                    return
                job = waiting.popleft()
                began = time.perf_counter()
                done = [row.result() for row in job.rows]
                yield self._collated(job.plan, job.images, done, began)
                if growth is not None and growth.wanted(self.work) != self.workers:
                    more = growth.workers > self.workers
                    why = "which are slow to come" if more else "as more bring no more"
                    self.workers = growth.workers
                    LOGGER.info("%d threads read images, %s", self.workers, why)
                    pools[-1].shutdown(wait=False)  # it does what it has
                    pools.append(_pool(self.workers))
        finally:
            for wait in (False, True):  # while one is waited for, no other begins anything
                for pool in pools:
                    pool.shutdown(wait=wait, cancel_futures=True)

    def _grown(self) -> Growth:
        """One for all walks: what it has found out in one is not tried again in the next."""
        if self._growth is None:
            self._growth = Growth(self.workers, own_cpus(), self.work)
        self._growth.look(self.work)
        return self._growth

    def _allocate(self, plan: BatchPlan) -> Pixels:
        shape = (len(plan.rows), *plan.size, 3)
        if not self._pinned:
            return np.empty(shape, dtype=np.uint8)
        import torch

        made: Pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return made

    def _collated(
        self,
        plan: BatchPlan,
        images: Pixels,
        done: Sequence[tuple[Rendered, Work]],
        began: float,
    ) -> tuple[Batch, list[Rendered]]:
        """What `batches` and `rendered` give of rows that were waited for since `began`."""
        rows = [row for row, _ in done]
        batch = collate(plan, images, rows, arrays=self._arrays)
        for _, each in done:
            self.work += each
        self.work.waited += time.perf_counter() - began
        return batch, rows

    def _wants_more(self, waiting: deque[_Job]) -> bool:
        """At least two batches and two images a thread ahead."""
        return len(waiting) < 2 or sum(len(job.rows) for job in waiting) < 2 * self.workers

    def _render(self, row: Row, plan: BatchPlan, out: Pixels) -> Rendered:
        """Fills `out` with what the row shows, or what stands in for it."""
        for _ in range(len(self.samples) + 1):
            try:
                seen, sizes = self.view.render(
                    row.samples, key=row.key, epoch=plan.epoch, size=plan.size, out=out
                )
                return Rendered(row, seen, sizes)
            except BadImageError as error:
                if self.bad_images == "stop":
                    raise
                self.skipped.update(error.reasons)
            if self.bad_images == "drop":
                break
            row = row._replace(samples=self.readable(row.samples, row.key))
        out[...] = 0
        return Rendered(row._replace(weight=0.0), None, [])

    def readable(self, samples: tuple[Sample, ...], place: int) -> tuple[Sample, ...]:
        """`samples`, and with `substitute` instead of each that is known to be bad the next one of
        the split, behind `place`, that is not. Raises `BadImageError` if none is left."""
        if self.bad_images != "substitute" or not self.skipped:
            return samples
        return tuple(self._instead(sample, place) for sample in samples)

    def _instead(self, sample: Sample, place: int) -> Sample:
        if sample.key not in self.skipped:
            return sample
        for step in range(1, len(self.samples)):
            other = self.samples[(place + step) % len(self.samples)]
            if other.key not in self.skipped:
                return other
        raise BadImageError(dict(self.skipped), mend="no readable image is left")

    def _all_bad(self, first: BadImageError) -> BadImageError:
        reasons = {**unreadable(self.samples, workers=self.workers), **first.reasons}
        return BadImageError(reasons, mend="mend or remove them, or set on_bad_image=skip")


def collate(
    plan: BatchPlan, images: Pixels | None, rows: Sequence[Rendered], *, arrays: bool = False
) -> Batch:
    """The batch of `rows`, rendered into `images`, uint8 (n, height, width, 3); None: one without
    pixels. `arrays`: see `Loader`."""
    blank = Seen(None, np.eye(3), (0, 0))
    seen = [row.seen or blank for row in rows]
    if images is None:
        images = np.empty((len(rows), 0, 0, 3), dtype=np.uint8)
    handed: Any = _as_it_is if arrays else _as_tensor
    return Batch(
        images=handed(images.transpose(0, 3, 1, 2)),
        samples=[rendered.row.samples[0] for rendered in rows],
        keys=np.array([rendered.row.key for rendered in rows], dtype=np.int64),
        weight=handed(np.array([rendered.row.weight for rendered in rows], dtype=np.float32)),
        to_original=np.stack([s.to_original for s in seen]),
        original_size=np.array([s.original_size for s in seen], dtype=np.int64),
        epoch=plan.epoch,
        total=plan.total,
        targets=collate_targets([s.target for s in seen]),
    )


def _as_it_is(array: Any) -> Any:
    return array


def _as_tensor(array: Any) -> Tensor:
    import torch

    return torch.from_numpy(array)


def collate_targets(targets: Sequence[Target | None]) -> dict[str, Tensor]:
    """As their own kind says; empty where nothing is known of any."""
    kind = next((type(target) for target in targets if target is not None), None)
    return {} if kind is None else kind.collate(targets)
