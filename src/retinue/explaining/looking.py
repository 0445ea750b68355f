"""One image as one network sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.data.loader import Loader
from retinue.errors import BadImageError, UsageError
from retinue.inference.predictor import Predictor, Source, as_sample, original
from retinue.inference.tracing import evaluating
from retinue.models.network import Network
from retinue.sample import Batch, Pixels, Sample, Size
from retinue.tasks.task import Task

Cells = npt.NDArray[np.float32]
"""(rows, columns) over the whole input, not negative: how much each cell speaks for the class."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a method is given."""

    network: Network
    task: Task
    inputs: Tensor
    """float32 (1, 3, height, width), normalised."""
    of: int
    """The class that is asked for."""

    @property
    def size(self) -> Size:
        """Height and width of the input."""
        height, width = self.inputs.shape[-2:]
        return height, width

    def support(self, outputs: Any) -> Tensor:
        """What speaks for the class, (n,): see `Task.support`."""
        return self.task.support(outputs, self.of)


def seen(predictor: Predictor, sample: Sample) -> Batch:
    """The sample as the predictor's networks get it. Raises BadImageError."""
    loader = Loader(predictor.intake.view, workers=0, bad_images="drop")
    (batch,) = loader.batches(predictor.intake.plans([sample], 1))
    if loader.skipped:
        raise BadImageError(dict(loader.skipped))
    return batch


def look(predictor: Predictor, batch: Batch, of: int) -> Look:
    """The plain view of `batch`, whatever views the predictor joins."""
    _, inputs = next(iter(predictor.inputs(batch)))
    return Look(the_network(predictor), predictor.task, inputs, of)


def the_network(predictor: Predictor) -> Network:
    """The one that is to be looked into. Raises UsageError where several networks answer, or an
    exported file, which holds none."""
    members = predictor.members
    if len(members) > 1:
        raise UsageError(
            f"an explanation is of one network, and {len(members)} answer together here",
            mend="explain each model by itself; --beside shows several side by side",
        )
    return members[0].network


@contextmanager
def gradients(network: Network) -> Iterator[None]:
    """The network in eval mode, where gradients are kept, whatever is around it."""
    with torch.inference_mode(mode=False), torch.enable_grad(), evaluating(network):
        yield


def upright(image: Source) -> Pixels:
    """RGB uint8 (height, width, 3) of an image as it is explained: turned as its EXIF orientation
    says, at its full size. Raises BadImageError."""
    return original(as_sample(image, "the image"))
