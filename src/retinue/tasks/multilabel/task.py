"""Any number of labels an image, by a sigmoid and a threshold for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from retinue.data.targets.several_labels import SeveralLabels
from retinue.errors import UsageError
from retinue.evaluation import multilabel as evaluation
from retinue.figures import Figure
from retinue.nested import on_host
from retinue.options import Options
from retinue.page.section import TaskSections
from retinue.sample import Batch, Rectangle, Result, Sample
from retinue.tasks.classification.drawing import caption
from retinue.tasks.multilabel.forms import FORMS
from retinue.tasks.multilabel.meter import Logits, MultilabelMeter, probabilities
from retinue.tasks.results import LabelsResult
from retinue.tasks.shipped import SHIPPED
from retinue.tasks.state import checked_weights, fractions, refuse_width
from retinue.tasks.task import Meter, Task, register_task
from retinue.text import few

if TYPE_CHECKING:
    from torch import Tensor

    from retinue.models.network import Network
    from retinue.tasks.multilabel.ending import Labels
    from retinue.tasks.multilabel.objective import MultilabelObjective

HEAVIEST = 100.0
"""The most that a label counts, where labels that are there are balanced with those that are not:
of a class with one image in a hundred thousand, the loss would be nothing else."""


class MultilabelOptions(Options):
    """What can be chosen of the loss and of the answers."""

    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each label that is split evenly between yes and no."""
    positive_weights: Literal["none", "balanced"] | list[float] = "none"
    """How much a label counts in the loss where it is there, beside 1 where it is not. `balanced`:
    as many times as there are images without it for one with it, 100 at most; or a number per
    class, in the order of the classes."""
    gamma_positive: float = Field(default=0.0, ge=0.0)
    """Of a label that is there, how much less it counts the better it is recognised: times
    (1 − p)^γ (focal loss: both γ 2; Lin et al., 2017)."""
    gamma_negative: float = Field(default=0.0, ge=0.0)
    """The same of a label that is not there (asymmetric loss: 4, with `gamma_positive` 0 or 1 and
    `margin` 0.05; Ridnik et al., 2021)."""
    margin: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Labels that are not there count nothing below this probability, and above it as much less."""
    auxiliary_weight: float = Field(default=0.3, ge=0.0)
    """How much each auxiliary head counts, in networks that have them (Szegedy et al., 2015)."""
    thresholds: Literal["f1_per_class", "f1", "fixed"] = "f1_per_class"
    """From which probability on a label is given. `f1_per_class`: after each validation, what gives
    each class the highest F1 there, with the labels of all classes counted along, so that a few
    images do not decide; `f1`: one for all; `fixed`: `threshold`. Those that few labels in all
    speak for stay near `threshold`."""
    threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    """Of every class, one number, where none is fitted. Set for answers, it stands in place of what
    was."""
    distillation_weight: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the loss that follows the teacher instead of the labels, where there is one."""
    distillation_temperature: float = Field(default=2.0, gt=0.0)
    """Both sides' logits are divided by this before they are compared (Hinton et al., 2015)."""


@register_task
class Multilabel(Task):
    """Any number of labels an image, none among them."""

    name: ClassVar[str] = "multilabel"
    taught_unlabelled: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = MultilabelOptions
    default_metric: ClassVar[str] = SHIPPED["multilabel"].default_metric
    formats: ClassVar[Mapping[str, str]] = {
        "voc": "retinue.data.sources.image_labels:VOC",
        "coco": "retinue.data.sources.image_labels:COCO",
        "yolo": "retinue.data.sources.image_labels:YOLO",
        "boxes_csv": "retinue.data.sources.image_labels:BOXES",
        "tfrecord_boxes": "retinue.data.sources.image_labels:TFRECORD_BOXES",
        "table": "retinue.data.sources.labels_table:LABELS_TABLE",
        "folder": "retinue.data.sources.image_labels:FOLDER",
    }
    adjustable: ClassVar[frozenset[str]] = frozenset(("threshold",))
    forms: ClassVar[Mapping[str, str]] = FORMS

    options: MultilabelOptions

    def __init__(
        self,
        classes: Sequence[str],
        options: Options | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes, options)
        if not self.classes:
            raise UsageError("there is no class to be told", mend="give images labels")
        known = dict(state or {})
        self._positive_weights: list[float] | None = known.get("positive_weights")
        if isinstance(self.options.positive_weights, list):
            self._positive_weights = checked_weights(
                self.options.positive_weights, len(self.classes), "positive_weights"
            )
        self._thresholds = fractions(known.get("thresholds"), len(self.classes), "thresholds")

    @classmethod
    def sketch(cls, options: Options) -> Multilabel:
        """See `Task`: of as many classes as have a weight, where weights are given."""
        weights = options.positive_weights if isinstance(options, MultilabelOptions) else None
        count = len(weights) if isinstance(weights, list) else 2
        return cls([str(k) for k in range(max(count, 1))], options)

    @classmethod
    def prepared(
        cls, classes: Sequence[str], options: Options, samples: Sequence[Sample]
    ) -> Multilabel:
        """See `Task`: counts the labels for `positive_weights: balanced`. Raises UsageError where
        no image has any."""
        there, known = _counts(samples, len(classes))
        if not there.any():
            raise UsageError(
                "none of the training images has a label",
                where="key data",
                mend="give images labels; `retinue data check` tells what was read",
            )
        task = cls(classes, options)
        if task.options.positive_weights == "balanced":
            absent = known - there
            # A class of which nothing is there, or nothing is not, has nothing to be balanced with.
            sided = (there == 0) | (absent == 0)
            weights = np.where(sided, 1.0, absent / np.maximum(there, 1))
            task._positive_weights = np.minimum(weights, HEAVIEST).tolist()
        return task

    def doubts(self, samples: Sequence[Sample], steps: int) -> list[str]:
        """See `Task`: classes of which there is nothing to learn."""
        there, known = _counts(samples, len(self.classes))
        never = [name for k, name in enumerate(self.classes) if there[k] == 0]
        always = [name for k, name in enumerate(self.classes) if there[k] and there[k] == known[k]]
        found = []
        if never:
            found.append(f"no training image shows {few(never)}: it will not be recognised")
        if always:
            found.append(
                f"all training images show {few(always)}, or nobody knows: what is without is not"
                " learnt; add images that lack it, or say 0 where it is not there"
            )
        return found

    def state(self) -> dict[str, Any]:
        """See `Task`: `positive_weights` and `thresholds`, where there are any."""
        known = {"positive_weights": self._positive_weights, "thresholds": self._thresholds}
        return {key: value for key, value in known.items() if value is not None}

    def fitted(self) -> dict[str, Any]:
        """See `Task`."""
        if self._thresholds is None:
            return {}
        return {"thresholds": dict(zip(self.classes, self._thresholds, strict=True))}

    def reads_like(self, other: Multilabel) -> bool:
        """See `Task`: what the labels weighed in training does not matter any more."""
        return self.classes == other.classes

    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        """The network `network` of the zoo with one output a class."""
        from retinue.models.registry import create_model

        return create_model(
            network,
            **{**arguments, "num_classes": len(self.classes), "weights": weights},
            classes=self.classes,
        )

    def objective(self, network: Network) -> MultilabelObjective:
        """See `Task`."""
        from retinue.tasks.multilabel.objective import MultilabelObjective

        options = self.options
        if options.positive_weights == "balanced" and self._positive_weights is None:
            raise RuntimeError("positive_weights: balanced needs a task that was `prepared`")
        return MultilabelObjective(
            label_smoothing=options.label_smoothing,
            positive_weights=self._positive_weights if options.positive_weights != "none" else None,
            gamma_positive=options.gamma_positive,
            gamma_negative=options.gamma_negative,
            margin=options.margin,
            auxiliary_weight=options.auxiliary_weight,
            distillation_weight=options.distillation_weight,
            distillation_temperature=options.distillation_temperature,
        )

    def figures(self) -> Sequence[Figure]:
        """See `Task`."""
        return evaluation.declared()

    def undefined(self, samples: Sequence[Sample]) -> Mapping[str, str]:
        """See `Task`."""
        there, known = _counts(samples, len(self.classes))
        if not known.any():
            return {figure.name: "nothing is known of its images" for figure in self.figures()}
        found: dict[str, str] = {}
        if not there.any():
            why = "none of its images has a label"
            found = dict.fromkeys(("map", "f1_macro", "f1_micro", "recall"), why)
        targets = (sample.target for sample in samples)
        if not any(isinstance(target, SeveralLabels) and not target.unknown for target in targets):
            found["exact"] = "of none of its images all labels are known"
        return found

    @classmethod
    def figures_among(cls, names: Sequence[str], classes: Sequence[str]) -> list[Figure]:
        """See `Task`."""
        return evaluation.declared_among(names, classes)

    def decode(self, outputs: Any, batch: Batch) -> list[Logits]:
        """Logits (n, classes), by themselves or under that key, to float32 (classes,) each."""
        logits = on_host(*self.scores(outputs))
        refuse_width(logits.shape[-1], len(self.classes))
        return list(logits)

    def scores(self, outputs: Any) -> list[Tensor]:
        """See `Task`: the logits; what a second classifier says is not asked."""
        return [outputs["logits"] if isinstance(outputs, dict) else outputs]

    def class_scores(self, finding: Logits) -> npt.NDArray[np.float64]:
        """See `Task`: each class's own probability."""
        return np.asarray(probabilities(finding), np.float64)

    def support(self, outputs: Any, of: int) -> Tensor:
        """See `Task`: the logit."""
        (logits,) = self.scores(outputs)
        return logits.float()[:, of]

    def ending(self) -> Labels:
        """See `Task`."""
        from retinue.tasks.multilabel.ending import Labels

        return Labels(self._least().tolist())

    def ended(self, outputs: Any, batch: Batch) -> list[Logits]:
        """See `Task`."""
        # Of a probability that rounds to 1 the logit of the nearest float32 below.
        most = np.nextafter(np.float32(1), np.float32(0))
        scores = np.clip(on_host(outputs["scores"]), np.float32(1e-12), most)
        return list(np.log(scores / (1 - scores)))

    def merge(self, findings: Sequence[Logits]) -> Logits:
        """See `Task`: the logit of the mean of the probabilities."""
        logits = np.stack(findings).astype(np.float64)
        there = np.logaddexp.reduce(-np.logaddexp(0, -logits), axis=0)
        absent = np.logaddexp.reduce(-np.logaddexp(0, logits), axis=0)
        merged: Logits = (there - absent).astype(np.float32)
        return merged

    def join(self, findings: Sequence[Logits], windows: Sequence[Rectangle]) -> Logits:
        """See `Task`: what one part shows, the image shows."""
        best: Logits = np.max(np.stack(findings), axis=0)
        return best

    def result(self, finding: Logits, path: str) -> Result:
        """See `Task`: the labels whose probability reaches their threshold, the likeliest first."""
        scores = probabilities(finding)
        given = np.flatnonzero(scores >= self._least())
        best = given[np.argsort(-scores[given], kind="stable")]
        classes = [(self.classes[k], float(scores[k])) for k in best]
        return LabelsResult(path, classes, tuple(scores.tolist()))

    def adjusted(self, changes: Mapping[str, Any]) -> Self:
        """See `Task`; a threshold stands in place of what was fitted."""
        made = super().adjusted(changes)
        if "threshold" in changes:
            made._thresholds = None
        return made

    def meter(self, *, tables: bool = False) -> MultilabelMeter:
        """See `Task`."""
        return MultilabelMeter(self.classes, self._least().tolist())

    def fit(self, meter: Meter) -> dict[str, Any]:
        """See `Task`: the thresholds, as the options ask for it."""
        how = self.options.thresholds
        if how != "fixed" and isinstance(meter, MultilabelMeter):
            each = meter.best_thresholds() if how == "f1_per_class" else None
            if each is None:
                overall = meter.best_threshold()
                one = self.options.threshold if overall is None else overall
                each = [one] * len(self.classes)
            self._thresholds = meter.held_back(each, self.options.threshold)
            meter.thresholds = self._least()
        return self.fitted()

    def draw(self, image: npt.NDArray[np.uint8], result: Result) -> npt.NDArray[np.uint8]:
        """A copy of `image` with its labels, or that there are none, written on it."""
        lines = [f"{score:.1%}  {name}" for name, score in result.answers()]
        return caption(image, lines or ["no label"])

    @classmethod
    def sections(cls) -> TaskSections:
        """See `Task`."""
        from retinue.tasks.multilabel.sections import SECTIONS

        return SECTIONS

    def _least(self) -> npt.NDArray[np.float64]:
        """(classes,): from which probability on a label is given."""
        if self._thresholds is None:
            return np.full(len(self.classes), self.options.threshold)
        return np.array(self._thresholds)


def _counts(
    samples: Sequence[Sample], classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(classes,) each: in how many images each class is, and of how many that is known."""
    there, known = np.zeros((2, classes), np.int64)
    for sample in samples:
        target = sample.target
        if isinstance(target, SeveralLabels):
            there[[int(k) for k in target.of]] += 1
            known += 1
            known[[int(k) for k in target.unknown]] -= 1
    return there, known
