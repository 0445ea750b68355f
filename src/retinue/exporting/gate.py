"""The proof of an export: the file, read back from disk, answers as the model does.

Real images go through both from the image file on, each prepared as its own file says: so that a
wrong normalisation, another resize or another order of classes show, and not wrong weights alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinue.data.loader import Loader
from retinue.data.views import EvalView
from retinue.errors import BadImageError, RetinueError
from retinue.inference.agreement import Agreement, compare
from retinue.inference.intake import Whole
from retinue.inference.predictor import MEND, Predictor, held, original
from retinue.nested import leaves, rebuilt, structure
from retinue.sample import Part, Preprocessing, Result, Sample
from retinue.tasks.results import overlap
from retinue.text import counted

IMAGES = 16
"""So many are looked at, unless more are asked for."""
TOGETHER = 4
"""So many at a time."""


@dataclass(frozen=True)
class Allowed:
    """How far an export may be from its model."""

    error: float
    """Of the outputs, in their standard deviations."""
    score: float
    """Of an answer's score."""
    overlap: float
    """IoU that a place has at least with the model's."""
    others: float
    """Share of the answers that may be others: near ties and thresholds."""


ALLOWED = {
    "fp32": Allowed(1e-3, 2e-3, 0.99, 0.0),
    "fp16": Allowed(0.1, 2e-2, 0.97, 0.02),
    "bf16": Allowed(0.6, 0.15, 0.85, 0.1),
}
"""fp16 has 11 bits of mantissa, bf16 has 8; deep networks add their errors up."""
ROUNDED = Allowed(1e-3, 5e-2, 0.9, 0.1)
"""Where images are prepared in the graph: there, numbers between two of 255 levels may be rounded
the other way, for which nothing but the pixels themselves is to blame."""
PREPARED = 0.5
"""Levels of 255 that such pixels may be off in the mean."""


@dataclass(frozen=True)
class Proof:
    """How far the export was from its model, on real images."""

    images: int
    error: float | None
    """The largest of any output, in standard deviations of the model's; None: the export gives
    answers, not outputs."""
    other_best: int
    """Images of another best class."""
    score: float
    """The largest difference of an answer's score."""
    answers: int
    """That the model gave."""
    others: int
    """Answers of one without a counterpart of the other."""
    overlap: float | None
    """The smallest IoU of a place with the model's; None: there are no places."""
    together: float
    """How far the export is from itself where images come alone, in the same deviations."""
    allowed: Allowed | None
    """None: eight bits are judged by what they cost."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def told(self) -> str:
        """In a line."""
        parts = [] if self.error is None else [f"error {self.error:.1e} of the outputs' spread"]
        parts.append(f"scores within {self.score:.1e}")
        if self.overlap is not None:
            parts.append(f"IoU at least {self.overlap:.4f}")
        return f"{counted(self.images, 'image')}: {', '.join(parts)}"

    def problems(self) -> Iterator[str]:
        """What speaks against the export."""
        allowed = self.allowed
        if allowed is None:
            return
        if self.error is not None and not self.error <= allowed.error:
            yield f"outputs differ by {self.error:.2g} of their spread ({allowed.error:g} allowed)"
        if self.other_best:
            yield f"another best class for {counted(self.other_best, 'image')}"
        if not self.score <= allowed.score:
            yield f"scores differ by {self.score:.2g} ({allowed.score:g} allowed)"
        if self.overlap is not None and not self.overlap >= allowed.overlap:
            yield f"places overlap by {self.overlap:.3f} ({allowed.overlap:g} needed)"
        if self.others > allowed.others * self.answers:
            yield f"{counted(self.others, 'answer')} of {self.answers:,} without a counterpart"
        if not self.together <= allowed.error:
            yield f"an image's outputs depend on those beside it, by {self.together:.2g}"


def prove(
    model: Predictor,
    export: Predictor,
    samples: Sequence[Sample],
    precision: str,
    allowed: Allowed | None = None,
) -> Proof:
    """How far `export` is from `model` on the images of `samples`. `allowed`: by default what goes
    with the precision.

    Raises RetinueError where the two do not even know the same classes, BadImageError where an
    image cannot be read.
    """
    if export.classes != model.classes:
        raise RetinueError("the export has other classes than the model, or in another order")
    if export.description.task != model.description.task:
        raise RetinueError("the export is of another task than the model")
    allowed = allowed or ALLOWED.get(precision)
    whole = isinstance(export.intake, Whole)
    if whole:  # of pixels that both have: JPEGs are decoded at the scale that is needed otherwise
        samples = [_decoded(sample, model.preprocessing) for sample in samples]
    most = math.inf if allowed is None else allowed.error
    ours, own = looked(model, samples, TOGETHER)
    theirs, others = looked(export, samples, TOGETHER)
    if set(own) != set(others):
        raise RetinueError("the export and the model cannot read the same images")
    error = None if whole else _worst(ours, theirs, model, most)
    together = _mates(export, samples[0]) if whole else _together(export, samples, theirs, model)
    answers = Answers(model.task.places)
    for key, result in own.items():
        answers.compare(result, others[key])
    return Proof(
        images=len(ours),
        error=None if error is None else error.error,
        other_best=0 if error is None else error.flipped,
        score=answers.score,
        answers=answers.count,
        others=answers.others,
        overlap=answers.overlap if model.task.places else None,
        together=together,
        allowed=allowed,
    )


def refuse_preparation(
    prepare: Callable[[Tensor], tuple[Tensor, Any]], model: Predictor, samples: Sequence[Sample]
) -> float:
    """How far, in levels of 255, images that `prepare` makes of whole ones are from those that the
    model is shown, in the mean over the worst one's pixels. RetinueError where that is too far."""
    worst, std = 0.0, torch.tensor(model.preprocessing.std).view(3, 1, 1)
    for sample in samples:
        same = _decoded(sample, model.preprocessing)
        image = torch.from_numpy(np.array(original(same, model.preprocessing)))
        (batch,) = Loader(model.intake.view, workers=0).batches(model.intake.plans([same], 1))
        off = (prepare(image[None])[0] - model.intake.inputs(batch.images)).abs() * std * 255
        worst = max(worst, float(off.mean()))
    if not worst <= PREPARED:
        raise RetinueError(
            "the graph would not prepare images as the model file says"
            f" ({worst:.2g} of 255 levels off in the mean)",
            mend="leave end_to_end out (--end-to-end)",
        )
    return worst


def _together(
    export: Predictor, samples: Sequence[Sample], theirs: Outputs, model: Predictor
) -> float:
    """How far outputs are from those of images that come alone."""
    alone, _ = looked(export, samples[:TOGETHER], 1)
    return _worst({key: theirs[key] for key in alone}, alone, model, math.inf).error


def _mates(export: Predictor, sample: Sample) -> float:
    """The same of an export that takes images of one size at a time: of an image, that upside down
    and its negative; the largest difference of any of their answers."""
    (batch,) = Loader(export.intake.view, workers=0).batches(export.intake.plans([sample], 1))
    image = batch.images
    three = export.intake.inputs(torch.cat([image, image.flip(2), 255 - image]))
    engine = export.members[0].plain(export.device)
    said = leaves(engine(three))
    alone = [leaves(engine(three[k : k + 1])) for k in range(3)]
    worst = 0.0
    for leaf, *each in zip(said, *alone, strict=True):
        off = (leaf.double() - torch.cat(each).double()).abs() / leaf.double().abs().clamp(min=1)
        worst = max(worst, float(off.max()))
    return worst


def _decoded(sample: Sample, how: Preprocessing) -> Sample:
    return replace(sample, read=held(original(sample, how)))


def refuse_dependence(model: Predictor, samples: Sequence[Sample]) -> None:
    """Raise RetinueError for a network that answers an image otherwise where others are beside it:
    no export could be right."""
    together, _ = looked(model, samples[:TOGETHER], TOGETHER)
    alone, _ = looked(model, samples[:TOGETHER], 1)
    found = _worst(together, alone, model, 1e-3)
    if not found.error <= 1e-3:
        raise RetinueError(
            "the network's answer to an image depends on the images beside it"
            f" (by {found.error:.2g} of the outputs' spread)",
            mend="normalise by fixed statistics, as BatchNorm does in eval mode",
        )


def readable(samples: Sequence[Sample], model: Predictor, count: int) -> list[Sample]:
    """At most `count` of `samples`, spread evenly over them, that can be read. BadImageError where
    none of those tried can be."""
    tried = spread(samples, 2 * count)
    view, size = EvalView(model.preprocessing), model.preprocessing.size
    good: list[Sample] = []
    bad: dict[str, str] = {}
    for sample in [*tried[::2], *tried[1::2]]:
        if len(good) == count:
            break
        try:
            view.decoded(sample, size)
            good.append(sample)
        except BadImageError as error:
            bad |= error.reasons
    if not good:
        raise BadImageError(bad, mend="name readable images: images=… (--images)")
    return good


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` of `samples`, spread evenly over them."""
    places = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round())
    return [samples[int(k)] for k in places]


Outputs = dict[int, list[Any]]
"""Of each sample, by its place, what the network says of each view of it: nested, one row."""


def looked(
    predictor: Predictor, samples: Sequence[Sample], together: int
) -> tuple[Outputs, dict[int, Result]]:
    """What the network says, and what is answered, `together` samples at a time."""
    outputs: Outputs = {}
    results: dict[int, Result] = {}
    place = 0
    loader = Loader(predictor.intake.view, workers=0)
    for batch in loader.batches(predictor.intake.plans(samples, together)):
        places = range(place, place + len(batch))
        place += len(batch)
        found = []
        for seen, inputs in predictor.inputs(batch):
            for member, said in zip(predictor.members, predictor.outputs(inputs), strict=True):
                found.append(member.task.answers(said, seen, mend=MEND))
                for row, k in enumerate(places):
                    one = [leaf[row : row + 1] for leaf in leaves(said)]
                    outputs.setdefault(k, []).append(rebuilt(structure(said), one))
        for k, finding in zip(places, predictor.merged(found), strict=True):
            results[k] = predictor.task.result(finding, samples[k].key)
    return outputs, results


def _worst(reference: Outputs, other: Outputs, model: Predictor, allowed: float) -> Agreement:
    """All images' outputs, compared at once: the spread is that over all of them."""

    def scores(views: list[Any]) -> list[Any]:
        return [one for view in views for one in model.task.scores(view)]

    return compare(_stacked(other), _stacked(reference), allowed, scores=scores)


def _stacked(outputs: Outputs) -> list[Any]:
    """Of each view the outputs of all images, one under the other."""
    views = zip(*outputs.values(), strict=True)
    return [
        rebuilt(structure(view[0]), [
            torch.cat(same) for same in zip(*map(leaves, view), strict=True)
        ])
        for view in views
    ]  # fmt: skip


class Answers:
    """Compares the answers for one image after the other."""

    def __init__(self, places: bool) -> None:
        self.places = places
        self.score, self.overlap = 0.0, 1.0
        self.count = self.others = 0

    def compare(self, own: Result, other: Result) -> None:
        """Those of the model and of the export."""
        if self.places:
            self._parts(own.parts(), other.parts())
            return
        first, second = dict(own.answers()), dict(other.answers())
        self.count += len(first)
        for name in first.keys() & second.keys():
            self.score = max(self.score, abs(first[name] - second[name]))
        # What is last among the best may be another one, and what is near a threshold may be gone:
        # the outputs are compared, too.
        self.others += not first.keys() & second.keys() and bool(first or second)

    def _parts(self, own: Sequence[Part], other: Sequence[Part]) -> None:
        self.count += len(own)
        left = list(other)
        for part in own:
            same = [one for one in left if one.name == part.name]
            best = max(same, key=lambda one: overlap(part, one), default=None)
            if best is None or overlap(part, best) < 0.5:
                self.others += 1
                continue
            left.remove(best)
            self.overlap = min(self.overlap, overlap(part, best))
            self.score = max(self.score, abs(part.score - best.score))
        self.others += len(left)
