"""Classification: one class an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from retinue.errors import UsageError
from retinue.evaluation.classification import figures
from retinue.models.network import Network
from retinue.options import Options
from retinue.sample import Batch, Result, Sample
from retinue.tasks.captions import caption
from retinue.tasks.task import Meter, Task, register_task


class ClassificationOptions(Options):
    """What can be chosen of the loss and of the answers."""

    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the label that is spread evenly over all classes (Szegedy et al., 2016)."""
    class_weights: Literal["none", "balanced"] | list[float] = "none"
    """How much each class counts in the loss. `balanced`: n / (classes × images of the class), so
    that every class counts the same in sum; or a number per class, in the order of the classes."""
    auxiliary_weight: float = Field(default=0.3, ge=0.0)
    """How much each auxiliary head counts, in networks that have them (Szegedy et al., 2015)."""
    top_k: int = Field(default=5, ge=1)
    """The K of the figure `topK`, and the most classes that a result names."""


@register_task
class Classification(Task):
    """One class an image, by softmax and cross entropy. At least two classes."""

    name: ClassVar[str] = "classification"
    options_type: ClassVar[type[Options]] = ClassificationOptions
    default_metric: ClassVar[str] = "top1"

    options: ClassificationOptions

    def __init__(self, classes: Sequence[str], options: Options | None = None) -> None:
        chosen = ClassificationOptions() if options is None else options
        if not isinstance(chosen, ClassificationOptions):
            raise TypeError(f"not classification's options: {type(chosen).__name__}")
        super().__init__(classes, chosen)
        if len(self.classes) < 2:
            raise UsageError(
                f"classification needs two classes or more, there is {len(self.classes)}",
                mend="add images of another class to tell this one from",
            )
        doubled = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if doubled:
            raise UsageError(f"the class {doubled[0]!r} is listed twice", where="key classes")
        self._weights: Tensor | None = None
        if isinstance(chosen.class_weights, list):
            self._weights = self._checked(chosen.class_weights)

    def observe(self, samples: Sequence[Sample]) -> None:
        """Told the training split before the first step: counts the classes for `balanced`."""
        if self.options.class_weights != "balanced":
            return
        labels = [s.label for s in samples if s.label is not None]
        counts = np.bincount(np.array(labels, dtype=np.int64), minlength=len(self.classes))
        # A class without images is in no loss; its weight only has to be finite.
        weights = len(labels) / (len(self.classes) * np.maximum(counts, 1))
        self._weights = torch.from_numpy(weights).float()

    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        """The network `network` of the zoo with one output a class."""
        from retinue.models.registry import create_model

        return create_model(
            network, **{**arguments, "num_classes": len(self.classes), "weights": weights}
        )

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`cross_entropy` and, where the network has auxiliary heads, `auxiliary`: (n,) each.

        `outputs["logits"]` is (n, classes), `outputs["auxiliary"]` the same or (heads, n, classes).
        Class weights are multiplied in (of soft labels, by their mean under the label); the
        sample's own weight (`batch.weight`) is not: the trainer multiplies by it, adds up the
        parts, and divides by the sum of the sample weights.
        """
        if batch.labels is None:
            raise UsageError("training needs images with labels")
        parts = {"cross_entropy": self._cross_entropy(outputs["logits"], batch.labels)}
        if "auxiliary" in outputs:
            auxiliary = outputs["auxiliary"]
            heads = auxiliary if auxiliary.dim() == 3 else auxiliary[None]
            losses = [self._cross_entropy(logits, batch.labels) for logits in heads]
            parts["auxiliary"] = self.options.auxiliary_weight * torch.stack(losses).sum(0)
        return parts

    def running(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`top1`: 1 where the best class is the one with the largest share of the label."""
        if batch.labels is None:
            return {}
        labels = batch.labels.argmax(1) if batch.labels.dim() == 2 else batch.labels
        return {"top1": (outputs["logits"].argmax(1) == labels).float()}

    def decode(self, outputs: Tensor, batch: Batch) -> list[Result]:
        """Logits (n, classes) to results: names with their probabilities, best first."""
        scores = outputs.detach().float().softmax(1).cpu().numpy()
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.options.top_k]
        return [
            Result(path, [(self.classes[i], float(row[i])) for i in best])
            for path, row, best in zip(batch.paths, scores, order, strict=True)
        ]

    def meter(self) -> ClassificationMeter:
        """A new, empty meter."""
        return ClassificationMeter(self.classes, self.options.top_k)

    def draw(self, image: npt.NDArray[np.uint8], result: Result) -> npt.NDArray[np.uint8]:
        """A copy of `image` with the best classes, three at most, written on it."""
        return caption(image, [f"{name}  {score:.1%}" for name, score in result.classes[:3]])

    def merge_views(self, outputs: Sequence[Tensor]) -> Tensor:
        """Logits (n, classes) of several views to one: log of the mean of their probabilities.

        A softmax leaves log-probabilities as they are, so that decoding and measuring go on as
        with the logits of one view.
        """
        log = torch.stack([view.float().log_softmax(1) for view in outputs])
        return log.logsumexp(0) - float(np.log(len(outputs)))

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(
            logits.float(), labels, reduction="none", label_smoothing=self.options.label_smoothing
        )
        if self.options.class_weights == "none":
            return loss
        if self._weights is None:
            raise RuntimeError("class_weights: balanced needs `observe` before the first loss")
        weights = self._weights.to(logits.device)
        return loss * (weights[labels] if labels.dim() == 1 else labels @ weights)

    def _checked(self, weights: list[float]) -> Tensor:
        if len(weights) != len(self.classes):
            raise UsageError(
                f"{len(weights)} class weights for {len(self.classes)} classes",
                where="key class_weights",
            )
        if min(weights) < 0 or max(weights) == 0:
            raise UsageError(
                "class weights must not be negative, nor all zero", where="key class_weights"
            )
        return torch.tensor(weights, dtype=torch.float32)


class ClassificationMeter(Meter):
    """Keeps float32 scores on the CPU. Rows without a label (−1) are in the table only."""

    def __init__(self, classes: Sequence[str], top_k: int) -> None:
        self._classes = tuple(classes)
        self._top_k = top_k
        self._index: list[npt.NDArray[np.int64]] = []
        self._labels: list[npt.NDArray[np.int64]] = []
        self._scores: list[npt.NDArray[np.float32]] = []
        self._paths: list[str] = []

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """`outputs`: logits or log-probabilities (n, classes). Rows of weight 0 are left out."""
        n = len(batch)
        weight = torch.ones(n) if batch.weight is None else batch.weight.cpu()
        kept = (weight != 0).numpy()
        if batch.labels is None:
            labels = np.full(n, -1, dtype=np.int64)
        else:
            hard = batch.labels.argmax(1) if batch.labels.dim() == 2 else batch.labels
            labels = hard.cpu().numpy().astype(np.int64)
        scores = outputs.detach().float().softmax(1).cpu().numpy()
        self._index.append(batch.index.cpu().numpy()[kept])
        self._labels.append(labels[kept])
        self._scores.append(scores[kept])
        self._paths.extend(path for path, keep in zip(batch.paths, kept, strict=True) if keep)

    def compute(self) -> dict[str, Any]:
        """See `retinue.evaluation.classification.figures`; over the rows that have a label."""
        _, labels, scores, _ = self._rows()
        known = labels >= 0
        return figures(labels[known], scores[known], self._classes, top_k=self._top_k)

    def table(self) -> pa.Table:
        """Columns path (string), label (int32, −1: unknown), scores (list of float32)."""
        _, labels, scores, paths = self._rows()
        flat = pa.array(scores.reshape(-1), pa.float32())
        offsets = pa.array(np.arange(len(paths) + 1, dtype=np.int32) * len(self._classes))
        return pa.table(
            {
                # File names need not be valid text; what is not is escaped, as in the writers.
                "path": pa.array([_text(path) for path in paths], pa.string()),
                "label": pa.array(labels, pa.int32()),
                "scores": pa.ListArray.from_arrays(offsets, flat),
            }
        )

    def _rows(
        self,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32], list[str]]:
        if not self._index:
            none = np.zeros(0, dtype=np.int64)
            return none, none, np.zeros((0, len(self._classes)), dtype=np.float32), []
        index = np.concatenate(self._index)
        order = np.argsort(index, kind="stable")  # batches may come in any order
        labels = np.concatenate(self._labels)[order]
        scores = np.concatenate(self._scores)[order]
        return index[order], labels, scores, [self._paths[i] for i in order]


def _text(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
