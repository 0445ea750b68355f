"""From what was named to results: pictures and videos in turn, in the way that was asked for."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Protocol

from retinue.errors import BadImageError, UsageError
from retinue.inference import counting
from retinue.inference.counting import Count, Places
from retinue.inference.extras import Shown
from retinue.inference.predictor import Answer, Predictor, Skipped, held
from retinue.inference.speed import by_stages
from retinue.inference.tiles import Tiles, answers_by_tiles, refuse_whole
from retinue.inference.video import Frame, Unopened, Video, is_video, open_video, shown_address
from retinue.inference.writers import PredictionFolder, foreign
from retinue.sample import Result, Sample
from retinue.tasks.results import FrameResult
from retinue.tasks.task import Task

_PLAIN = ("jsonl", "json")
"""What the format is called that results have anyway."""
FRAMES_TOGETHER = 8
"""Frames of a video that are answered together at most: they wait at their full size."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How images are looked at."""

    tiles: Tiles | None = None
    """In parts, too."""
    heat: bool = False
    """With the evidence."""
    track: bool = False
    """Things are followed through videos."""
    every: int = 1
    """Of videos: each so-many-th frame."""

    def refuse(self, predictor: Predictor) -> None:
        """UsageError for what the task cannot do, before anything is read."""
        if self.every < 1:
            raise UsageError(
                f"every must be 1 or more, not {self.every}",
                where="every",
                mend="take 1 for all frames",
            )
        if self.heat:
            predictor.task.refuse_evidence()
        if self.tiles is not None:
            refuse_whole(predictor.task)
        if self.track:
            predictor.task.follower()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What becomes of results."""

    out: Path | None = None
    """A folder for them."""
    format: str = "jsonl"
    reference: Path | None = None
    """See `Form`."""
    base: Path | None = None
    """See `PredictionFolder`."""
    draw: bool = False
    crops: bool = False
    count: bool = False
    places: Places | None = None
    """Zones and lines to count in, too."""

    def refuse_without_folder(self, heat: bool) -> None:
        """UsageError for the first wish that needs a folder to write to, if there is none."""
        needing = {"draw": self.draw, "crops": self.crops, "heatmap": heat,
                   "reference": self.reference is not None,
                   "format": self.format not in _PLAIN}  # fmt: skip
        if self.out is None and (missing := [name for name, wished in needing.items() if wished]):
            raise UsageError(
                f"{missing[0]} needs a folder to write to", where=missing[0], mend="give out, too"
            )

    def refuse_without_places(self, task: Task) -> None:
        """UsageError for the first wish that a task cannot meet whose findings have no places."""
        needing = {"crops": self.crops, "count": self.count, "places": self.places is not None}
        if not task.places and (missing := [name for name, wished in needing.items() if wished]):
            raise UsageError(
                f"the task {task.name!r} says what is in an image, not where: nothing can be cut"
                " out or counted",
                where=missing[0],
                mend="leave it out",
            )


class Outcome(NamedTuple):
    """What came of one image."""

    item: Result | Skipped
    shown: Shown | None
    """Of a result."""


class Ended(NamedTuple):
    """A video was looked at to its end."""

    path: str


class Walk:
    """Looks at what paths name, in their order. An iterator, of which there is one walk."""

    def __init__(
        self, predictor: Predictor, paths: Iterable[str], manner: Manner, *, batch_size: int = 32
    ) -> None:
        manner.refuse(predictor)
        self.predictor, self.manner, self._batch_size = predictor, manner, batch_size
        self._paths = paths
        self.live = False
        """Whether what is looked at goes on for ever, until it is interrupted."""

    def __iter__(self) -> Iterator[Outcome | Ended]:
        for moving, group in groupby(self._paths, is_video):
            if moving:
                for path in group:
                    yield from self._video(path)
            else:
                yield from self._pictures(group)

    def _answers(self, samples: Iterable[Sample], batch_size: int) -> Iterator[Answer]:
        manner = self.manner
        if manner.tiles is not None:
            return answers_by_tiles(
                self.predictor,
                samples,
                manner.tiles,
                batch_size=self._batch_size,
                heat=manner.heat,
            )
        return self.predictor.answers(samples, batch_size=batch_size, heat=manner.heat)

    def _pictures(self, paths: Iterable[str]) -> Iterator[Outcome]:
        self.live = False
        for answer in self._answers(map(Sample, paths), self._batch_size):
            if answer.reason:
                yield Outcome(Skipped(answer.sample.key, answer.reason), None)
                continue
            result = self.predictor.task.result(answer.finding, answer.sample.key)
            yield Outcome(result, Shown(answer.sample, heat=answer.heat))

    def _video(self, address: str) -> Iterator[Outcome | Ended]:
        try:
            video = open_video(address, every=self.manner.every)
        except Unopened as error:
            yield Outcome(Skipped(shown_address(address), str(error)), None)
            return
        self.live = video.live
        yield from self._frames(video)
        if complaint := video.complaint():
            yield Outcome(Skipped(video.path, complaint), None)
        yield Ended(video.path)

    def _frames(self, video: Video) -> Iterator[Outcome]:
        task = self.predictor.task
        follower = task.follower() if self.manner.track else None
        rate = video.rate
        waiting: deque[Frame] = deque()
        frames = video.frames()

        def samples() -> Iterator[Sample]:
            for frame in frames:
                # Only what there is to say of it: the pixels lie in the sample.
                waiting.append(frame._replace(pixels=frame.pixels[:0]))
                yield Sample(f"{video.path}#{frame.number}", held(frame.pixels))

        # Of a camera, the frame that is newest when the one before is done.
        together = 1 if video.live else min(self._batch_size, FRAMES_TOGETHER)
        try:
            for answer in self._answers(samples(), together):
                frame = waiting.popleft()
                result = (follower or task).result(answer.finding, video.path)
                outcome = FrameResult(video.path, result, frame.number, frame.time)
                yield Outcome(outcome, Shown(answer.sample, heat=answer.heat, rate=rate))
        finally:
            getattr(frames, "close", lambda: None)()


@dataclass
class Collected:
    """What a walk came to."""

    images: int = 0
    """Images that have an answer."""
    frames: int = 0
    """Those of them that are frames of videos."""
    skipped: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    counts: dict[str, Any] | None = None


class _Sink(Protocol):
    def add(self, result: Result, shown: Shown) -> None: ...
    def ended(self) -> None: ...


def collect(
    walk: Walk, wishes: Wishes, *, stop: bool = False, each: Callable[[Result], None] | None = None
) -> Collected:
    """Go through `walk` and do with the results what is wished; where there is neither a folder nor
    `each` for them, they are kept. `stop`: an image that cannot be used raises BadImageError. An
    interrupt ends what is live, and nothing else."""
    task, done = walk.predictor.task, Collected()
    wishes.refuse_without_places(task)
    sinks: list[_Sink] = []
    counter: Count | None = None
    with ExitStack() as stack:
        folder = None
        if wishes.out is not None:
            folder = stack.enter_context(_folder(wishes, task, heat=walk.manner.heat))
            sinks.append(folder)
        if wishes.count or wishes.places is not None:
            listed = None if folder is None else folder.listed
            followed = walk.manner.track
            counter = Count(task.classes, wishes.places, followed=followed, listed=listed)
            if folder is None:
                sinks.append(counter)
            else:
                folder.also(counter)
        moving = False
        try:
            for outcome in walk:
                if isinstance(outcome, Ended):
                    moving = True
                    for sink in sinks:
                        sink.ended()
                elif isinstance(outcome.item, Skipped):
                    path, reason = outcome.item.path, outcome.item.reason
                    if stop:
                        mend = (
                            "--on-bad-image skip goes on without it (Python: on_bad_image='skip')"
                        )
                        raise BadImageError({path: reason}, mend=mend)
                    done.skipped[path] = reason
                    if folder is not None:
                        folder.skip(outcome.item)
                else:
                    assert outcome.shown is not None
                    for sink in sinks:
                        sink.add(outcome.item, outcome.shown)
                    done.images += 1
                    done.frames += isinstance(outcome.item, FrameResult)
                    if each is not None or folder is None:
                        (each or done.results.append)(outcome.item)
        except KeyboardInterrupt:
            if not walk.live:
                raise
            moving = True
    if walk.manner.track and done.images and not moving:
        logging.getLogger("retinue").warning("nothing was followed: there was no video")
    done.files = [] if folder is None else folder.files
    done.counts = None if counter is None else counter.totals()
    return done


def _folder(wishes: Wishes, task: Task, *, heat: bool) -> PredictionFolder:
    assert wishes.out is not None
    if wishes.count or wishes.places is not None:
        for place in (wishes.out / counting.JSON, wishes.out / counting.CSV):
            if place.exists() and not counting.wrote(place):
                raise foreign(place)
    return PredictionFolder(
        wishes.out,
        format=wishes.format,
        draw=task.draw if wishes.draw else None,
        base=wishes.base,
        task=task,
        reference=wishes.reference,
        crops=wishes.crops,
        heat=heat,
    )


SAMPLED = 16
"""Images, or frames, that a measurement takes turns with at most."""


def stages(predictor: Predictor, paths: Iterable[str], runs: int) -> dict[str, Any]:
    """See `speed.by_stages`, of the first images that `paths` name, or the first frames of a
    video. Raises UsageError where none of them can be read."""
    if runs < 1:
        raise UsageError(
            f"there must be at least one run, not {runs}", where="fps", mend="take 1 or more"
        )
    samples: list[Sample] = []
    decoding = None
    for path in islice(paths, SAMPLED):
        if not is_video(path):
            samples.append(Sample(path))
        elif not samples:
            samples, decoding = _timed_frames(path)
            break
    found = by_stages(predictor, samples, runs, decoding=decoding)
    if found is None:
        raise UsageError("none of the images can be read", where="fps", mend="name others")
    return found


def _timed_frames(path: str) -> tuple[list[Sample], float]:
    """The first frames of a video, and the seconds that decoding one takes."""
    try:
        video = open_video(path)
    except Unopened as error:
        raise UsageError(str(error), where=repr(shown_address(path))) from None
    taken: list[float] = []
    samples: list[Sample] = []
    frames = video.frames()
    start = time.perf_counter()
    for frame in islice(frames, SAMPLED):
        taken.append(time.perf_counter() - start)
        samples.append(Sample(f"{video.path}#{frame.number}", held(frame.pixels)))
        start = time.perf_counter()
    getattr(frames, "close", lambda: None)()
    return samples, median(taken) if taken else 0.0
