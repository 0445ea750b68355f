"""Large images, looked at in parts: overlapping tiles and the image as a whole, joined by the task.

What is small in a large picture is lost when all of it shrinks to the network's input. Each tile is
a view with its own way back to the original, as a turned image is; none is smaller than the others,
since the last one of a row or column is shifted inwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retinue.data.geometry import translate
from retinue.data.tiles import windows
from retinue.errors import BadImageError, UsageError
from retinue.inference.predictor import Answer, Heat, Predictor, Seen, held, original
from retinue.sample import SMALLEST_TILE, ImageSize, Rectangle, Sample
from retinue.tasks.task import Finding, Task


@dataclass(frozen=True, slots=True)
class Tiles:
    """How an image is taken apart."""

    side: int
    """Of a tile, in pixels of the original."""
    overlap: float = 0.2
    """What neighbours share, as a part of the side: what is smaller lies in one tile as a whole."""

    def __post_init__(self) -> None:
        if self.side < SMALLEST_TILE:
            raise UsageError(
                f"tiles of {self.side} pixels are too small",
                where="tiles",
                mend=f"{SMALLEST_TILE} at least; the side of the network's input is a good one",
            )
        if not 0 <= self.overlap <= 0.9:
            raise UsageError(
                f"tiles cannot overlap by {self.overlap:g} of their side",
                where="overlap",
                mend="take a share from 0 to 0.9",
            )

    def windows(self, size: ImageSize) -> list[tuple[int, int, int, int]]:
        """x1, y1, x2, y2 of what is looked at of an image of `size` (width, height): all of it
        first, then the tiles, row by row; none where it is no larger than one."""
        parts = windows(size, self.side, self.overlap)
        return parts if len(parts) == 1 else [(0, 0, *size), *parts]


def refuse_whole(task: Task) -> None:
    """UsageError for a task that cannot make one finding of several."""
    if not task.merges():
        raise UsageError(
            f"the task {task.name!r} cannot join what is found in several parts of an image",
            where="tiles",
            mend="leave tiles out",
        )


def answers_by_tiles(
    predictor: Predictor,
    samples: Iterable[Sample],
    tiles: Tiles,
    *,
    batch_size: int = 32,
    heat: bool = False,
) -> Iterator[Answer]:
    """As `Predictor.answers`, with each image in parts. One image is held at a time, at its full
    size."""
    refuse_whole(predictor.task)
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, not {batch_size}")
    seen = Seen()
    for sample in samples:
        try:
            image = original(sample, predictor.preprocessing)
        except BadImageError as error:
            yield Answer(sample, reason=next(iter(error.reasons.values())))
            continue
        size = (image.shape[1], image.shape[0])
        windows = tiles.windows(size)
        findings: list[Finding] = []
        warmth: list[Heat] = []
        parts = (
            Sample(sample.key, held(np.ascontiguousarray(image[y1:y2, x1:x2])))
            for x1, y1, x2, y2 in windows
        )
        loader = predictor.loader(workers=predictor.workers)
        for batch in loader.batches(predictor.intake.plans(parts, batch_size)):
            there = windows[len(findings) : len(findings) + len(batch)]
            ways = [translate(x, y) for x, y, _, _ in there]
            moved = replace(
                batch,
                to_original=np.stack(ways) @ batch.to_original,
                original_size=np.array([size] * len(there), dtype=np.int64),
            )
            predictor.compile_in_time(seen, moved, range(len(there)))
            found, warm = predictor.looked_at(moved, heat=heat)
            findings += found
            warmth += [one for each in warm for one in each]
        yield Answer(sample, _joined(predictor.task, findings, windows), heat=tuple(warmth))


def _joined(task: Task, findings: Sequence[Finding], windows: Sequence[Rectangle]) -> Finding:
    return findings[0] if len(findings) == 1 else task.join(findings, windows)
