"""Batches from samples, read and warped by threads.

Decoder and warp release the interpreter's lock, so threads scale; each writes its row of a batch in
place, and the batch is handed over without a copy. What a batch contains depends on the plan alone,
never on the number of threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from retinue.data.geometry import Pixels
from retinue.data.views import Item, View
from retinue.errors import BadImageError
from retinue.sample import Batch, Sample

BadImages = Literal["stop", "substitute", "drop"]


def worker_count(workers: int | Literal["auto"]) -> int:
    """Threads to use: for `auto`, one for every CPU that this process may run on, at most 16."""
    if workers != "auto":
        return workers
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 16)
    return min(os.cpu_count() or 1, 16)


class _Row(NamedTuple):
    sample: Sample
    item: Item | None
    weight: float


class _Job(NamedTuple):
    images: Pixels
    rows: list[Future[_Row]]
    indices: npt.NDArray[np.int64]


class Loader:
    """Samples through a view, in batches.

    `bad_images`: `stop` raises a `BadImageError` that names every bad image of a first pass over
    all samples; `substitute` puts the next readable sample in its place (labels, weight and path
    are the substitute's, `Batch.index` stays); `drop` keeps the row, black and with weight 0.
    Both of these list the file in `skipped`.

    With workers, OpenCV's own threads are switched off for the whole process, and stay so.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        view: View,
        *,
        workers: int | Literal["auto"] = "auto",
        bad_images: BadImages = "stop",
    ) -> None:
        self.samples = samples
        self.view = view
        self.workers = worker_count(workers)
        self.bad_images: BadImages = bad_images
        self.skipped: dict[str, str] = {}
        """Path of each bad image met so far, and why."""

    def batches(self, plan: Sequence[npt.NDArray[np.int64]], *, epoch: int = 0) -> Iterator[Batch]:
        """The batches of `plan` (positions among the samples), in its order.

        Reads ahead while the caller works. Closing the iterator, an error, or an interrupt ends the
        threads.
        """
        walk = self._threaded if self.workers else self._in_turn
        try:
            yield from walk(plan, epoch)
        except BadImageError as error:
            if self.bad_images == "stop":
                raise self._all_bad(error) from error
            raise

    def _in_turn(self, plan: Sequence[npt.NDArray[np.int64]], epoch: int) -> Iterator[Batch]:
        for indices in plan:
            images = self._allocate(len(indices))
            rows = [self._row(int(i), epoch, images[k]) for k, i in enumerate(indices)]
            yield self._collate(images, rows, indices, epoch)

    def _threaded(self, plan: Sequence[npt.NDArray[np.int64]], epoch: int) -> Iterator[Batch]:
        # The threads of this pool are the parallelism; OpenCV's own would only compete with them.
        cv2.setNumThreads(1)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="retinue-loader")
        waiting: deque[_Job] = deque()
        upcoming = iter(plan)
        try:
            while True:
                while self._wants_more(waiting):
                    indices = next(upcoming, None)
                    if indices is None:
                        break
                    images = self._allocate(len(indices))
                    rows = [
                        pool.submit(self._row, int(i), epoch, images[k])
                        for k, i in enumerate(indices)
                    ]
                    waiting.append(_Job(images, rows, indices))
                if not waiting:
                    return
                job = waiting.popleft()
                done = [row.result() for row in job.rows]
                yield self._collate(job.images, done, job.indices, epoch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _wants_more(self, waiting: deque[_Job]) -> bool:
        """At least two batches and two images a thread ahead."""
        return len(waiting) < 2 or sum(len(job.rows) for job in waiting) < 2 * self.workers

    def _allocate(self, count: int) -> Pixels:
        return np.empty((count, *self.view.size, 3), dtype=np.uint8)

    def _row(self, index: int, epoch: int, out: Pixels) -> _Row:
        """Fills `out` with the sample at `index`, or what stands in for it."""
        sample = self.samples[index]
        try:
            return _Row(sample, self.view(sample, index=index, epoch=epoch, out=out), sample.weight)
        except BadImageError as error:
            if self.bad_images == "stop":
                raise
            self.skipped.update(error.reasons)
        if self.bad_images == "substitute":
            for step in range(1, len(self.samples)):
                other = self.samples[(index + step) % len(self.samples)]
                if other.path in self.skipped:
                    continue
                try:
                    item = self.view(other, index=index, epoch=epoch, out=out)
                except BadImageError as error:
                    self.skipped.update(error.reasons)
                    continue
                return _Row(other, item, other.weight)
            raise BadImageError(dict(self.skipped), mend="no readable image is left")
        out[...] = 0
        return _Row(sample, None, 0.0)

    def _all_bad(self, first: BadImageError) -> BadImageError:
        from retinue.data.scan import scan

        reasons = {**scan(self.samples, thorough=False), **first.reasons}
        return BadImageError(reasons, mend="mend or remove them, or set on_bad_image=skip")

    def _collate(
        self,
        images: Pixels,
        rows: Sequence[_Row],
        indices: npt.NDArray[np.int64],
        epoch: int,
    ) -> Batch:
        samples = [row.sample for row in rows]
        blank = (np.eye(3), (0, 0))
        places = [(r.item.to_original, r.item.original_size) if r.item else blank for r in rows]
        batch = Batch(
            images=torch.from_numpy(images).permute(0, 3, 1, 2),
            index=torch.from_numpy(np.array(indices, dtype=np.int64)),
            paths=[sample.path for sample in samples],
            epoch=epoch,
            weight=torch.tensor([row.weight for row in rows], dtype=torch.float32),
            to_original=torch.from_numpy(np.stack([matrix for matrix, _ in places])),
            original_size=torch.tensor([size for _, size in places], dtype=torch.int64),
        )
        if any(sample.label is not None for sample in samples):
            labels = [-1 if sample.label is None else sample.label for sample in samples]
            batch.labels = torch.tensor(labels, dtype=torch.int64)
        if any(sample.boxes is not None for sample in samples):
            _add_boxes(batch, rows)
        return batch


def _add_boxes(batch: Batch, rows: Sequence[_Row]) -> None:
    found = [row.item.boxes if row.item is not None else None for row in rows]
    most = max((len(boxes) for boxes in found if boxes is not None), default=0)
    boxes = torch.zeros((len(rows), most, 4), dtype=torch.float32)
    labels = torch.zeros((len(rows), most), dtype=torch.int64)
    mask = torch.zeros((len(rows), most), dtype=torch.bool)
    for k, row in enumerate(rows):
        if row.item is None or row.item.boxes is None or row.item.box_labels is None:
            continue
        count = len(row.item.boxes)
        boxes[k, :count] = torch.from_numpy(row.item.boxes)
        labels[k, :count] = torch.from_numpy(row.item.box_labels)
        mask[k, :count] = True
    batch.boxes, batch.box_labels, batch.box_mask = boxes, labels, mask
