"""What a task is. Trainer, checkpoints, predictor and report know this and nothing further.

A task says which data it reads, how its network is built, what is learnt, how raw outputs become
results, which figures judge them, and how they are drawn and reported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from retinue.data.sources.listing import Reader, Readers
from retinue.errors import RetinueError, UsageError, suggest
from retinue.figures import Figure
from retinue.files import expanded
from retinue.nested import is_tensor
from retinue.options import Options
from retinue.options.overrides import means
from retinue.options.refusal import validated
from retinue.page.section import TaskSections
from retinue.sample import Batch, Preprocessing, Rectangle, Result, Sample, Target
from retinue.tasks.shipped import DEFAULT, SHIPPED, imported
from retinue.text import counted, few

if TYPE_CHECKING:  # answers that were computed without torch are read without it
    import pyarrow as pa
    from torch import Tensor

    from retinue.data.options import DataOptions
    from retinue.modelfile import ModelDescription
    from retinue.models.network import Network
    from retinue.tasks.ending import Ending
    from retinue.tasks.objective import Losses as Losses
    from retinue.tasks.objective import Objective as Objective
    from retinue.tasks.objective import Part as Part

_OF_TORCH = ("Losses", "Objective", "Part")


def __getattr__(name: str) -> Any:
    """What a task learns by, which is made of PyTorch: there once it is asked for."""
    if name in _OF_TORCH:
        return getattr(importlib.import_module("retinue.tasks.objective"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


Finding = Any
"""What a task reads off a network's outputs for one image: arrays, in pixels of the original."""


class Guess(NamedTuple):
    """A label that a model gives to an image."""

    target: Target
    """With indices of classes."""
    label: str
    """The same in words."""
    sure: float
    """Between 0 and 1."""


class Meter(ABC):
    """Collects findings over a split and tells the figures."""

    @abstractmethod
    def update(self, findings: Sequence[Finding], samples: Sequence[Sample]) -> None:
        """What was found in the images of `samples`, and their targets, in original pixels."""

    @abstractmethod
    def rows(self) -> Any:
        """What was collected, as values that can be sent to another process."""

    @abstractmethod
    def extend(self, rows: Any) -> None:
        """Take in what another process collected."""

    def reread(self, tables: Mapping[str, pa.Table]) -> None:
        """Take in what the `tables` of another judgement hold. NotImplementedError where they do
        not hold all that figures are made of."""
        raise NotImplementedError

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """The figures of `metrics.json` as plain JSON values: `images`, a value for each declared
        figure (None where it is not defined), and small tables of the task's own."""

    @abstractmethod
    def tables(self) -> dict[str, pa.Table]:
        """Parquet files by name, `predictions` among them: a row an image, in any fixed order."""


class Follower(ABC):
    """Follows things through the frames of one video."""

    @abstractmethod
    def result(self, finding: Finding, path: str) -> Result:
        """That of the next frame; its parts have the numbers of things, their `track`. Something
        that may not be a thing has none."""


class Task(ABC):
    """One kind of recognition: options, class names in order, and a state that was worked out from
    data and stands in the model file."""

    name: ClassVar[str]
    options_type: ClassVar[type[Options]]
    default_metric: ClassVar[str]
    """The figure that picks the best weights unless the recipe names another."""
    formats: ClassVar[Mapping[str, str]]
    """Formats of data that it reads: name → `module:function`, a `Reader`. Of those that recognise
    a path, the first one is taken."""
    adjustable: ClassVar[frozenset[str]] = frozenset()
    """Those of its options that only say what is answered: they may be others afterwards than they
    were in training."""
    taught_unlabelled: ClassVar[bool] = False
    """Whether its objective takes images of which nothing is known but what a teacher says."""
    places: ClassVar[bool] = False
    """Whether its results have `parts`: what was found lies somewhere."""
    forms: ClassVar[Mapping[str, str]] = {}
    """How its results can be written, beside the ways that all can: name → `module:class`, a
    `Form` of retinue.tasks.forms."""

    def __init__(
        self,
        classes: Sequence[str],
        options: Options | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """`options`: by default all at their defaults. TypeError for those of another task,
        UsageError for a class that is listed twice."""
        self.classes = tuple(classes)
        self.options = self.options_type() if options is None else options
        if not isinstance(self.options, self.options_type):
            raise TypeError(f"not the options of {self.name}: {type(self.options).__name__}")
        doubled = sorted(name for name, times in Counter(self.classes).items() if times > 1)
        if doubled:
            raise UsageError(f"the class {doubled[0]!r} is listed twice", where="key classes")

    def __repr__(self) -> str:
        classes = counted(len(self.classes), "class", "classes")
        return f"<{type(self).__name__} {classes} ({few(self.classes)})>"

    @classmethod
    def prepared(cls, classes: Sequence[str], options: Options, samples: Sequence[Sample]) -> Self:
        """The task for a training on `samples`, before its network is built: what depends on them
        (class weights, anchors) is worked out here and becomes its state."""
        return cls(classes, options)

    def settle(self, samples: Sequence[Sample], preprocessing: Preprocessing) -> None:  # noqa: B027
        """Work out the rest of the state, once the network is there: what depends on how the
        images of the training `samples` come to it."""

    @classmethod
    def sketch(cls, options: Options) -> Self:
        """A task of two made-up classes, for checks before any data is read."""
        return cls(("a", "b"), options)

    def state(self) -> dict[str, Any]:
        """Plain JSON values: `type(task)(task.classes, task.options, task.state())` is the same."""
        return {}

    def reads_like(self, other: Self) -> bool:
        """Whether a network's outputs mean the same to `other`, but for what is fitted afterwards:
        only then have their weights a mean."""

        def settled(task: Task) -> dict[str, Any]:
            return {k: v for k, v in task.state().items() if k not in task.fitted()}

        return self.classes == other.classes and settled(self) == settled(other)

    def network(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The network of the zoo that `build` makes of a network's `name` and `arguments`, with the
        arguments that it makes it with, as far as they differ from others'."""
        return name, dict(arguments)

    @abstractmethod
    def build(self, network: str, arguments: dict[str, Any], weights: str | None) -> Network:
        """The network `network` of the zoo (`arguments` are its keywords) for these classes."""

    def learn_from(self, teacher: Task, samples: Sequence[Sample]) -> None:
        """Take notice of who it is taught by on the training `samples`, before the objective is
        made. Raises UsageError for one that cannot teach it."""
        if teacher.classes != self.classes:
            raise UsageError(
                f"the teacher knows other classes, or in another order: {few(teacher.classes)}, not"
                f" {few(self.classes)}",
                mend="train a teacher on the same data",
            )

    @abstractmethod
    def objective(self, network: Network) -> Objective:
        """What `network` is to learn by."""

    @abstractmethod
    def figures(self) -> Sequence[Figure]:
        """The figures that its meter computes, the most telling first."""

    def undefined(self, samples: Sequence[Sample]) -> Mapping[str, str]:
        """Those of its figures that cannot be measured on `samples` whatever the answers are: name
        and why. They are the ones that a meter gives None for."""
        return {}

    @classmethod
    def figures_among(cls, names: Sequence[str], classes: Sequence[str]) -> list[Figure]:
        """Those of its figures that `names` (of a `metrics.json`) holds, whatever options it was
        made with."""
        known = cls.sketch(cls.options_type()).figures()
        return [figure for figure in known if figure.name in names]

    @abstractmethod
    def decode(self, outputs: Any, batch: Batch) -> list[Finding]:
        """Outputs in eval mode, of any nesting, to what they say of each image; places are in
        pixels of the original images, to which `batch.to_original` leads."""

    def answers(self, outputs: Any, batch: Batch, *, mend: str) -> list[Finding]:
        """`decode`, where every number that comes out is finite; RetinueError names the first
        image of which that is not so: what is no number is no answer, and would rank anywhere."""
        findings = self.decode(outputs, batch)
        for finding, weight, sample in zip(
            findings, batch.weight.tolist(), batch.samples, strict=True
        ):
            if weight > 0 and not _finite(finding):
                raise RetinueError(
                    "the model's answer is not finite", where=repr(sample.key), mend=mend
                )
        return findings

    def scores(self, outputs: Any) -> list[Tensor]:
        """Those of the outputs in eval mode that are scores (n, classes): an engine is refused that
        finds another best class in them."""
        return []

    def ending(self) -> Ending:
        """From outputs to answers, as a part of a graph. UsageError where there is none."""
        raise UsageError(
            f"the task {self.name!r} has no graph for its answers", mend="leave end_to_end out"
        )

    def ended(self, outputs: Any, batch: Batch) -> list[Finding]:
        """`decode` of what its `ending` gives for the `batch`."""
        raise NotImplementedError

    def merge(self, findings: Sequence[Finding]) -> Finding:
        """One finding from those of several views, or several models, of the same image."""
        raise UsageError(f"the task {self.name!r} has no test-time augmentation", where="key tta")

    def weighed(self, findings: Sequence[Finding], weights: Sequence[float]) -> Finding:
        """`merge`, where each finding counts as much as its weight; these add up to 1."""
        raise UsageError(f"the task {self.name!r} does not weigh models", mend="merge them alike")

    def weights(self, findings: Sequence[Sequence[Finding]], samples: Sequence[Sample]) -> Any:
        """A weight for each model, (models,) numbers that add up to 1, with which `weighed` answers
        best for `samples`; `findings`: of each model one a sample. UsageError where there is no
        such thing."""
        raise UsageError(f"the task {self.name!r} does not weigh models", mend="merge them alike")

    def adjusted(self, changes: Mapping[str, Any]) -> Self:
        """The same task with other values for `adjustable` options: dotted key → value, text until
        the option is known. UsageError for anything else."""
        where, known = "given for the answers", sorted(self.adjustable)
        mend = f"what may be set is {', '.join(known)}" if known else "nothing may be set here"
        for key in changes:
            if not means(self.options_type, key):  # of all fields there are, few may be named here
                raise UsageError(
                    f"unknown key {key!r}", where=where, mend=suggest(key, known) or mend
                )
        values = validated(self.options_type, changes, where)
        if others := sorted(set(values) - self.adjustable):
            raise UsageError(f"{others[0]} is settled by the training", where=where, mend=mend)
        options = self.options_type.model_validate({**self.options.model_dump(), **values})
        return type(self)(self.classes, options, self.state())

    @classmethod
    def merges(cls) -> bool:
        """Whether there is a `merge`."""
        return cls.merge is not Task.merge

    def join(self, findings: Sequence[Finding], windows: Sequence[Rectangle]) -> Finding:
        """One finding from those of parts of one image, which overlap: of each the rectangle that
        it was seen through, x1, y1, x2, y2 in the original's pixels."""
        return self.merge(findings)

    def class_scores(self, finding: Finding) -> npt.NDArray[np.float64]:
        """How sure the finding is of each class, (classes,) between 0 and 1."""
        raise UsageError(
            f"the task {self.name!r} does not say how sure it is of each class",
            mend="explanations need `Task.class_scores`",
        )

    def support(self, outputs: Any, of: int) -> Tensor:
        """What speaks for class `of` in the outputs in eval mode before it becomes a share of
        anything, a logit say: (n,), through which gradients pass."""
        raise UsageError(
            f"the task {self.name!r} has no number for a class that gradients could pass through",
            mend="choose another method" if self.shows_evidence() else None,
        )

    def evidence(
        self, outputs: Any, batch: Batch, of: int | None = None
    ) -> list[npt.NDArray[np.float32]]:
        """How much speaks for anything of note, or for the class `of`: (height, width) between 0
        and 1 over each image's whole input, in as many cells as there are. See
        `shows_evidence`."""
        raise NotImplementedError

    @classmethod
    def shows_evidence(cls) -> bool:
        """Whether there is an `evidence`."""
        return cls.evidence is not Task.evidence

    def refuse_evidence(self) -> None:
        """UsageError where there is no `evidence`."""
        if not self.shows_evidence():
            raise UsageError(
                f"the task {self.name!r} does not say where its evidence lies",
                mend="leave the heat map out",
            )

    def follower(self) -> Follower:
        """A new one, for one video. UsageError where nothing can be followed."""
        raise UsageError(
            f"the task {self.name!r} finds nothing that could be followed through a video",
            mend="leave the tracking out",
        )

    @abstractmethod
    def result(self, finding: Finding, path: str) -> Result:
        """The finding with names."""

    def guess(self, finding: Finding, *, soft: bool) -> Guess:
        """The label that an image in which this was found would have. `soft`: with all that was
        thought likely. UsageError where a task does not learn from what it has found itself."""
        raise UsageError(
            f"the task {self.name!r} does not label images by itself",
            mend="leave the stages with `data: pseudo_labels` out",
        )

    @abstractmethod
    def meter(self, *, tables: bool = False) -> Meter:
        """A new, empty meter: for a validation between epochs, or, with `tables`, for the judgement
        of a model that is done, which keeps what its tables need, too."""

    def fit(self, meter: Meter) -> dict[str, Any]:
        """Choose on a validation split what is to be chosen there (a temperature, thresholds), and
        make it part of the state. What it came to, by name; empty: nothing is."""
        return {}

    def fitted(self) -> dict[str, Any]:
        """What `fit` has chosen so far, by name."""
        return {}

    def doubts(self, samples: Sequence[Sample], steps: int) -> Sequence[str]:
        """What is possible, but hardly meant, of a training on `samples` of so many steps in all:
        a sentence each, with what would mend it."""
        return ()

    @abstractmethod
    def draw(self, image: npt.NDArray[np.uint8], result: Result) -> npt.NDArray[np.uint8]:
        """A copy of the RGB uint8 `image` with `result` drawn on it."""

    @classmethod
    def sections(cls) -> TaskSections:
        """What a report shows of it between the curves and the recipe."""
        return TaskSections()

    @classmethod
    def readers(cls) -> Readers:
        """The `formats`, imported; and what to say where data is of another task's."""
        own = {name: imported(place) for name, place in cls.formats.items()}
        return Readers(own, partial(_readers_but, cls.name))


def _readers_but(name: str) -> Iterator[tuple[Reader, str]]:
    """Those of the shipped tasks that are not called `name`, and how to have them read."""
    for other, there in SHIPPED.items():
        if other != name:
            mend = f"`retinue train {there.usual}` reads it, or a recipe with `task: {other}`"
            yield from ((reader, mend) for reader in task_type(other).readers().values())


def _finite(finding: Finding) -> bool:
    """Whether all the numbers in `finding`, arrays in any nesting, are."""
    if isinstance(finding, Mapping):
        return all(map(_finite, finding.values()))
    if isinstance(finding, tuple | list):
        return all(map(_finite, finding))
    if is_dataclass(finding):
        return all(_finite(getattr(finding, one.name)) for one in fields(finding))
    if is_tensor(finding):
        return bool(finding.isfinite().all())
    array = np.asarray(finding)
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


_TASKS: dict[str, str | type[Task]] = {name: there.task for name, there in SHIPPED.items()}


def register_task(task: type[Task]) -> type[Task]:
    """Class decorator: makes `task` known to recipes and model files by its name."""
    known = _TASKS.get(task.name)
    if isinstance(known, type) and known is not task:
        raise ValueError(f"task {task.name!r} is already registered by {known.__module__}")
    _TASKS[task.name] = task
    return task


GROUP = "retinue.tasks"
"""Entry points of this group, in installed packages, are tasks: name → class."""


def task_names() -> list[str]:
    """Those that are known, sorted."""
    return sorted({*_TASKS, *_installed()})


def task_type(name: str) -> type[Task]:
    """The task called `name`."""
    found = _TASKS.get(name) or _installed().get(name)
    if found is None:
        known = task_names()
        mend = suggest(name, known) or f"there are {', '.join(known)}"
        raise UsageError(f"unknown task {name!r}", where="key task", mend=mend)
    if isinstance(found, str):
        found = imported(found)
        assert isinstance(found, type)
        _TASKS[name] = found
    return found


def task_of(options: DataOptions) -> str:
    """The task that the data which `options` lead to is for: one that knows its format, or else the
    default, which takes any folder of images. What a task's formats refuse (two files where one is
    to be, say) is that task's, too: it will say so when it is read."""
    from retinue.data.sources.recognise import UnknownFormatError, claimed, recognise

    for name in SHIPPED:
        if name != DEFAULT:
            try:
                readers = task_type(name).readers()
                claiming = {k: reader for k, reader in readers.items() if reader.claims is not None}
                reader, place = recognise(options, Readers(claiming, readers.others))
                if not claimed(reader, place, options):
                    continue
            except (UnknownFormatError, OSError):
                continue
            except RetinueError:
                if options.path is None or not expanded(options.path).exists():
                    continue  # of nothing; another task may bring data that is called so
            return name
    return DEFAULT


def described(description: ModelDescription) -> Task:
    """The task of a model file, as it was there. Raises RetinueError for options or a state that it
    does not know."""
    kind = task_type(description.task)
    try:
        options = kind.options_type.model_validate(description.task_options)
    except ValidationError as error:
        raise RetinueError(f"options that {description.task} does not know") from error
    return kind(description.classes, options, description.task_state)


def _installed() -> Mapping[str, str]:
    """Name → `module:class` of the tasks that other packages bring."""
    return _installed_on(tuple(sys.path))


@cache
def _installed_on(path: tuple[str, ...]) -> Mapping[str, str]:
    """Of packages on Python's search `path`. Every recipe asks, and all packages are gone through
    for it, which takes longer than all the rest of reading one."""
    points = importlib.metadata.entry_points(group=GROUP)
    return {point.name: f"{point.module}:{point.attr}" for point in points}
