"""A stage's own data: functions from the samples so far to others, chosen by the recipe.

What comes out is written into the run folder, so that a resumed run repeats it whatever the
function would say by then.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, FiniteFloat, PositiveInt, ValidationError

from retinue.arrays import Rectangle
from retinue.data.sources.pool import POOL
from retinue.documents import NotJson, json_text, parse_json
from retinue.errors import RetinueError
from retinue.options import Options
from retinue.run.folder import RunFolder
from retinue.sample import LARGEST_SIDE, SMALLEST_TILE, Sample

Splits = Mapping[str, Sequence[Sample]]


class Subset(Options):
    """A part of the samples so far, the same share of every class: the same ones wherever the data
    lies."""

    alone: ClassVar[str | None] = "name"

    name: Literal["subset"] = "subset"
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """How much of every class is taken."""
    seed: int = 0
    """Another seed, other samples."""


class WithValidation(Options):
    """The samples so far and the validation split: for a last stage, once everything is chosen.
    The figures of that split are no judgement any more."""

    alone: ClassVar[str | None] = "name"

    name: Literal["with_validation"] = "with_validation"


class Tiles(Options):
    """Overlapping square parts of each image that is larger than they are, as samples of their own:
    for small objects in large images, which would be lost if all of it shrank to the input."""

    alone: ClassVar[str | None] = "name"

    name: Literal["tiles"] = "tiles"
    side: Annotated[int, Field(ge=SMALLEST_TILE, le=LARGEST_SIDE)] = 640
    """Of a tile, in pixels of the original. The last one of a row or column is shifted inwards."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """What neighbours share, as a part of the side: what is smaller lies in one tile as a whole."""
    whole: bool = True
    """The image as a whole is a sample, too, as it is looked at when predicting by tiles."""


class PseudoLabels(Options):
    """The labelled samples so far, and images without a label, with the one that the best weights
    so far give them (Lee, "Pseudo-Label", 2013). Images of the validation split never are among
    them. What was found stands in the run's `stages/NAME.labels.jsonl`."""

    alone: ClassVar[str | None] = "name"

    name: Literal["pseudo_labels"] = "pseudo_labels"
    of: Literal["pool", "test"] = "pool"
    """`pool`: the images of `data.pool`; `test`: those of the test split, whatever their labels
    are. Figures of that split then are those of images that were learnt from: transductive."""
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How sure a label has to be: the probability of its class."""
    per_class: PositiveInt | None = None
    """The most images that each class gets, the surest first; null: no limit."""
    labels: Literal["hard", "soft"] = "hard"
    """`hard`: the most likely class; `soft`: all classes with their probabilities."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """How much such an image counts in the loss."""


class WithPool(Options):
    """The samples so far and the images of `data.pool` without a label: what a teacher says of
    them is learnt, and nothing else (Hinton et al., "Distilling the knowledge in a neural
    network", 2015)."""

    alone: ClassVar[str | None] = "name"

    name: Literal["with_pool"] = "with_pool"


class Labelled(Options):
    """The samples so far that the data has a label of: without what `pseudo_labels` or `with_pool`
    has added."""

    alone: ClassVar[str | None] = "name"

    name: Literal["labelled"] = "labelled"


StageDataOptions = Annotated[
    Subset | WithValidation | Tiles | PseudoLabels | WithPool | Labelled,
    Field(discriminator="name"),
]
"""Which samples a stage learns from; null: those of the stage before."""

Label = Callable[[str, PseudoLabels, Sequence[Sample]], list[Sample]]
"""The name of a stage, what it asks for and images → those of them that get a label, with it."""
Change = Callable[[Any, Sequence[Sample], Splits], list[Sample]]


def _subset(options: Subset, samples: Sequence[Sample], splits: Splits) -> list[Sample]:
    strata: dict[str, list[int]] = defaultdict(list)
    for position, sample in enumerate(samples):
        strata[sample.target.stratum() if sample.target is not None else ""].append(position)
    kept: list[int] = []
    for members in strata.values():
        ranked = sorted(
            members, key=lambda p: _rank(options.seed, samples[p].name or samples[p].key)
        )
        kept += ranked[: max(round(len(members) * options.share), 1)]
    return [samples[p] for p in sorted(kept)]


def _rank(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogateescape")).digest()


def _with_validation(
    options: WithValidation, samples: Sequence[Sample], splits: Splits
) -> list[Sample]:
    return [*samples, *splits.get("val", ())]


def _tiles(options: Tiles, samples: Sequence[Sample], splits: Splits) -> list[Sample]:
    from retinue.data.tiles import tiled  # brings cv2, as the options must not

    return tiled(samples, options.side, options.overlap, whole=options.whole)


def _labelled(options: Options, samples: Sequence[Sample], splits: Splits) -> list[Sample]:
    guessed = {sample.key for part in (POOL, "test") for sample in splits.get(part, ())}
    return [sample for sample in samples if sample.key not in guessed]


def unlabelled(options: PseudoLabels, splits: Splits) -> list[Sample]:
    """The images that a stage gives labels: none that judges it, whatever split it is in, too."""
    judging = {sample.key for sample in splits.get("val", ())}
    return [
        replace(sample, target=None)
        for sample in splits.get(options.of, ())
        if sample.key not in judging
    ]


def _stand_ins(options: PseudoLabels, samples: Sequence[Sample], splits: Splits) -> list[Sample]:
    """What `pseudo_labels` may come to, before anything has been learnt: as many images as there
    can be, with the classes of those that have labels in turn."""
    own = _labelled(options, samples, splits)
    asked = unlabelled(options, splits)
    if options.per_class is not None:
        strata = {s.target.stratum() for s in own if s.target is not None}
        asked = asked[: options.per_class * len(strata)]
    known = [sample.target for sample in own]
    guessed = [replace(s, target=known[k % len(known)]) for k, s in enumerate(asked) if known]
    return [*own, *guessed]


def _with_pool(options: Options, samples: Sequence[Sample], splits: Splits) -> list[Sample]:
    own = _labelled(options, samples, splits)
    return [*own, *unlabelled(PseudoLabels(), splits)]


_CHANGES: dict[type[Options], Change] = {
    Subset: _subset,
    WithValidation: _with_validation,
    Tiles: _tiles,
    PseudoLabels: _stand_ins,
    WithPool: _with_pool,
    Labelled: _labelled,
}


def changed(
    options: Options | None,
    samples: Sequence[Sample],
    splits: Splits,
    label: Callable[[PseudoLabels, Sequence[Sample]], list[Sample]] | None = None,
) -> Sequence[Sample]:
    """What `options` make of the samples of the stage before. `label`: gives images labels; None:
    nobody can as yet, and others stand in for them."""
    if options is None:
        return samples
    if isinstance(options, PseudoLabels) and label is not None:
        own = _labelled(options, samples, splits)
        return [*own, *label(options, unlabelled(options, splits))]
    return _CHANGES[type(options)](options, samples, splits)


def stage_samples(
    run: RunFolder,
    stage: str,
    options: Options | None,
    samples: Sequence[Sample],
    splits: Splits,
    *,
    write: bool,
    label: Label | None = None,
) -> Sequence[Sample]:
    """The samples of the stage called `stage`, from those of the stage before. `label`: see
    `changed`; it is a collective operation.

    Raises:
        RetinueError: what was written down when the stage began names images that are not there.
    """
    if options is None:
        return samples
    name = f"stages/{stage}.jsonl"
    written = run.read_lines(name)
    if written is None:
        made = changed(options, samples, splits, label and partial(label, stage))
        if write:
            lines = (json_text(_line(sample)) for sample in made)
            run.write(name, "".join(f"{line}\n" for line in lines))
        return made
    everything = [s for split in splits.values() for s in split]
    known = {s.key: s for s in everything} | {s.name: s for s in everything if s.name}
    kind = next((type(s.target) for s in everything if s.target is not None), None)
    found = []
    for number, line in enumerate(written, 1):
        try:
            values = _Line.model_validate(parse_json(line), strict=True)
        except (NotJson, ValidationError):
            raise _damaged(run.path / name, number) from None
        sample = known.get(values.key)
        if sample is None:
            raise RetinueError(
                f"the stage's image {values.key!r} is not in the data any more",
                where=f"{run.path / name}, line {number}",
                mend="put the data back as it was, or start a new training",
            )
        try:
            told = values.target
            target = None if told is None or kind is None else kind.from_dict(told)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise _damaged(run.path / name, number) from None
        part: Rectangle | None = None
        if values.part is not None:
            x1, y1, x2, y2 = values.part
            part = x1, y1, x2, y2
        found.append(replace(sample, target=target, weight=values.weight, part=part))
    return found


class _Line(BaseModel):
    """A line of the file: a sample of the stage."""

    key: str
    target: dict[str, Any] | None
    weight: float = Field(ge=0, allow_inf_nan=False)
    part: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)] | None = None


def _damaged(path: Path, number: int) -> RetinueError:
    return RetinueError(
        "this is no sample of a stage",
        where=f"{path}, line {number}",
        mend="put the file back as it was, or start a new training",
    )


def _line(sample: Sample) -> dict[str, Any]:
    target = None if sample.target is None else sample.target.as_dict()
    # By its name within the data set, which may have moved until it is read again.
    line = {"key": sample.name or sample.key, "target": target, "weight": sample.weight}
    return line if sample.part is None else {**line, "part": list(map(float, sample.part))}
