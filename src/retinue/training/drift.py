"""Whether new images are like those that a model was trained on, told plainly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retinue.data.loader import Loader, worker_count
from retinue.data.readable import Telling, in_turn
from retinue.data.sources.copies import copies
from retinue.data.traits import traits
from retinue.errors import BadImageError, UsageError, some
from retinue.evaluation.drift import Shift, Values, shifts
from retinue.evaluation.separation import Features, Separation, separation
from retinue.explaining.looking import the_network
from retinue.inference.ensembles import members_of
from retinue.inference.predictor import Predictor
from retinue.inference.tracing import evaluating
from retinue.modelfile import find_model
from retinue.models.network import Halves
from retinue.sample import Sample
from retinue.text import counted
from retinue.training.evaluation import own_dataset

FEW = 20
"""Of fewer images nothing can be said."""

_WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("flatter", "richer in contrast"),
    "colour": ("greyer", "more colourful"),
    "warmth": ("bluer", "redder"),
    "sharpness": ("blurrier", "sharper or noisier"),
    "megapixels": ("smaller", "larger"),
    "aspect": ("taller", "wider"),
    "confidence": ("answered with less confidence", "answered with more confidence"),
    "answers": ("answered with fewer things", "answered with more things"),
}
"""What a low and a high value are called."""
_LEAST = {
    "brightness": 0.02,
    "contrast": 0.02,
    "colour": 0.02,
    "warmth": 0.02,
    "sharpness": 0.1,
    "confidence": 0.02,
    "answers": 0.1,
}
"""How far values move in the mean before anybody cares."""
_SHARE = 0.05
_SIZES = ("megapixels", "aspect")
"""The same of these, as a share of what is usual."""


@dataclass(frozen=True)
class Drift:
    """What came of the comparison."""

    known: int
    """Images of the training data that were looked at."""
    new: int
    shifts: list[Shift]
    """Number by number, the farthest apart first."""
    shares: dict[str, tuple[float, float]]
    """Class → its share of the best answers for known and new images, those that changed most
    first."""
    skipped: dict[str, str] = field(default_factory=dict)
    """New images that cannot be read, with the reasons."""
    notes: list[str] = field(default_factory=list)
    features: Separation | None = None
    """Whether they can be told apart by what the network makes of them; None: it cannot be looked
    into, or has no last map."""
    same: int = 0
    """Further new images that are known ones, by their bytes: they are compared with nothing."""

    @classmethod
    def of_copies(cls, what: Pictures) -> Drift:
        """Of new images that are all known ones."""
        return cls(len(what.train), 0, [], {}, same=what.same)

    def __repr__(self) -> str:
        return f"<Drift of {counted(self.new or self.same, 'image')}: {self.told()[0]}>"

    @property
    def drifted(self) -> bool:
        """Whether anything is notably other than it was."""
        return any(verdict != "same" for verdict in self._verdicts())

    def _verdicts(self) -> list[str]:
        return [one.verdict for one in self.shifts] + [f.verdict for f in self._of_features()]

    def _of_features(self) -> list[Separation]:
        return [] if self.features is None else [self.features]

    def told(self) -> list[str]:
        """A verdict, and a sentence for each number that has changed."""
        if self.same and not self.new:
            return [f"the same images: all {self.same:,} are known ones, byte for byte"]
        changed = [one for one in self.shifts if one.verdict != "same"]
        apart = [one for one in self._of_features() if one.verdict != "same"]
        if not changed and not apart:
            lines = [f"like the training data, as far as {counted(self.new, 'image')} can tell"]
        else:
            far = "far off" in self._verdicts()
            names = ", ".join([*(one.name for one in changed), *["features"] * len(apart)])
            lines = [f"{'very unlike' if far else 'unlike'} the training data in: {names}"]
        of_features = [one.told() for one in self._of_features()]
        return [*lines, *map(_sentence, changed), *of_features, *self.notes]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "known": self.known,
            "new": self.new,
            "same": self.same,
            "drifted": self.drifted,
            "told": self.told(),
            "shifts": [one.as_dict() for one in self.shifts],
            "features": None if self.features is None else self.features.as_dict(),
            "shares": {name: list(pair) for name, pair in self.shares.items()},
            "skipped": self.skipped,
        }


def _sentence(one: Shift) -> str:
    low, high = _WORDS.get(one.name, ("lower", "higher"))
    word, share = (low, one.below) if one.new < one.known else (high, one.above)
    said = f"{one.name}: {word}, {one.new:.3g} in the middle where it was {one.known:.3g}"
    if share < 0.1:
        return said
    return f"{said}; {100 * share:.0f} % are {word} than nearly all of the training images (97.5 %)"


@dataclass(frozen=True)
class Pictures:
    """What is compared."""

    train: list[Sample]
    """Whose looks are compared with."""
    judged: list[Sample]
    """Whose answers are."""
    fresh: list[Sample]
    """The new ones that are none of the known."""
    same: int = 0
    """New images that are known ones, by their bytes: no part of the comparison. A classifier of
    the two that has learnt an image as known takes its copy for known, too."""
    learnt: bool = False
    """Whether the model has learnt from all that are compared with."""


def pictures(
    model: Path, paths: Iterable[str], *, against: Iterable[str] | None = None, images: int = 500
) -> Pictures:
    """Of the images at `paths` and of the training data of `model`, or those at `against`, at most
    `images` each, drawn evenly.

    The answers are compared with those for images that the model has not learnt from, where there
    are any: it is surer of the others. Raises UsageError where the data is gone or too small.
    """
    file = find_model(model)
    if against is not None:
        train = judged = known = [Sample(path) for path in against]
    else:
        mend = "name pictures to compare with: --against OLD"
        splits = own_dataset(find_model(members_of([file])[0][0]), mend=mend).splits
        known = [sample for part in splits.values() for sample in part]
        train = judged = list(splits.get("train") or next(iter(splits.values())))
        held = [splits[name] for name in ("test", "val") if len(splits.get(name, ())) >= FEW]
        judged = list(held[0]) if held else train
    named = [Sample(path) for path in paths]
    there = copies(named, known)
    fresh = [sample for sample, is_known in zip(named, there, strict=True) if not is_known]
    same = sum(there)
    besides = f", and {same:,} that are known ones" if same else ""
    for what, samples in (("training data has", train), ("new data has", fresh)):
        if len(samples) < FEW and not (samples is fresh and not fresh and same >= FEW):
            has = f"{counted(len(samples), 'image')}{besides if samples is fresh else ''}"
            raise UsageError(
                f"the {what} {has}: too few to compare anything", mend=f"give {FEW} or more"
            )
    learnt = judged is train and against is None
    train = _some(train, images)
    judged = train if learnt or against is not None else _some(judged, images)
    return Pictures(train, judged, _some(fresh, images), same, learnt)


def drift(
    predictor: Predictor, what: Pictures, *, progress: Callable[[int, int], None] | None = None
) -> Drift:
    """Compares the pictures: how they look, how `predictor` answers them, and whether its network's
    features tell them apart. Raises UsageError where too few of them can be read."""
    train, judged, fresh = what.train, what.judged, what.fresh
    second = _before_the_head(predictor)
    total = len(train) + len(judged) + 2 * len(fresh)
    total += 0 if second is None else len(judged) + len(fresh)
    telling = Telling(progress, total)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        telling(done)

    skipped: dict[str, str] = {}
    unread: dict[str, str] = {}
    looks = [_looks(samples, bad, one_more) for samples, bad in ((train, unread), (fresh, skipped))]
    for look, bad, which in zip(looks, (unread, skipped), ("known", "new"), strict=True):
        if (read := _count(look)) < FEW:
            raise UsageError(
                f"only {counted(read, f'{which} image')} can be read", where=_paths(bad)
            )
    answers = [_answers(predictor, samples, one_more) for samples in (judged, fresh)]
    features = None
    if second is not None:
        made = [_features(predictor, second, samples, one_more) for samples in (judged, fresh)]
        features = separation(*made) if min(map(len, made)) >= FEW else None
    telling.end()
    for answer, which in zip(answers, ("known", "new"), strict=True):
        if (read := _count(answer[0])) < FEW:
            raise UsageError(f"only {counted(read, f'{which} image')} can be read and answered")
    known, new = ({**look, **answer[0]} for look, answer in zip(looks, answers, strict=True))
    notes = []
    if what.learnt:
        notes.append(
            "the model has learnt from all images that it was compared on: it is surer of these"
        )
    if what.same:
        count = counted(what.same, "new image is a known one", "new images are known ones")
        notes.append(f"{count}, byte for byte, and left out")
    shares = _shares(answers[0][1], answers[1][1])
    changed = [n for n, (was, now) in shares.items() if abs(now - was) > 0.15]
    if changed:
        told = [f"“{n}” {100 * shares[n][0]:.0f} → {100 * shares[n][1]:.0f} %" for n in changed[:4]]
        notes.append(f"other answers than before: {', '.join(told)}")
    if unread:
        count = counted(len(unread), "known image")
        notes.append(f"{count} cannot be read, and left out: {_paths(unread)}")
    least = _LEAST | {name: _SHARE * float(np.median(known[name])) for name in _SIZES}
    looked_at = [_count(look) for look in looks]
    moved = shifts(known, new, least)
    return Drift(
        looked_at[0], looked_at[1], moved, shares, skipped, notes, features, same=what.same
    )


def _paths(bad: dict[str, str]) -> str:
    """The first few, whole: to be looked at."""
    return some([repr(path) for path in bad], 3, between=", ")


def _some(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many, evenly drawn, the same ones each time."""
    if len(samples) <= most:
        return list(samples)
    chosen = np.sort(np.random.default_rng(0).choice(len(samples), most, replace=False))
    return [samples[k] for k in chosen.tolist()]


def _looks(
    samples: Sequence[Sample], bad: dict[str, str], tell: Callable[[], None]
) -> dict[str, Values]:
    """How they look, by the name of each number; what cannot be read goes into `bad`."""

    def look(sample: Sample) -> dict[str, float] | str:
        try:
            return traits(sample.key, sample.read)
        except BadImageError as error:
            return next(iter(error.reasons.values()))

    workers = max(worker_count("auto"), 1)
    rows = []
    with ThreadPoolExecutor(workers) as pool:
        for sample, found in zip(samples, in_turn(pool, look, samples, 4 * workers), strict=True):
            tell()
            if isinstance(found, str):
                bad[sample.key] = found
            else:
                rows.append(found)
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _count(values: dict[str, Values]) -> int:
    """Of how many images they are."""
    return len(next(iter(values.values()), ()))


def _answers(
    predictor: Predictor, samples: Sequence[Sample], tell: Callable[[], None]
) -> tuple[dict[str, Values], Counter[str]]:
    """How sure the best answer is and how many there are, and the name of the best one."""
    sure, many, best = [], [], Counter[str]()
    for answer in predictor.answers(samples):
        tell()
        if answer.reason:
            continue
        found = predictor.task.result(answer.finding, answer.sample.key).answers()
        sure.append(max((score for _, score in found), default=0.0))
        many.append(float(len(found)))
        best[max(found, key=lambda pair: pair[1])[0] if found else "nothing"] += 1
    return {"confidence": np.array(sure), "answers": np.array(many)}, best


def _before_the_head(predictor: Predictor) -> Halves | None:
    """The part of the network that makes the features; None where there is no one such part."""
    try:
        return the_network(predictor).halves(predictor.preprocessing.size)
    except UsageError:  # several models, an exported file, or maps of several levels
        return None


def _features(
    predictor: Predictor, halves: Halves, samples: Sequence[Sample], tell: Callable[[], None]
) -> Features:
    """What the head is given of each image that can be read, the mean over its places: (n, d)."""
    rows = []
    loader = Loader(predictor.intake.view, workers=predictor.workers, bad_images="drop")
    with torch.inference_mode(), evaluating(the_network(predictor)):
        for batch in loader.batches(predictor.intake.plans(samples, _TOGETHER)):
            _, inputs = next(iter(predictor.inputs(batch)))
            made = halves.as_map(halves.first(inputs)).float().mean((2, 3)).cpu()
            rows.append(made[batch.weight > 0].numpy())
            for _ in range(len(batch)):
                tell()
    found: Features = np.concatenate(rows).astype(np.float64)
    return found


_TOGETHER = 32


def _shares(known: Counter[str], new: Counter[str]) -> dict[str, tuple[float, float]]:
    a, b = max(sum(known.values()), 1), max(sum(new.values()), 1)
    shares = {name: (known[name] / a, new[name] / b) for name in {**known, **new}}
    return dict(sorted(shares.items(), key=lambda one: -abs(one[1][1] - one[1][0])))
