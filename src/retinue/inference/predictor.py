"""A model file, ready to be shown pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from pydantic import ValidationError
from torch import Tensor

from retinue import modelfile
from retinue.data.colour import Colour
from retinue.data.decode import to_rgb
from retinue.data.loader import Loader
from retinue.data.views import EvalView
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.inference.devices import choose_device
from retinue.inference.engines import Engine, EngineName, TorchEngine, compile_engine
from retinue.inference.evaluator import example_inputs, look
from retinue.inference.tta import views
from retinue.modelfile import ModelDescription, find_model
from retinue.models.network import Network
from retinue.sample import Result, Sample
from retinue.tasks.task import Task, task_type

COMPILE_FROM = 64
"""`engine=auto` compiles for this many images or more; for fewer, it would cost more than it
saves."""

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
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    tta: str | None = None,
    workers: int | Literal["auto"] = "auto",
) -> Predictor:
    """The model of a model file or run folder.

    `tta`: test-time augmentation, by default what the model file says. Raises UsageError for a
    path without a model, an unknown device or engine; RetinueError for a file that is damaged, of
    a newer format, or does not fit its own description.
    """
    file = find_model(Path(path))
    chosen = choose_device(device)
    description, tensors = modelfile.read(file)
    kind = task_type(description.task)
    try:
        options = kind.options_type.model_validate(description.task_options)
    except ValidationError as error:
        raise RetinueError(f"options that {description.task} does not know", where=str(file)) from (
            error
        )
    task = kind(description.classes, options)
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and replaced at once
        network = task.build(description.network, dict(description.arguments), None)
    _fill(network, tensors, file)
    network.eval().to(chosen)
    return Predictor(
        network, task, description, device=chosen, engine=engine, tta=tta, workers=workers
    )


class Predictor:
    """`predictor(image)` recognises one image, `predictor.predict(images)` a stream of them."""

    def __init__(
        self,
        network: Network,
        task: Task,
        description: ModelDescription,
        *,
        device: str = "cpu",
        engine: EngineName = "auto",
        tta: str | None = None,
        workers: int | Literal["auto"] = "auto",
    ) -> None:
        self.network = network
        self.task = task
        self.description = description
        self.device = device
        self.preprocessing = description.prepared()
        self._wish: EngineName = engine
        self._workers: int | Literal["auto"] = workers
        self._orientations = views(tta if tta is not None else description.tta)
        self._colour = Colour(self.preprocessing)
        self._plain = TorchEngine(network, device=device)
        self._compiled: Engine | None = self._plain if engine == "torch" else None

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the outputs."""
        return self.task.classes

    @property
    def engine(self) -> str:
        """The name of the engine in use; `auto` runs PyTorch until there is much to do."""
        return (self._compiled or self._plain).name

    def compile(self, samples: Sequence[Sample]) -> Engine:
        """The engine that was wished for, compiled now and judged on some of `samples`."""
        if self._compiled is None:
            try:
                example = example_inputs(samples, self.preprocessing)
            except BadImageError:
                if self._wish == "auto":
                    return self._plain
                # Nothing readable so far: noise tells the engines apart, too.
                generator = torch.Generator().manual_seed(0)
                example = torch.randn((8, 3, *self.preprocessing.size), generator=generator)
            self._compiled = compile_engine(
                self.network, example, engine=self._wish, device=self.device
            )
        return self._compiled

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
        million files take the memory of a few. Closing the iterator ends its threads. Images that
        come from memory are called `image 0`, `image 1`, … by their position.
        """
        if batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {batch_size}")
        samples = (as_sample(source, f"image {i}") for i, source in enumerate(sources))
        first = list(islice(samples, COMPILE_FROM)) if self._compiled is None else []
        worth_it = len(first) == COMPILE_FROM or (first and self._wish != "auto")
        engine = self.compile(first) if worth_it else self._compiled or self._plain
        window = _Window(chain(first, samples))
        del first
        workers = self._workers if batch_size > 1 else 0
        loader = Loader(window, EvalView(self.preprocessing), workers=workers, bad_images="drop")
        plan = cast(Sequence[npt.NDArray[np.int64]], window.plan(batch_size))  # read once, in turn
        for batch in loader.batches(plan):
            assert batch.weight is not None
            good = batch.weight != 0
            if good.any():
                batch = batch.to(self.device)
                output = look(engine, self.task, self._colour, batch, self._orientations)
                results: Sequence[Result | None] = self.task.decode(output, batch)
            else:
                results = [None] * len(batch)
            window.forget(batch.index)
            for path, fine, result in zip(batch.paths, good.tolist(), results, strict=True):
                if fine and result is not None:
                    yield result
                else:
                    yield Skipped(path, loader.skipped[path])


class _Window(Sequence[Sample]):
    """The part of an endless row of samples that is being worked on, for the loader."""

    def __init__(self, samples: Iterator[Sample]) -> None:
        self._samples = samples
        self._held: dict[int, Sample] = {}

    def plan(self, batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
        """Positions of the next samples, which are held from now on."""
        for start in count(0, batch_size):
            batch = list(islice(self._samples, batch_size))
            if not batch:
                return
            self._held.update(enumerate(batch, start))
            yield np.arange(start, start + len(batch), dtype=np.int64)

    def forget(self, index: Tensor) -> None:
        """These have been dealt with."""
        for i in index.tolist():
            del self._held[i]

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, index: Any) -> Any:
        return self._held[index]


def as_sample(source: Source, name: str) -> Sample:
    """The sample of a source; `name` is what an image from memory is called.

    UsageError for an array that is not RGB uint8 (height, width, 3), and for anything else.
    """
    if isinstance(source, (str, os.PathLike)):
        return Sample(os.fspath(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Sample(name, bytes(source))
    if isinstance(source, Image.Image):
        return Sample(name, np.array(to_rgb(ImageOps.exif_transpose(source))))
    if isinstance(source, np.ndarray):
        _check_array(source)
        return Sample(name, source)
    raise UsageError(
        f"an image cannot be read from a {type(source).__name__}",
        mend="give a path, encoded bytes, an RGB uint8 array (height, width, 3), a Pillow image",
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


def _fill(network: Network, tensors: dict[str, Tensor], file: Path) -> None:
    expected = network.state_dict()
    missing = [key for key in expected if key not in tensors]
    surplus = [key for key in tensors if key not in expected]
    other = [k for k in expected if k in tensors and expected[k].shape != tensors[k].shape]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", surplus),
            ("of another shape", other),
        )
        if keys
    ]
    if problems:
        raise RetinueError(
            f"the tensors do not fit the model's own description: {', '.join(problems)}",
            where=str(file),
            mend="copy it anew from where it was made",
        )
    network.load_state_dict(tensors, strict=True)
