"""What an export loses against its model, where it is meant to lose something: eight bits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from retinue.errors import BadImageError
from retinue.exporting.gate import Answers, spread
from retinue.exporting.material import Material
from retinue.inference.evaluator import evaluate
from retinue.inference.predictor import Predictor
from retinue.text import counted

JUDGED = 1000
"""Images at most."""
MOST = 0.02
"""That may be lost, unless one says otherwise."""


@dataclass(frozen=True)
class Cost:
    """The same figure of both."""

    figure: str
    """The task's main one; `alike`: the share of answers that are as the model's."""
    title: str
    model: float
    export: float
    images: int
    split: str = ""

    @property
    def loss(self) -> float:
        """How much worse the export is; 0 where it is better."""
        return max(self.model - self.export, 0.0)

    @property
    def step(self) -> float:
        """What one image alone counts: no smaller loss shows."""
        return 1 / self.images

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "loss": self.loss}

    def told(self) -> str:
        """In a line."""
        of = f" of the {self.split} split" if self.split else ""
        if self.step > MOST:
            of += f" (so few cannot show a loss below {self.step:.2f})"
        return (
            f"{self.loss:.4f}: {self.title} {self.export:.4f} instead of {self.model:.4f}, on "
            f"{counted(self.images, 'image')}{of}"
        )


def cost(model: Predictor, export: Predictor, material: Material) -> Cost:
    """What the export loses on labelled images; where there are none, how many of its answers are
    others than the model's."""
    judged = spread(material.judged, JUDGED)
    task = model.task
    figure = next(one for one in task.figures() if one.name == task.default_metric)
    if judged and figure.name not in task.undefined(judged):
        both = [evaluate(one, judged, split=material.split).figures for one in (model, export)]
        own, other = (float(figures[figure.name]) for figures in both)
        return Cost(figure.name, figure.title, own, other, both[0]["images"], material.split)
    samples = spread(material.proof, JUDGED)
    answers, alike, images = Answers(task.places), 0, 0
    for own_answer, other_answer in zip(
        model.answers(samples), export.answers(samples), strict=True
    ):
        if own_answer.reason or other_answer.reason:
            continue
        first = task.result(own_answer.finding, own_answer.sample.key)
        second = export.task.result(other_answer.finding, other_answer.sample.key)
        answers.compare(first, second)
        alike += [name for name, _ in first.answers()][:1] == [n for n, _ in second.answers()][:1]
        images += 1
    if not images:
        raise BadImageError({sample.key: "cannot be read" for sample in samples[:1]})
    lost = answers.others / max(answers.count + answers.others, 1)
    share = 1 - lost if task.places else alike / images
    return Cost("alike", "answered alike", 1.0, share, images)
