"""How long a training will take, part by part, from what a rehearsal has timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from retinue.run.forecast import spoken
from retinue.text import counted
from retinue.training.options import StageOptions
from retinue.training.planning.clock import EVALUATION, KINDS, part
from retinue.training.planning.lengths import learning, told
from retinue.training.planning.rehearsal import Judging, Rates
from retinue.training.recipe import Recipe

_COMPILING = (
    ", without what compile=true takes to compile as each stage begins: minutes for large networks"
)


@dataclass(frozen=True)
class StageEstimate:
    """A stage, and the seconds that its parts will take."""

    name: str
    what: str
    """What learns, for how long."""
    images: int
    frozen_s: float
    steps_s: float
    validation_s: float
    labelling_s: float = 0.0
    """Until the images that the model labels for it have their labels."""


@dataclass(frozen=True)
class Estimate:
    """A training, and the seconds that it will take."""

    stages: tuple[StageEstimate, ...]
    judged: int
    """Images of the final evaluation."""
    evaluation_s: float
    compiles: bool = False
    """Whether the network is compiled, which is not in it: what that takes is known only once it is
    done, and steps are timed as they are without."""

    @property
    def total_s(self) -> float:
        """Of everything, compiling aside."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, float]:
        """The seconds of each part, as a forecast names them."""
        found: dict[str, float] = {}
        for stage in self.stages:
            if stage.labelling_s:
                found[part(stage.name, "labelling")] = stage.labelling_s
            found[part(stage.name, "frozen part")] = stage.frozen_s
            found[part(stage.name, "steps")] = stage.steps_s
            found[part(stage.name, "validation")] = stage.validation_s
        return {**found, EVALUATION: self.evaluation_s}

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "total_s": self.total_s}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse."""
        stages = tuple(StageEstimate(**stage) for stage in values["stages"])
        compiles = bool(values.get("compiles", False))
        return cls(stages, values["judged"], values["evaluation_s"], compiles)

    def lines(self) -> Iterator[str]:
        """A short table for a person, the sum last."""
        parts = self.parts()
        own = {s.name: [parts.get(part(s.name, kind)) for kind in KINDS] for s in self.stages}
        there = [k for k in range(len(KINDS)) if any(each[k] is not None for each in own.values())]
        rows: list[tuple[str, ...]] = [("", *(KINDS[k] for k in there), "")]
        for stage in self.stages:
            seconds = [own[stage.name][k] for k in there]
            rows.append((stage.name, *(spoken(s) if s else "–" for s in seconds), stage.what))
        width = max(len(row[0]) for row in rows)
        for name, *columns, what in rows:
            yield f"  {name:<{width}}" + "".join(f"{c:>13}" for c in columns) + f"  {what}".rstrip()
        yield f"  evaluation of {counted(self.judged, 'image')} {spoken(self.evaluation_s)}"
        compiling = _COMPILING if self.compiles else ""
        yield f"it will take about {spoken(self.total_s)} in all{compiling}"


def estimated(
    recipe: Recipe,
    rates: Sequence[Rates],
    judging: Judging,
    *,
    images: Sequence[int],
    epoch_steps: Sequence[int],
    labelled: Sequence[int],
    validated: int,
    judged: int,
) -> Estimate:
    """What `recipe` will take at `rates`, a stage each: with `images` to learn from, `epoch_steps`
    steps an epoch and `labelled` images that the model is asked about in each, `validated` images
    between epochs and `judged` at the end. Linear in epochs, for a given number of views."""
    stages = []
    counts = zip(images, epoch_steps, labelled, strict=True)
    for stage, rate, (count, each, asked) in zip(recipe.stages, rates, counts, strict=True):
        frozen = 0.0
        if rate.cached and rate.absent:
            views = count * (stage.views or 1) * rate.view + validated * rate.judged_view
            frozen = rate.ready + rate.absent * views
        total = stage.total_steps(each)
        validations = _validations(stage, -(-total // each)) if validated else 0
        stages.append(
            StageEstimate(
                stage.name,
                f"{learning(stage)}, {told(stage)}",
                count,
                frozen,
                total * rate.step,
                validations * validated * rate.judged,
                asked * judging.plain,
            )
        )
    evaluation = judging.ready + judged * judging.image
    return Estimate(tuple(stages), judged, evaluation, recipe.compile)


def _validations(stage: StageOptions, epochs: int) -> int:
    """How often the validation split is judged in so many epochs."""
    since = stage.validate_from or stage.validate_every
    if epochs < since:
        return 1
    regular = (epochs - since) // stage.validate_every + 1
    last = since + (regular - 1) * stage.validate_every
    return regular + (last < epochs)
