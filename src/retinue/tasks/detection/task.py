"""Objects by their boxes, from maps at several strides (Redmon & Farhadi, 2018, "YOLOv3")."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from retinue import modelfile
from retinue.data import geometry
from retinue.data.box_sizes import MAX_BOXES
from retinue.data.targets.boxes import Boxes
from retinue.errors import RetinueError, UsageError
from retinue.evaluation import detection as evaluation
from retinue.figures import Figure
from retinue.files import expanded
from retinue.nested import on_host
from retinue.options import Options
from retinue.page.section import TaskSections
from retinue.sample import Batch, Preprocessing, Rectangle, Result, Sample
from retinue.tasks.detection import anchors
from retinue.tasks.detection.candidates import Candidates
from retinue.tasks.detection.decoding import decode, evidence
from retinue.tasks.detection.drawing import draw_boxes
from retinue.tasks.detection.forms import FORMS
from retinue.tasks.detection.loss_options import LossOptions, weights_of_classes
from retinue.tasks.detection.meter import DetectionMeter, truth_of
from retinue.tasks.detection.shown import shown_sizes
from retinue.tasks.detection.suppression import suppress
from retinue.tasks.detection.tiling import joined
from retinue.tasks.detection.tracking import Following
from retinue.tasks.results import Box, BoxResult
from retinue.tasks.shipped import SHIPPED
from retinue.tasks.state import fractions
from retinue.tasks.task import Meter, Task, register_task
from retinue.text import counted, few

if TYPE_CHECKING:
    from torch import Tensor

    from retinue.models.network import Network
    from retinue.tasks.detection.ending import Suppressed
    from retinue.tasks.detection.objective import DetectionObjective

LOGGER = logging.getLogger("retinue")
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[float, Field(gt=0)]
FEWEST = 10
"""Objects of a class in the validation split, without which it has no threshold of its own."""
Anchors = list[list[tuple[Side, Side]]]
"""Widths and heights in pixels of the network's input, a list a level, the finest first."""


class DetectionOptions(Options):
    """What can be chosen of anchors, loss and answers."""

    anchors: Literal["published", "auto"] | Anchors = "published"
    """The boxes that predictions start from. `published`: those that the network brings;
    `auto`: clusters of the training boxes' sizes, where these differ enough; or widths and heights
    in pixels of the input, a list a level, the finest first."""
    loss: LossOptions = LossOptions()
    """What is learnt by."""
    objectness_prior: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """How sure of an object fresh predictions begin: 0.5, a bias of 0, as published; or lower,
    as hardly any is one (Lin et al., 2017, section 4.1)."""
    several_classes: bool = True
    """Whether a box can be answered with several classes, as the Keras version has it, or with its
    best one alone."""
    confidence: Share = 0.5
    """The least score of an answer, objectness times class."""
    iou: Share = 0.3
    """Of two answers of a class that overlap by more, the better one stays."""
    max_boxes: Annotated[int, Field(ge=1)] = MAX_BOXES
    """The most answers for an image, the best."""
    suppression: Literal["greedy", "soft", "diou"] = "greedy"
    """How the worse of two is dropped: at once; by lowering its score (Bodla et al., 2017); or less
    readily where the centres lie apart (Zheng et al., 2020)."""
    class_wise: bool = True
    """Whether boxes of different classes may overlap."""
    judged_confidence: Share = 0.001
    """The least score that counts when the network is judged."""
    validation_confidence: Share | None = None
    """In place of `judged_confidence` at the validations between epochs, which fewer boxes make
    quicker; the figures at the end keep to `judged_confidence`."""
    judged_iou: Share = 0.65
    """In place of `iou` there; PASCAL VOC's published figures have 0.5."""
    judged_boxes: Annotated[int, Field(ge=1)] = MAX_BOXES
    """In place of `max_boxes` there."""
    thresholds: Literal["fixed", "f1", "f1_per_class"] = "fixed"
    """`fixed`: answers need `confidence`; `f1`: what gives the best F1 on the validation split,
    fitted after each validation and kept in the model file; `f1_per_class`: for each class by
    itself."""


FEW_IMAGES, FEW_BOXES, FEW_STEPS = 50, 10, 100
"""Below these a training is doubted: of images, of boxes of a class, of steps."""


@register_task
class Detection(Task):
    """Objects by their boxes."""

    name: ClassVar[str] = "detection"
    options_type: ClassVar[type[Options]] = DetectionOptions
    default_metric: ClassVar[str] = SHIPPED["detection"].default_metric
    formats: ClassVar[Mapping[str, str]] = {
        "digits": "retinue.data.sources.digits:DIGITS",
        "voc": "retinue.data.sources.voc:VOC",
        "coco": "retinue.data.sources.coco:COCO",
        "yolo": "retinue.data.sources.yolo:YOLO",
        "boxes_csv": "retinue.data.sources.boxes_csv:BOXES_CSV",
        "tfrecord_boxes": "retinue.data.sources.tfrecord_boxes:TFRECORD_BOXES",
    }
    adjustable: ClassVar[frozenset[str]] = frozenset(
        ("confidence", "iou", "max_boxes", "suppression", "class_wise", "several_classes")
    )
    places: ClassVar[bool] = True
    forms: ClassVar[Mapping[str, str]] = FORMS

    options: DetectionOptions

    def __init__(
        self,
        classes: Sequence[str],
        options: Options | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes, options)
        chosen = self.options
        if not self.classes:
            raise UsageError("detection needs a class", mend="label objects with boxes")
        known = dict(state or {})
        given = known.get("anchors")
        if given is None and not isinstance(chosen.anchors, str):
            given = chosen.anchors
        self._anchors = None if given is None else _checked(given)
        self._thresholds = fractions(known.get("thresholds"), len(self.classes), "thresholds")
        self._published: Anchors = []
        weights: list[float] | None = known.get("class_weights")
        if isinstance(chosen.loss.class_weights, list):
            none_counted = [0] * len(self.classes)
            weights = weights_of_classes(chosen.loss.class_weights, none_counted)
        self._class_weights = weights
        self._strides = tuple(known.get("strides", ()))
        self._scale_xy = tuple(known.get("scale_xy", ()))

    @classmethod
    def sketch(cls, options: Options) -> Detection:
        """See `Task`: of as many classes as have a weight, where weights are given."""
        weights = options.loss.class_weights if isinstance(options, DetectionOptions) else None
        count = len(weights) if isinstance(weights, list) else 2
        return cls([str(k) for k in range(max(count, 1))], options)

    @classmethod
    def prepared(
        cls, classes: Sequence[str], options: Options, samples: Sequence[Sample]
    ) -> Detection:
        """See `Task`: counts the boxes of each class for `class_weights: balanced`. Raises
        UsageError where there is nothing to be found."""
        counts = Counter(of for s in samples if isinstance(s.target, Boxes) for of in s.target.of)
        if not counts:
            raise UsageError(
                "none of the training images has an object",
                where="key data",
                mend="label objects with boxes; `retinue data check` tells what was read",
            )
        task = cls(classes, options)
        if task.options.loss.class_weights == "balanced":
            each = [counts[of] for of in range(len(classes))]
            task._class_weights = weights_of_classes("balanced", each)
        return task

    def doubts(self, samples: Sequence[Sample], steps: int) -> list[str]:
        """See `Task`: few images, classes of few boxes, few steps."""
        counts = Counter(of for s in samples if isinstance(s.target, Boxes) for of in s.target.of)
        rare = [
            f"{name!r} ({counts[of]})"
            for of, name in enumerate(self.classes)
            if 0 < counts[of] < FEW_BOXES
        ]
        found = []
        if len(samples) < FEW_IMAGES:
            found.append(
                f"{counted(len(samples), 'image')} to learn from: few for a detector; label"
                f" {FEW_IMAGES} or more that show what it will meet"
            )
        if rare:
            found.append(
                f"fewer than {FEW_BOXES} boxes to learn from, of {few(rare)}: label more, and look"
                " at their own figures"
            )
        if steps < FEW_STEPS:
            found.append(
                f"{counted(steps, 'step')} in all: hardly enough to find anything; raise"
                " stages.*.epochs, or leave out what shortens them"
            )
        return found

    def state(self) -> dict[str, Any]:
        """See `Task`: `anchors`, `strides`, `scale_xy`, `class_weights` where there are any, and
        `thresholds` where they were fitted."""
        known = {
            "class_weights": self._class_weights,
            "anchors": self._anchors,
            "strides": list(self._strides) or None,
            "scale_xy": list(self._scale_xy) or None,
            "thresholds": self._thresholds,
        }
        return {key: value for key, value in known.items() if value is not None}

    def fitted(self) -> dict[str, Any]:
        """See `Task`."""
        if self._thresholds is None:
            return {}
        return {"thresholds": dict(zip(self.classes, self._thresholds, strict=True))}

    def network(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """See `Task`: a detector itself; for a classifier YOLOv3, built on it."""
        from retinue.models.registry import find

        entry = find(name)
        if entry.kind == "detector":
            return entry.name, dict(arguments)
        return "yolov3", {**arguments, "backbone": entry.name}

    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        """See `Task` and `network`."""
        from retinue.models.detector import Detector
        from retinue.models.registry import create_model

        name, keywords = self.network(network, arguments)
        built = create_model(
            name,
            **{**keywords, "num_classes": len(self.classes), "weights": weights},
            classes=self.classes,
        )
        assert isinstance(built, Detector)
        learnt = weights is not None and bool((built.objectness_biases() != 0).any())
        built.expect(self.options.objectness_prior)
        self._strides = built.strides
        self._scale_xy = built.scale_xy
        self._published = _anchors_of(weights) or _checked(built.anchors)
        if self._anchors is None and (learnt or self.options.anchors == "published"):
            self._anchors = self._published
        return built

    def settle(self, samples: Sequence[Sample], preprocessing: Preprocessing) -> None:
        """See `Task`: anchors by clusters, where they are asked for."""
        if self._anchors is not None:
            return
        sizes, each = shown_sizes(samples, preprocessing), len(self._published[0])
        try:
            self._anchors = anchors.fitted(sizes, len(self._strides), each=each)
        except UsageError as error:
            LOGGER.warning("%s: the published anchors are taken", error.what)
            self._anchors = self._published
            return
        reach = anchors.recall(sizes, self._anchors)
        LOGGER.info(
            "anchors %s: IoU %.2f with the boxes in the mean, 0.5 or more with %.1f %% of them",
            ", ".join(f"{w:g}×{h:g}" for level in self._anchors for w, h in level),
            reach.mean_iou,
            100 * reach.within_half,
        )
        for doubt in anchors.doubts(self._anchors):
            LOGGER.warning("%s", doubt)

    def objective(self, network: Network) -> DetectionObjective:
        """See `Task`."""
        from retinue.tasks.detection.objective import DetectionObjective

        return DetectionObjective(
            anchors=self._placed(),
            strides=self._strides,
            classes=len(self.classes),
            options=self.options.loss,
            scale_xy=self._scale_xy or None,
            class_weights=self._class_weights,
        )

    def figures(self) -> Sequence[Figure]:
        """See `Task`."""
        return evaluation.declared(self.classes, self.options.judged_boxes)

    def undefined(self, samples: Sequence[Sample]) -> Mapping[str, str]:
        """See `Task`."""
        known = [truth for sample in samples if (truth := truth_of(sample)) is not None]
        return evaluation.undefined(known, self.classes, self.options.judged_boxes)

    def decode(self, outputs: Any, batch: Batch) -> list[Candidates]:
        """See `Task`: everything above the smallest score that anybody asks for."""
        floor = min(self.options.confidence, self.options.judged_confidence)
        return decode(
            outputs["levels"],
            batch,
            anchors=self._placed(),
            strides=self._strides,
            scale_xy=self._scale_xy or None,
            confidence=floor,
            several_classes=self.options.several_classes,
        )

    def scores(self, outputs: Any) -> list[Tensor]:
        """See `Task`."""
        return []

    def ending(self) -> Suppressed:
        """See `Task`: greedy suppression, also by distance."""
        from retinue.tasks.detection.ending import Suppressed

        options = self.options
        if options.suppression == "soft":
            raise UsageError(
                "soft suppression has no graph",
                where="key task_options.suppression",
                mend="leave end_to_end out, or train with suppression=greedy",
            )
        return Suppressed(
            classes=len(self.classes),
            anchors=self._placed(),
            strides=self._strides,
            scale_xy=self._scale_xy or None,
            least=self._confidence(),
            iou=options.iou,
            max_boxes=options.max_boxes,
            class_wise=options.class_wise,
            by_distance=options.suppression == "diou",
            several_classes=options.several_classes,
        )

    def ended(self, outputs: Any, batch: Batch) -> list[Candidates]:
        """See `Task`: what is left of them after suppression."""
        found = []
        for k, (count, size) in enumerate(
            zip(outputs["count"].tolist(), batch.original_size.tolist(), strict=True)
        ):
            parts = (on_host(outputs[key][k, :count]) for key in ("boxes", "scores", "classes"))
            boxes, scores, of = parts
            xyxy = geometry.boxes_through(batch.to_original[k], boxes.astype(np.float64))
            xyxy = np.clip(xyxy, 0, [*size, *size]).astype(np.float32)
            found.append(Candidates(xyxy, scores, of, tuple(size)))
        return found

    def merge(self, findings: Sequence[Candidates]) -> Candidates:
        """See `Task`: all of them; suppression comes later."""
        return Candidates.joined(findings)

    def join(self, findings: Sequence[Candidates], windows: Sequence[Rectangle]) -> Candidates:
        """See `Task`."""
        return joined(findings, windows)

    def class_scores(self, finding: Candidates) -> npt.NDArray[np.float64]:
        """See `Task`: that of the surest object of each class."""
        scores = np.zeros(len(self.classes))
        np.maximum.at(scores, finding.of, finding.score)
        return scores

    def evidence(
        self, outputs: Any, batch: Batch, of: int | None = None
    ) -> list[npt.NDArray[np.float32]]:
        """See `Task`: the greatest score of any anchor and class, or that class, in each cell of
        the finest level, of all levels."""
        return evidence(outputs["levels"], [len(own) for own in self._placed()], of)

    def result(self, finding: Candidates, path: str) -> Result:
        """See `Task`."""
        kept = self._suppressed(finding, self._confidence())
        found = zip(kept.of.tolist(), kept.score.tolist(), kept.xyxy.tolist(), strict=True)
        boxes = [Box(self.classes[of], score, tuple(at)) for of, score, at in found]
        return BoxResult(path, boxes, finding.size)

    def adjusted(self, changes: Mapping[str, Any]) -> Self:
        """See `Task`; a confidence stands in place of what was fitted."""
        made = super().adjusted(changes)
        if made.options.confidence != self.options.confidence or "confidence" in changes:
            made._thresholds = None
        return made

    def follower(self) -> Following:
        """See `Task`."""
        return Following(self.classes, self._confidence(), self._suppressed)

    def _confidence(self) -> float | Sequence[float]:
        return self.options.confidence if self._thresholds is None else self._thresholds

    def _suppressed(self, finding: Candidates, least: float | Sequence[float]) -> Candidates:
        options = self.options
        return suppress(
            finding,
            confidence=least,
            iou=options.iou,
            max_boxes=options.max_boxes,
            class_wise=options.class_wise,
            kind=options.suppression,
        )

    def meter(self, *, tables: bool = False) -> DetectionMeter:
        """See `Task`."""
        options = self.options
        between_epochs = None if tables else options.validation_confidence
        return DetectionMeter(
            self.classes,
            confidence=options.judged_confidence if between_epochs is None else between_epochs,
            iou=options.judged_iou,
            max_boxes=options.judged_boxes,
            class_wise=options.class_wise,
            kind=options.suppression,
            answer_iou=options.iou,
            answer_boxes=options.max_boxes,
            thresholds=self._thresholds,
            tables=tables,
        )

    def fit(self, meter: Meter) -> dict[str, Any]:
        """See `Task`: the thresholds, as the options ask for it."""
        if self.options.thresholds != "fixed" and isinstance(meter, DetectionMeter):
            options = self.options
            best = meter.best_thresholds(fewest=FEWEST)
            overall = options.confidence if best.overall is None else best.overall
            own = best.per_class if self.options.thresholds == "f1_per_class" else []
            known = [overall if one is None else one for one in own]
            self._thresholds = known or [overall] * len(self.classes)
        return self.fitted()

    def draw(self, image: npt.NDArray[np.uint8], result: Result) -> npt.NDArray[np.uint8]:
        """See `Task`."""
        assert isinstance(result, BoxResult)
        return draw_boxes(image, result.boxes, self.classes)

    @classmethod
    def figures_among(cls, names: Sequence[str], classes: Sequence[str]) -> list[Figure]:
        """See `Task`; the N of `arN` is told by the name."""
        return evaluation.declared_among(names, classes)

    @classmethod
    def sections(cls) -> TaskSections:
        """See `Task`."""
        from retinue.tasks.detection.sections import SECTIONS

        return SECTIONS

    def _placed(self) -> Anchors:
        if self._anchors is None:
            raise RuntimeError("anchors: auto needs a task that was settled")
        return self._anchors


def _anchors_of(weights: str | None) -> Anchors | None:
    """Those that a detector's model file has learnt with; None where `weights` name none."""
    from retinue.weights.resolution import names_a_file

    if weights is None or not names_a_file(weights):
        return None
    try:
        description = modelfile.read_description(modelfile.find_model(expanded(weights)))
    except RetinueError:
        return None  # a file of another kind; whether it can be read, the network has told
    known = description.task_state.get("anchors")
    return _checked(known) if description.task == Detection.name and known else None


def _checked(anchors: Any) -> Anchors:
    """Raises RetinueError for what are no widths and heights."""
    array = [np.asarray(level, dtype=np.float64) for level in anchors]
    fine = all(a.ndim == 2 and a.shape[1] == 2 and np.isfinite(a).all() for a in array)
    if not array or not fine or not all(len(a) and (a > 0).all() for a in array):
        raise RetinueError(
            "anchors are widths and heights above 0, a list a level",
            where="key task_options.anchors",
            mend="anchors: published takes those of the network",
        )
    return [[(float(w), float(h)) for w, h in level] for level in array]
