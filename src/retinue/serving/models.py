"""The models that are served: loaded, warmed up, and loaded anew when their file is replaced."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinue.arrays import Pixels
from retinue.data.loader import Rendered, collate
from retinue.data.views import Seen
from retinue.errors import RetinueError, UsageError
from retinue.inference.ensembles import parts_of
from retinue.inference.intake import Whole
from retinue.inference.predictor import Predictor, held, load
from retinue.modelfile import find_model
from retinue.sample import Batch, BatchPlan, Row, Sample
from retinue.serving import explained
from retinue.serving.batching import Batcher
from retinue.serving.counters import Counters
from retinue.serving.decoding import Prepared
from retinue.serving.problems import Problem, unready
from retinue.serving.settings import Settings
from retinue.text import counted, first_line, listed
from retinue.weights.files import sha256

log = logging.getLogger("retinue.serving")

Load = Callable[[Path], Predictor]
"""Opens a model file."""
Signature = tuple[tuple[int, ...], ...]
"""Of the files of a model: differs wherever one of them was written or put in place anew."""


_TRIES = 5
"""So often a file is loaded that is replaced meanwhile, before anything answers."""
_MOMENT = 0.2
"""Seconds between two of them."""


class Ready:
    """A predictor that has answered before anybody asks it."""

    def __init__(self, predictor: Predictor, digest: str) -> None:
        self.predictor = predictor
        self.task = predictor.task
        self.preprocessing = predictor.preprocessing
        self.whole = isinstance(predictor.intake, Whole)
        """Whether it takes pictures as they are: an export with the preparation in its graph."""
        self.digest = digest
        """The first of the SHA-256 of its files, which tells versions apart."""
        self.explains = explained.explains(predictor)

    def answer(self, images: Sequence[Prepared]) -> list[Any]:
        """See `Answering`: an image of which the model says nothing finite is that image's affair,
        and not that of those beside it. Those of one size go through the model together."""
        sizes = {image.pixels.shape for image in images}
        if len(sizes) > 1:
            found: list[Any] = [None] * len(images)
            for size in sizes:
                same = [k for k, image in enumerate(images) if image.pixels.shape == size]
                for k, one in zip(same, self.answer([images[k] for k in same]), strict=True):
                    found[k] = one
            return found
        try:
            return list(self.predictor.findings(batch_of(images)))
        except Exception as error:
            if len(images) > 1:
                return [one for image in images for one in self.answer([image])]
            if isinstance(error, RetinueError):
                return [Problem(500, "not_finite", error.what)]
            log.exception("the model failed")
            return [Problem(500, "model_failed", "the model failed on this picture")]

    def adjusted(self, options: Mapping[str, str]) -> Any:
        """Its task with other options for the answers. UsageError for those that will not do."""
        return self.task.adjusted(options) if options else self.task

    def describe(self) -> dict[str, Any]:
        """What `/v1/models` tells of it."""
        description, task = self.predictor.description, self.task
        values = task.options.model_dump(mode="json")
        return {
            "version": self.digest,
            "task": task.name,
            "network": description.network,
            "classes": list(task.classes),
            "input": {"height": self.preprocessing.size[0], "width": self.preprocessing.size[1]},
            "options": {key: values.get(key) for key in sorted(task.adjustable)},
            "engine": self.predictor.engine,
            "device": self.predictor.device,
            "explains": self.explains,
            "figures": dict(description.figures),
            "figures_of": "validation",  # as of every model file
        }


def batch_of(images: Sequence[Prepared]) -> Batch:
    """The images as a predictor takes them."""
    rows = []
    for k, image in enumerate(images):
        row = Row(k, (Sample(image.name, held(b"")),))
        rows.append(Rendered(row, Seen(None, image.to_original, image.size), [image.size]))
    pixels = np.stack([image.pixels for image in images])
    size: tuple[int, int] = pixels.shape[1:3]
    return collate(BatchPlan([row.row for row in rows], size, total=len(rows)), pixels, rows)


def warmed(path: Path, load: Load, settings: Settings, examples: Sequence[Path]) -> Ready:
    """The model of `path`, its engine compiled, and asked once alone and once by the batch. Raises
    what loading does."""
    digest = sha256(*parts_of(path))
    predictor = load(path)
    samples = [Sample(str(file)) for file in examples] or _invented()
    predictor.compile(samples)
    ready = Ready(predictor, digest[:12])
    rows = []
    for plan in predictor.intake.plans(_invented(settings.batch_size), 1):
        sample = plan.rows[0].samples[0]
        out = np.empty((*plan.size, 3), np.uint8)
        view = predictor.intake.view
        seen, _ = view.render([sample], key=0, epoch=0, size=plan.size, out=out)
        rows.append(Prepared("warm-up", out, seen.to_original, seen.original_size))
    for some in (rows[:1], rows):
        predictor.findings(batch_of(some))
    return ready


def _invented(count: int = 8) -> list[Sample]:
    """Smooth colours and edges, for want of pictures: enough for engines to differ on."""
    made = []
    for k in range(count):
        rng = np.random.default_rng(k)
        y, x = np.mgrid[0:240, 0:320] / 320
        waves = [np.sin(rng.uniform(2, 40) * (x * np.cos(t) + y * np.sin(t)) + t * 9)
                 for t in rng.uniform(0, 6, 3)]  # fmt: skip
        smooth = 127 + 80 * np.stack(waves, 2) + rng.normal(0, 9, (240, 320, 3))
        image: Pixels = smooth.clip(0, 255).astype(np.uint8)
        top, left = rng.integers(0, 160, 2)
        image[top : top + 80, left : left + 120] = rng.integers(0, 255, 3)
        made.append(Sample(f"made-up picture {k}", held(image)))
    return made


class Served:
    """A model by its name; `current` answers, and another takes its place once that is ready."""

    def __init__(
        self,
        name: str,
        path: Path,
        settings: Settings,
        counters: Counters,
        *,
        load: Load = load,
        examples: Sequence[Path] = (),
    ) -> None:
        """`examples`: pictures that its engine is compiled with; made-up ones if there are none."""
        self.name, self.path = name, path
        self._settings, self._counters = settings, counters
        self._examples, self._load = list(examples), load
        self._ready: Ready | None = None
        self._loaded: Signature = ()
        self._seen: Signature = ()
        self._missed = 0
        counted = counters.batches.labels(name), counters.inference.labels(name)
        counters.not_finite.labels(name)

        def noted(images: int, seconds: float) -> None:
            counted[0].observe(images)
            counted[1].observe(seconds)

        self.batcher = Batcher(
            name, size=settings.batch_size, latency=settings.latency, most=settings.queue,
            noted=noted,
        )  # fmt: skip
        counters.pending.labels(name).set_function(lambda: self.batcher.pending)

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._ready is not None

    @property
    def current(self) -> Ready:
        """What answers. Raises `Problem` while there is nothing yet."""
        if self._ready is None:
            raise unready(f"the model {self.name!r} is being loaded")
        return self._ready

    def load(self) -> None:
        """Take what the file holds now. Raises what loading does, and what answered before still
        does."""
        file = find_model(self.path)
        signature = _signature(file)
        fresh = warmed(file, self._load, self._settings, self._examples)
        if _signature(file) != signature:
            raise RetinueError("the file changed while it was read", where=str(file))
        self._ready, self._loaded, self._seen = fresh, signature, signature

    def begin(self) -> None:
        """`load`, with nothing before it: where the file is replaced meanwhile, the new one.
        Raises what loading does for a file that is at rest, or never is."""
        for left in reversed(range(_TRIES)):
            before = self._there()
            try:
                return self.load()
            except (RetinueError, OSError):
                if not left or self._there() == before is not None:
                    raise
                log.info("%s: the file was replaced while it was loaded; loading anew", self.name)
                time.sleep(_MOMENT)

    def _there(self) -> Signature | None:
        """None: there is no file at the moment."""
        try:
            return _signature(find_model(self.path))
        except (OSError, UsageError):
            return None

    def look(self) -> None:
        """Load anew what has been replaced and has been at rest since the last look; what does not
        load leaves the old one, and is tried again when the file changes."""
        signature = self._there()
        if signature is None:
            self._miss()
            return
        self._missed = 0
        if signature == self._loaded:
            return
        if signature != self._seen:  # perhaps still being written
            self._seen = signature
            return
        before = self.current
        try:
            self.load()
        except Exception as error:
            self._loaded = signature
            self._counters.reloads.labels(self.name, "refused").inc()
            log.warning(
                "%s: the new file was not loaded, and the old model goes on answering: %s",
                self.name,
                first_line(error),
            )
        else:
            self._counters.reloads.labels(self.name, "taken").inc()
            told = changes(before, self.current)
            log.log(
                logging.WARNING if told else logging.INFO, "%s: now serving version %s%s",
                self.name, self.current.digest, "".join(f"; {one}" for one in told),
            )  # fmt: skip

    def _miss(self) -> None:
        """There is no file: between two of them for a moment, or for longer, which is said once."""
        self._missed += 1
        if self._missed == 2:
            log.warning(
                "%s: the model file is gone from %s; version %s goes on answering until the server"
                " ends", self.name, self.path, self.current.digest,
            )  # fmt: skip


def changes(before: Ready, now: Ready) -> list[str]:
    """What clients of a replaced model may stumble over: another task, other classes."""
    told = []
    if before.task.name != now.task.name:
        told.append(f"the task is {now.task.name}, not {before.task.name} any more")
    old, new = before.task.classes, now.task.classes
    lost, added = [c for c in old if c not in new], [c for c in new if c not in old]
    if lost:
        told.append(f"{counted(len(lost), 'class', 'classes')} gone: {listed(lost)}")
    if added:
        told.append(f"{counted(len(added), 'class', 'classes')} new: {listed(added)}")
    if old != new and not lost and not added:
        told.append("the classes are in another order")
    return told


def _signature(file: Path) -> Signature:
    try:
        parts = parts_of(file)
    except RetinueError:
        parts = [file]  # an ensemble without one of its members, say: loading tells
    stats = [os.stat(one) for one in parts]
    return tuple((s.st_mtime_ns, s.st_ctime_ns, s.st_size, s.st_ino) for s in stats)


class Watch:
    """Looks at the files of models every so often, in a thread of its own."""

    def __init__(self, models: Sequence[Served], seconds: float) -> None:
        self._models, self._seconds = models, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retinue-reload", daemon=True)

    def start(self) -> None:
        if self._seconds > 0:
            self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            for model in self._models:
                model.look()

    def close(self) -> None:
        self._ended.set()


def named(models: Sequence[str]) -> dict[str, Path]:
    """Name → path of what `retinue serve` is given: `PATH` or `NAME=PATH`. A run is called as its
    folder, a file as itself. UsageError where two are called the same."""
    found: dict[str, Path] = {}
    for text in models:
        name, equals, rest = text.partition("=")
        if not equals or "/" in name or os.path.exists(text):
            rest, name = text, ""
        path = Path(rest)
        if not name:
            whole = path.resolve()
            name = whole.parent.name if whole.name == "best.safetensors" else whole.stem
        if name in found:
            raise UsageError(
                f"two models are called {name!r}",
                where=f"{str(found[name])!r} and {rest!r}",
                mend=f"rename one: {name}-2={rest}",
            )
        found[name] = path
    if not found:
        raise UsageError("no model was given")
    return found
