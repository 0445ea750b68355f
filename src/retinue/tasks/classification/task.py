"""One class an image, by softmax and cross entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from retinue.data.targets.one_class import OneClass
from retinue.errors import RetinueError, UsageError
from retinue.evaluation import classification as evaluation
from retinue.evaluation.mixture import mixture_weights
from retinue.figures import Figure
from retinue.nested import on_host
from retinue.options import Options
from retinue.page.section import TaskSections
from retinue.sample import Batch, Result, Sample
from retinue.tasks.classification.drawing import caption
from retinue.tasks.classification.forms import FORMS
from retinue.tasks.classification.meter import ClassificationMeter, answered, sharpened
from retinue.tasks.results import ClassResult
from retinue.tasks.shipped import SHIPPED
from retinue.tasks.state import checked_weights, fractions, refuse_width
from retinue.tasks.task import Guess, Meter, Task, register_task
from retinue.text import counted, few

if TYPE_CHECKING:
    from torch import Tensor

    from retinue.models.network import Network
    from retinue.tasks.classification.ending import Probabilities
    from retinue.tasks.classification.objective import ClassificationObjective


class ClassificationOptions(Options):
    """What can be chosen of the loss and of the answers."""

    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the label that is spread evenly over all classes (Szegedy et al., 2016)."""
    class_weights: Literal["none", "balanced"] | list[float] = "none"
    """How much each class counts in the loss. `balanced`: n / (classes × images of the class), so
    that every class counts the same in sum; or a number per class, in the order of the classes."""
    focal: float = Field(default=0.0, ge=0.0)
    """γ of the focal loss: an image counts less the better it is recognised, times (1 − p)^γ (Lin
    et al., 2017: 2); 0: all count the same."""
    logit_adjustment: float = Field(default=0.0, ge=0.0)
    """τ: while it learns, the logarithm of each class's share of the training images, times τ, is
    added to its logit, so that rare classes have to win by more; answers are without (Menon et al.,
    "Long-tail learning via logit adjustment", 2021: 1). Instead of class weights or a sampler that
    evens the classes out."""
    auxiliary_weight: float = Field(default=0.3, ge=0.0)
    """How much each auxiliary head counts, in networks that have them (Szegedy et al., 2015)."""
    centre_weight: float = Field(default=0.0, ge=0.0)
    """How much the squared distance of the feature, which the head gives, to the centre of its
    class counts; the centres learn along. For heads that give a feature: `model.head=glu`."""
    blend: Literal["search", "none"] = "search"
    """What is answered by a head with a second classifier (`model.head={name: glu, auxiliary:
    true}`). `search`: after each validation, the share of the first one's probabilities, in
    hundredths, that recognises most of the validation split; `none`: the first one's alone."""
    top_k: int = Field(default=5, ge=1)
    """The K of the figure `topK`, and the most classes that a result names."""
    calibration: Literal["auto", "none", "temperature"] = "auto"
    """`temperature`: after each validation, divide the logits by what makes the validation split
    most likely (Guo et al., 2017); the order of the answers stays. `auto`: only where the split is
    large enough to say that this helps, and the figures of the epochs are those without. `none`:
    never."""
    distillation_weight: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the loss that follows the teacher instead of the labels, where there is one."""
    distillation_temperature: float = Field(default=2.0, gt=0.0)
    """Both sides' logits are divided by this before they are compared (Hinton et al., 2015)."""


@register_task
class Classification(Task):
    """One class an image. At least two classes."""

    name: ClassVar[str] = "classification"
    taught_unlabelled: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = ClassificationOptions
    default_metric: ClassVar[str] = SHIPPED["classification"].default_metric
    formats: ClassVar[Mapping[str, str]] = {
        "elpv": "retinue.data.sources.elpv:ELPV",
        "digits": "retinue.data.sources.digits:ONE_BY_ONE",
        "tfrecord": "retinue.data.sources.tfrecord_classes:TFRECORD",
        "webdataset": "retinue.data.sources.webdataset:WEBDATASET",
        "table": "retinue.data.sources.table:TABLE",
        "folder": "retinue.data.sources.folder:FOLDER",
    }

    adjustable: ClassVar[frozenset[str]] = frozenset({"top_k"})
    forms: ClassVar[Mapping[str, str]] = FORMS

    options: ClassificationOptions

    def __init__(
        self,
        classes: Sequence[str],
        options: Options | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes, options)
        if len(self.classes) < 2:
            raise UsageError(
                f"classification needs two classes or more, there is {len(self.classes)}",
                mend="add images of another class to tell this one from",
            )
        known = dict(state or {})
        self._class_weights: list[float] | None = known.get("class_weights")
        if isinstance(self.options.class_weights, list):
            self._class_weights = checked_weights(
                self.options.class_weights, len(self.classes), "class_weights"
            )
        self._shares = fractions(known.get("class_shares"), len(self.classes), "class_shares")
        warmth = known.get("temperature", 1.0)
        if not isinstance(warmth, int | float) or not 0 < warmth < math.inf:
            raise RetinueError(
                f"the temperature {warmth!r} of the task's state is no number above 0",
                where="key task_state.temperature",
                mend="take the model from where it was made",
            )
        self._temperature = float(warmth)
        share = known.get("blend")
        if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
            raise RetinueError(
                f"the blend {share!r} of the task's state is no share from 0 to 1",
                where="key task_state.blend",
                mend="take the model from where it was made",
            )
        self._blend: float | None = None if share is None else float(share)
        taught = known.get("taught")
        if taught is not None and not (isinstance(taught, list) and set(taught) <= set(classes)):
            raise RetinueError(
                "the classes of the teacher are not among those of the model",
                where="key task_state.taught",
                mend="take the model from where it was made",
            )
        self._taught: list[str] | None = taught
        self._told_apart: list[int] | None = None

    @classmethod
    def sketch(cls, options: Options) -> Classification:
        """See `Task`: of as many classes as have a weight, where weights are given."""
        weights = options.class_weights if isinstance(options, ClassificationOptions) else None
        count = len(weights) if isinstance(weights, list) else 2
        return cls([str(k) for k in range(max(count, 2))], options)

    @classmethod
    def prepared(
        cls, classes: Sequence[str], options: Options, samples: Sequence[Sample]
    ) -> Classification:
        """See `Task`: counts the classes for `class_weights: balanced` and `logit_adjustment`."""
        task = cls(classes, options)
        weighs, adjusts = task.options.class_weights == "balanced", task.options.logit_adjustment
        if weighs or adjusts:
            labels = [s.target.of for s in samples if isinstance(s.target, OneClass)]
            counts = np.bincount(np.array(labels, dtype=np.int64), minlength=len(classes))
            # A class without images is in no loss; what it counts only has to be finite.
            counts = np.maximum(counts, 1)
            if weighs:
                task._class_weights = (len(labels) / (len(classes) * counts)).tolist()
            if adjusts:
                task._shares = (counts / counts.sum()).tolist()
        return task

    def state(self) -> dict[str, Any]:
        """See `Task`: `class_weights`, `class_shares`, `taught` (the classes of a teacher that does
        not know all of them), `temperature` and `blend`, where there are any."""
        state: dict[str, Any] = {}
        if self._taught is not None:
            state["taught"] = self._taught
        if self._class_weights is not None:
            state["class_weights"] = self._class_weights
        if self._shares is not None:
            state["class_shares"] = self._shares
        return state | self.fitted()

    def fitted(self) -> dict[str, Any]:
        """See `Task`."""
        warmth = {"temperature": self._temperature} if self._temperature != 1.0 else {}
        return warmth | ({"blend": self._blend} if self._blend is not None else {})

    def reads_like(self, other: Classification) -> bool:
        """See `Task`: what the classes weighed in training does not matter any more."""
        return self.classes == other.classes

    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        """The network `network` of the zoo with one output a class."""
        from retinue.models.registry import create_model

        built = create_model(
            network,
            **{**arguments, "num_classes": len(self.classes), "weights": weights},
            classes=self.classes,
        )
        # A head that answers by two classifiers: until both are judged, the first one's answer.
        if self._blend is None and hasattr(built.get_submodule(built.logits_layer), "auxiliary"):
            self._blend = 1.0
        return built

    def learn_from(self, teacher: Task, samples: Sequence[Sample]) -> None:
        """See `Task`: one that knows some of the classes teaches what tells these apart. Those of
        them that have no images here have no part in the labels' loss: without one to speak for
        them, it would only teach that they never occur."""
        lacking = [name for name in teacher.classes if name not in self.classes]
        if lacking:
            raise UsageError(
                f"the teacher knows {counted(len(lacking), 'class', 'classes')} that the data has"
                f" not: {few(lacking)}",
                mend="data.also=teacher keeps them as classes of the model",
            )
        if teacher.classes == self.classes:
            self._taught = None
            return
        self._taught = list(teacher.classes)
        shown = {sample.target.of for sample in samples if isinstance(sample.target, OneClass)}
        told = [k for k, c in enumerate(self.classes) if k in shown or c not in teacher.classes]
        self._told_apart = told if 1 < len(told) < len(self.classes) else None

    def objective(self, network: Network) -> ClassificationObjective:
        """See `Task`."""
        from retinue.tasks.classification.objective import ClassificationObjective

        options = self.options
        if options.class_weights == "balanced" and self._class_weights is None:
            raise RuntimeError("class_weights: balanced needs a task that was `prepared`")
        if options.logit_adjustment and self._shares is None:
            raise RuntimeError("logit_adjustment needs a task that was `prepared`")
        centres = None
        if options.centre_weight:
            centres = len(self.classes), self._feature_width(network)
        known = self._taught
        places = None if known is None else [self.classes.index(name) for name in known]
        return ClassificationObjective(
            label_smoothing=options.label_smoothing,
            class_weights=self._class_weights if options.class_weights != "none" else None,
            focal=options.focal,
            logit_adjustment=options.logit_adjustment,
            class_shares=self._shares,
            auxiliary_weight=options.auxiliary_weight,
            distillation_weight=options.distillation_weight,
            distillation_temperature=options.distillation_temperature,
            centre_weight=options.centre_weight,
            centres=centres,
            taught=places,
            told_apart=self._told_apart,
        )

    def _feature_width(self, network: Network) -> int:
        head = network.get_submodule(network.logits_layer)
        width = getattr(head, "feature_width", None)
        if not isinstance(width, int):
            raise UsageError(
                "the head gives no feature that could be near the centre of its class",
                where="key task_options.centre_weight",
                mend="model.head=glu, or leave centre_weight out",
            )
        return width

    def figures(self) -> Sequence[Figure]:
        """See `Task`."""
        own = evaluation.declared(self.classes, self.options.top_k)
        own += evaluation.OF_HEADS if self._blend is not None else ()
        return [*own, *(evaluation.OF_AGE if self._knows_more else ())]

    @property
    def _knows_more(self) -> bool:
        """Whether there are classes that its teacher did not know."""
        return self._taught is not None and len(self._taught) < len(self.classes)

    def undefined(self, samples: Sequence[Sample]) -> Mapping[str, str]:
        """See `Task`."""
        shown = {s.target.of for s in samples if isinstance(s.target, OneClass)}
        if not shown:
            return {figure.name: "none of its images has a label" for figure in self.figures()}
        undefined: dict[str, str] = {}
        if self._knows_more:
            old = {k for k, name in enumerate(self.classes) if name in (self._taught or ())}
            for name, there in (("top1_old", shown & old), ("top1_new", shown - old)):
                if not there:
                    undefined[name] = "it has no image of these classes"
        absent = [name for k, name in enumerate(self.classes) if k not in shown]
        if len(self.classes) == 2 and absent:
            undefined["auc"] = f"it has no image of class {absent[0]!r}"
        return undefined

    @classmethod
    def figures_among(cls, names: Sequence[str], classes: Sequence[str]) -> list[Figure]:
        """See `Task`; the K of `topK` is told by the name."""
        return evaluation.declared_among(names, classes)

    def decode(self, outputs: Any, batch: Batch) -> list[npt.NDArray[np.float32]]:
        """Logits (n, classes), by themselves or under that key, to log-probabilities, float32
        (classes,) each; with those of a second classifier under `auxiliary` to (3, classes) each:
        what is answered, and what the two say by themselves."""
        logits, *second = map(on_host, self.scores(outputs))
        refuse_width(logits.shape[1], len(self.classes))
        if not second:
            logits = (logits / np.float32(self._temperature)).astype(np.float32, copy=False)
            return list(log_softmax(logits))
        each = [log_softmax(scores) for scores in (logits, *second)]
        said = evaluation.blended(each[0], each[1], 1.0 if self._blend is None else self._blend)
        return list(np.stack([sharpened(said, 1 / self._temperature), *each], 1))

    def scores(self, outputs: Any) -> list[Tensor]:
        """See `Task`: the logits, and those of a second classifier."""
        if not isinstance(outputs, dict):
            return [outputs]
        return [outputs[name] for name in ("logits", "auxiliary") if name in outputs]

    def class_scores(self, finding: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """See `Task`: the probabilities."""
        scores: npt.NDArray[np.float64] = np.exp(answered(finding).astype(np.float64))
        return scores

    def support(self, outputs: Any, of: int) -> Tensor:
        """See `Task`: the logit; of two classifiers their logits, blended."""
        logits, *second = (scores.float()[:, of] for scores in self.scores(outputs))
        if not second:
            return logits
        share = 1.0 if self._blend is None else self._blend
        return share * logits + (1 - share) * second[0]

    def ending(self) -> Probabilities:
        """See `Task`."""
        from retinue.tasks.classification.ending import Probabilities

        return Probabilities(self._temperature, self._blend)

    def ended(self, outputs: Any, batch: Batch) -> list[npt.NDArray[np.float32]]:
        """See `Task`."""
        return list(np.log(np.maximum(on_host(outputs["scores"]), np.float32(1e-30))))

    def merge(self, findings: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """See `Task`: log of the mean of the probabilities."""
        merged = np.logaddexp.reduce(np.stack(_alike(findings)).astype(np.float64), axis=0)
        log: npt.NDArray[np.float32] = (merged - np.log(len(findings))).astype(np.float32)
        return log

    def weighed(
        self, findings: Sequence[npt.NDArray[np.float32]], weights: Sequence[float]
    ) -> npt.NDArray[np.float32]:
        """See `Task`: log of the weighted mean of the probabilities."""
        logs = np.stack(_alike(findings)).astype(np.float64)
        shares = np.log(np.asarray(weights)).reshape(-1, *[1] * (logs.ndim - 1))
        log: npt.NDArray[np.float32] = np.logaddexp.reduce(logs + shares).astype(np.float32)
        return log

    def weights(
        self, findings: Sequence[Sequence[npt.NDArray[np.float32]]], samples: Sequence[Sample]
    ) -> npt.NDArray[np.float64]:
        """See `Task`: those that make the labels most likely."""
        known = [k for k, s in enumerate(samples) if isinstance(s.target, OneClass)]
        labels = [int(samples[k].target.of) for k in known]  # type: ignore[union-attr]
        own = [
            [answered(of[k])[label] for k, label in zip(known, labels, strict=True)]
            for of in findings
        ]
        return mixture_weights(np.array(own, np.float64).T.reshape(-1, len(findings)))

    def result(self, finding: npt.NDArray[np.float32], path: str) -> Result:
        """See `Task`: the best classes with their probabilities."""
        scores = np.exp(answered(finding))
        best = np.argsort(-scores, kind="stable")[: self.options.top_k]
        classes = [(self.classes[i], float(scores[i])) for i in best]
        if finding.ndim == 1:
            return ClassResult(path, classes)
        each = dict(zip(evaluation.HEADS, np.exp(finding[1:]), strict=True))
        heads = {name: (self.classes[int(p.argmax())], float(p.max())) for name, p in each.items()}
        return ClassResult(path, classes, heads)

    def guess(self, finding: npt.NDArray[np.float32], *, soft: bool) -> Guess:
        """See `Task`: the likeliest class, or all with their probabilities."""
        shares = np.exp(answered(finding).astype(np.float64))
        best = int(shares.argmax())
        all_of_them = tuple((shares / shares.sum()).tolist()) if soft else None
        target = OneClass(best, len(shares), all_of_them)
        return Guess(target, self.classes[best], min(float(shares[best]), 1.0))

    def meter(self, *, tables: bool = False) -> ClassificationMeter:
        """See `Task`."""
        old = self._taught if self._knows_more else None
        return ClassificationMeter(self.classes, self.options.top_k, old)

    def doubts(self, samples: Sequence[Sample], steps: int) -> Sequence[str]:
        """See `Task`: a single new class has nothing to be told from."""
        if self._taught is None or self._told_apart is not None:
            return ()
        shown = {sample.target.of for sample in samples if isinstance(sample.target, OneClass)}
        if len(shown) > 1:
            return ()
        return (
            "the data has images of one class alone: the model can only learn to answer always so;"
            " a few images of the old classes would help",
        )

    def fit(self, meter: Meter) -> dict[str, Any]:
        """See `Task`: the blend of two classifiers, and the temperature, as the options ask."""
        how = self.options.calibration
        if not isinstance(meter, ClassificationMeter):
            return self.fitted()
        if self._blend is not None and self.options.blend == "search":
            self._blend = meter.blend(self._blend, self._temperature)
        if how != "none":
            self._temperature = meter.calibrate(self._temperature, cautious=how == "auto")
        return self.fitted()

    def draw(self, image: npt.NDArray[np.uint8], result: Result) -> npt.NDArray[np.uint8]:
        """A copy of `image` with the best classes, three at most, written on it."""
        # The score first: what a narrow picture has no room for is cut off at the end.
        return caption(image, [f"{score:.1%}  {name}" for name, score in result.answers()])

    @classmethod
    def sections(cls) -> TaskSections:
        """See `Task`."""
        from retinue.tasks.classification.sections import SECTIONS

        return SECTIONS


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of each row (n, classes) the logarithms of its softmax."""
    with np.errstate(invalid="ignore"):  # infinity less itself; `Task.answers` refuses it
        rest = logits - logits.max(1, keepdims=True)
        logs: npt.NDArray[np.float32] = rest - np.log(np.exp(rest).sum(1, keepdims=True))
    return logs


def _alike(findings: Sequence[npt.NDArray[np.float32]]) -> Sequence[npt.NDArray[np.float32]]:
    """Of models with one classifier and such with two only what they answer."""
    one_shape = len({finding.shape for finding in findings}) == 1
    return findings if one_shape else [answered(finding) for finding in findings]
