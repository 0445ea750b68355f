"""A model file, or several, ready to be shown pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from retinue.data.decode import to_rgb
from retinue.data.geometry import scale
from retinue.data.loader import BadImages, Loader, in_order
from retinue.data.views import EvalView, open_image, turn
from retinue.errors import BadImageError, UsageError
from retinue.inference.devices import fit_threads
from retinue.inference.engine import Engine, Precision
from retinue.inference.engine_cache import ENOUGH
from retinue.inference.ensembles import members_of
from retinue.inference.members import Asked, device_for, open_member
from retinue.inference.members import Member as Member
from retinue.inference.names import EngineName
from retinue.inference.runtimes import format_of
from retinue.inference.tta import refuse_oblong, turned, views
from retinue.modelfile import find_model
from retinue.nested import is_tensor
from retinue.sample import Batch, Matrix, Pixels, Preprocessing, Read, Result, Sample
from retinue.tasks.task import Finding
from retinue.text import counted, few

if TYPE_CHECKING:  # what was compiled before answers without torch
    from torch import Tensor

    from retinue.models.network import Network

COMPILE_FROM = 64
"""`engine=auto` compiles once this many images of a stream have gone by; for fewer, it would cost
more than it saves."""
EXAMPLES = 8
"""How many real images an engine is compiled with and judged on, at most."""
MEND = "try another engine or device, or train the model anew with a lower optimizer.lr"
"""What helps where the outputs are not finite."""

Source = str | os.PathLike[str] | bytes | npt.NDArray[np.uint8] | Image.Image
"""A path, encoded bytes, RGB uint8 (height, width, 3), or a Pillow image."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that could not be used, and why."""

    path: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """The line of `skipped.jsonl`."""
        return {"path": self.path, "reason": self.reason}


def load(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    tta: str | None = None,
    workers: int | Literal["auto"] = "auto",
    options: Mapping[str, Any] | None = None,
    precision: Precision = "fp32",
) -> Predictor:
    """The model of a model file or run folder; of several, or of a file of an ensemble, their
    answers merged.

    `tta`: test-time augmentation, by default what the model file says. `options`: of the task, as
    far as they only say what is answered, in place of those that it was trained with. `precision`:
    `bf16` where that is faster here; exported files have their own. Raises
    UsageError for a path without a model, an unknown device or engine, for options that will not
    do, and for models that do not answer the same question of the same input; RetinueError for a
    file that is damaged, of a newer format, or does not fit its own description.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise UsageError("no model is named")
    files, weights = members_of([Path(one) for one in paths])
    chosen = device_for(files, device)
    fit_threads()
    members = [
        open_member(find_model(file), chosen, engine, options or {}, precision) for file in files
    ]
    for file, member in zip(files[1:], members[1:], strict=True):
        _refuse_other(members[0], member, file)
    how: dict[str, Any] = {"device": chosen, "engine": engine, "tta": tta, "workers": workers}
    if precision != "fp32":
        _refuse_precision(files, precision)
        how["precision"] = precision
    return Predictor(members, weights=weights, **how)


@dataclass(frozen=True, slots=True, eq=False)
class Heat:
    """How much speaks for anything of note, over one view of an image."""

    evidence: npt.NDArray[np.float32]
    """(height, width), between 0 and 1, in as many cells as the task has."""
    to_original: Matrix
    """float64 (3, 3): from cells to pixels of the upright original."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came of one image."""

    sample: Sample
    finding: Finding = None
    reason: str = ""
    """Why there is no finding, of an image that cannot be used."""
    heat: tuple[Heat, ...] = ()
    """Of each view and member, if it was asked for."""


class Seen:
    """The readable images of a stream so far: how many, and a few of them, spread evenly, no two of
    them the same: a picture that comes again, as of a camera that stands still, proves nothing
    more."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[Any] = []

    def note(self, images: Tensor, good: Sequence[int], of: int) -> None:
        """Those of a batch's `images`, uint8 (n, 3, height, width), that could be read; `of` so
        many in all, `EXAMPLES` are kept: one in so many, or the next that is not there yet."""
        step = max(of // EXAMPLES, 1)
        for k in good:
            if len(self._kept) < min(self.count // step + 1, EXAMPLES) and not self._has(images[k]):
                image = images[k]
                self._kept.append(image.clone() if is_tensor(image) else np.array(image))
            self.count += 1

    def _has(self, image: Any) -> bool:
        return any(bool((image == one).all()) for one in self._kept)

    def examples(self) -> Tensor:
        """uint8 (≤ EXAMPLES, 3, height, width), in channels-last memory."""
        import torch

        if not is_tensor(self._kept[0]):
            return as_tensors(np.stack(self._kept))
        return torch.stack(self._kept).contiguous(memory_format=torch.channels_last)


class Predictor:
    """`predictor(image)` recognises one image, `predictor.predict(images)` a stream of them.

    Of several members, which share one task, its classes and the preprocessing, the findings are
    merged; with `weights`, one of each member, they count as much as that.
    """

    def __init__(
        self,
        members: Sequence[Asked],
        *,
        device: str = "cpu",
        engine: EngineName = "auto",
        tta: str | None = None,
        workers: int | Literal["auto"] = "auto",
        weights: Sequence[float] | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.precision: Precision = precision
        self.members = list(members)
        self.weights = weights
        self.description = members[0].description
        self.task = members[0].task
        self.device = device
        self.workers: int | Literal["auto"] = workers
        self.preprocessing = self.description.prepared()
        self.tta = tta if tta is not None else self.description.tta
        self._orientations = views(self.tta)
        refuse_oblong(self._orientations, self.preprocessing.size)
        self._wish: EngineName = engine
        self.intake = members[0].intake
        self._plain: list[Engine] = [member.plain(device) for member in members]
        plain = engine == "torch" and precision == "fp32"
        settled = plain or all(member.settled for member in members)
        self._compiled: list[Engine] | None = self._plain if settled else None
        self.takes_arrays = all(engine.takes_arrays for engine in self._plain)
        """Whether images come to it, and its first answers from it, without PyTorch."""

    def __repr__(self) -> str:
        names, (height, width) = self.classes, self.preprocessing.size
        others = f" and {counted(len(self.members) - 1, 'other')}" if len(self.members) > 1 else ""
        tta = f", tta={self.tta}" if self.tta != "none" else ""
        return (
            f"<Predictor {self.description.network}{others}: "
            f"{counted(len(names), 'class', 'classes')} ({few(names)}), "
            f"{height} × {width} pixels, {self.engine} on {self.device}{tta}>"
        )

    @property
    def network(self) -> Network:
        """The first member's."""
        return self.members[0].network

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the outputs."""
        return self.task.classes

    @property
    def engine(self) -> str:
        """The name of the engine in use. Until the one that was wished for is compiled (`auto`:
        once there is much to do), it is what was kept of the model another time, or PyTorch."""
        names = dict.fromkeys(engine.name for engine in self._compiled or self._plain)
        return "+".join(names)

    @property
    def views(self) -> int:
        """How many views of an image the test-time augmentation looks at."""
        return len(self._orientations)

    def loader(
        self, *, workers: int | Literal["auto"] = 0, bad_images: BadImages = "stop"
    ) -> Loader:
        """What reads images for it; they have no targets."""
        view = self.intake.view
        return Loader(view, workers=workers, bad_images=bad_images, arrays=self.takes_arrays)

    def compile(self, samples: Sequence[Sample]) -> None:
        """Take the engine that was wished for, compiled now and judged on some of `samples`; one
        that was proven on as many images another time is taken as it is."""
        if self._compiled is not None:
            return
        try:
            example = example_inputs(samples, self.preprocessing)
        except BadImageError:
            if self._in_time:
                return
            import torch

            # Nothing readable so far: noise tells the engines apart, too; but so little of it that
            # another time they are judged on images.
            generator = torch.Generator().manual_seed(0)
            example = torch.randn((ENOUGH - 1, 3, *self.preprocessing.size), generator=generator)
        self._compile(example)

    def compile_if_worth(self, samples: Sequence[Sample]) -> None:
        """`compile` for answering all of `samples`, but not with `auto` for fewer than
        `COMPILE_FROM`: they are answered before engines would be compiled and timed."""
        if len(samples) >= COMPILE_FROM or not self._in_time:
            self.compile(samples)

    def _compile(self, example: Tensor) -> None:
        """`example`: normalised real images, float32 (n, 3, height, width)."""
        self._compiled = [
            member.compiled(example, self._wish, self.device, self.precision)
            for member in self.members
        ]

    @property
    def _in_time(self) -> bool:
        """Whether it may wait for the engine to be worth it: nobody has said how to compute."""
        return self._wish == "auto" and self.precision == "fp32"

    def compile_in_time(self, seen: Seen, batch: Batch, good: Sequence[int]) -> None:
        """Compile before the batch of a stream is answered if it is time for that: with `auto` once
        enough images have been answered, with an engine by name at the first that can be read."""
        if self._compiled is not None:
            return
        auto = self._in_time
        if not auto or seen.count < COMPILE_FROM:
            seen.note(batch.images, good, COMPILE_FROM if auto else len(good))
            if auto or not good:
                return
        self._compile(self.intake.inputs(seen.examples()))

    def findings(self, batch: Batch) -> list[Finding]:
        """What the task reads off each of the batch's uint8 images: every view is decoded with its
        own way back to the original, and what all views and members say is merged there.
        RetinueError for an image of which one of them says nothing finite."""
        return self.looked_at(batch)[0]

    def looked_at(
        self, batch: Batch, *, heat: bool = False
    ) -> tuple[list[Finding], list[tuple[Heat, ...]]]:
        """The `findings`, and of each image the evidence that they rest on, if `heat` asks for
        it. UsageError where the task cannot tell."""
        found: list[list[Finding]] = []
        warmth: list[list[Heat]] = []
        for seen, inputs in self.inputs(batch):
            for member, outputs in zip(self.members, self.outputs(inputs), strict=True):
                found.append(member.task.answers(outputs, seen, mend=MEND))
                if heat:
                    maps = member.task.evidence(outputs, seen)
                    warmth.append([spread_over(one, seen, k) for k, one in enumerate(maps)])
        merged = self.merged(found)
        return merged, list(zip(*warmth, strict=True)) if heat else [()] * len(merged)

    def inputs(self, batch: Batch) -> Iterator[tuple[Batch, Tensor]]:
        """Each view of the batch, with what the networks take of it."""
        arrays = all(engine.takes_arrays for engine in self._compiled or self._plain)
        for orientation in self._orientations:
            seen = turned(batch, orientation) if orientation else batch
            images = seen.images
            if is_tensor(images):
                images = images.to(self.device)
            elif not arrays:
                images = as_tensors(images).to(self.device)
            yield seen, self.intake.inputs(images)

    def outputs(self, inputs: Tensor) -> Iterator[Any]:
        """What each member's network says."""
        for engine in self._compiled or self._plain:
            yield engine(inputs)

    def merged(self, found: Sequence[Sequence[Finding]]) -> list[Finding]:
        """A finding an image, from those of each view and member."""
        if len(found) == 1:
            return list(found[0])
        if self.weights is not None:
            each = [w / self.views for w in self.weights] * self.views
            return [self.task.weighed(same, each) for same in zip(*found, strict=True)]
        return [self.task.merge(same) for same in zip(*found, strict=True)]

    def __call__(self, image: Source) -> Result:
        """What is in one image. Raises BadImageError if it cannot be read, UsageError for an
        array or object that is no image."""
        (answer,) = self.predict([image], batch_size=1)
        if isinstance(answer, Skipped):
            raise BadImageError({answer.path: answer.reason})
        return answer

    def predict(
        self, sources: Iterable[Source], *, batch_size: int = 32
    ) -> Iterator[Result | Skipped]:
        """A `Result` for each image, in order; `Skipped` for one that cannot be read.

        `sources` is consumed as the work goes on, a few batches ahead, and nothing is kept: a
        million files take the memory of a few, and a stream need not have an end. With
        `engine=auto` what was compiled of the model another time, or else PyTorch, answers the
        first images; where that is not known to be the fastest, the engine that is goes on from
        there if there are many. Closing the iterator ends its threads. Images that come from memory
        are called `image 0`, `image 1`, … by their position.
        """
        samples = (as_sample(source, f"image {i}") for i, source in enumerate(sources))
        for answer in self.answers(samples, batch_size=batch_size):
            if answer.reason:
                yield Skipped(answer.sample.key, answer.reason)
            else:
                yield self.task.result(answer.finding, answer.sample.key)

    def answers(
        self, samples: Iterable[Sample], *, batch_size: int = 32, heat: bool = False
    ) -> Iterator[Answer]:
        """What came of each of the samples, in order: what `predict` makes its results of. `heat`:
        with the evidence. With `batch_size=1` a sample is asked for when the one before is
        answered."""
        if batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {batch_size}")
        workers = self.workers if batch_size > 1 else 0
        loader = self.loader(workers=workers, bad_images="drop")
        seen = Seen()
        for batch in loader.batches(self.intake.plans(samples, batch_size)):
            good = (batch.weight > 0).tolist()
            self.compile_in_time(seen, batch, [k for k, fine in enumerate(good) if fine])
            if any(good):
                findings, warmth = self.looked_at(batch, heat=heat)
            for k, (sample, fine) in enumerate(zip(batch.samples, good, strict=True)):
                if fine:
                    yield Answer(sample, findings[k], heat=warmth[k])
                else:
                    yield Answer(sample, reason=loader.skipped[sample.key])


def as_tensors(images: Any) -> Tensor:
    """uint8 (n, 3, height, width) as PyTorch takes it, in channels-last memory."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)


def spread_over(evidence: npt.NDArray[np.float32], batch: Batch, k: int) -> Heat:
    """`evidence`, (rows, columns), that spreads over the whole input of image `k` of the batch."""
    height, width = batch.images.shape[2:]
    rows, columns = evidence.shape
    return Heat(evidence, batch.to_original[k] @ scale(width / columns, height / rows))


def example_inputs(
    samples: Sequence[Sample], preprocessing: Preprocessing, count: int = EXAMPLES
) -> Tensor:
    """Normalised real images, float32 (≤ count, 3, height, width), for `compile_engine`.

    Spread evenly over `samples`, so that there are several classes among them; bad images are left
    out. BadImageError if none of those tried can be read.
    """
    tried = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round())
    chosen = [samples[int(i)] for i in tried]
    from retinue.data.colour import Colour

    loader = Loader(EvalView(preprocessing), workers=0, bad_images="drop")
    (batch,) = loader.batches(in_order(chosen, len(chosen), preprocessing.size))
    good = batch.weight > 0
    if not good.any():
        raise BadImageError(dict(loader.skipped))
    return Colour(preprocessing).normalised(batch.images)[good]


def as_sample(source: Source, name: str) -> Sample:
    """The sample of a source; `name` is what an image from memory is called.

    UsageError for an array that is not RGB uint8 (height, width, 3), and for anything else.
    """
    if isinstance(source, (str, os.PathLike)):
        return Sample(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Sample(name, held(bytes(source)))
    if isinstance(source, Image.Image):
        return Sample(name, held(np.array(to_rgb(ImageOps.exif_transpose(source)))))
    if isinstance(source, np.ndarray):
        _check_array(source)
        return Sample(name, held(source))
    raise UsageError(
        f"an image cannot be read from a {type(source).__name__}",
        mend="`predict` takes several of them"
        if isinstance(source, Iterable)
        else "give a path, encoded bytes, an RGB uint8 array (height, width, 3), a Pillow image",
    )


def _check_array(array: npt.NDArray[Any]) -> None:
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size:
        return
    mend = "height and width come first, then the channels red, green, blue"
    if array.ndim == 2:
        mend = "repeat the grey channel: np.repeat(image[..., None], 3, axis=2)"
    elif np.issubdtype(array.dtype, np.floating):
        mend = "scale to 0–255 and convert: (image * 255).round().astype(np.uint8)"
    elif array.ndim == 4:
        mend = "give one image at a time, or a list of them to `predict`"
    raise UsageError(
        "an array must be RGB uint8 of shape (height, width, 3), "
        f"this one is {array.dtype} of shape {array.shape}",
        mend=mend,
    )


def original(sample: Sample, how: Preprocessing | None = None) -> Pixels:
    """The upright pixels of the sample's image, uint8 (height, width, 3), at their full size; what
    is transparent, or of more than 8 bits, as `how` says. Raises `BadImageError`."""
    encoded = open_image(sample, how)
    return turn(encoded.decode().image, encoded.orientation)


def held(image: bytes | Pixels) -> Read:
    """Reads an image that is in memory already."""
    return lambda: image


def _refuse_precision(files: Sequence[Path], precision: str) -> None:
    """Raise UsageError for a file that computes as it was exported, or a precision that no engine
    makes of a model as it is."""
    exported = next((file for file in files if format_of(file) is not None), None)
    if exported is not None:
        raise UsageError(
            f"an exported file computes as it was exported, not in {precision}",
            where=str(exported),
            mend="leave precision out (--precision), or name the model file",
        )
    if precision != "bf16":
        raise UsageError(
            f"the model cannot be run in {precision} as it is",
            where="precision (--precision)",
            mend=f"there are fp32 and bf16; or `retinue export --precision {precision}` first",
        )


def _refuse_other(first: Asked, other: Asked, file: Path) -> None:
    """Raise UsageError unless the two answer the same question of the same input."""
    for what, ours, theirs in (
        ("another task", first.description.task, other.description.task),
        ("other classes", first.description.classes, other.description.classes),
        ("another preprocessing", first.description.prepared(), other.description.prepared()),
    ):
        if ours != theirs:
            raise UsageError(
                f"a model of {what} than the first one's cannot answer together with it",
                where=str(file),
                mend="evaluate or predict with each by itself",
            )
