"""Lets the best weights so far label images, in the middle of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from accelerate import Accelerator
from accelerate.utils import gather_object

from retinue.inference.predictor import load
from retinue.modelfile import MODEL_FILE
from retinue.run.folder import RunFolder
from retinue.run.log import LOGGER, Bar
from retinue.sample import Sample
from retinue.tasks.task import Guess
from retinue.training import pseudo_labels
from retinue.training.options import StageOptions
from retinue.training.recipe import Recipe
from retinue.training.stage_samples import PseudoLabels


@dataclass(frozen=True)
class Labeller:
    """Gives the images of a run's stages labels, as its model file answers them: as anyone would
    be answered who had it now, its blend and its test-time augmentation included."""

    run: RunFolder
    recipe: Recipe
    accelerator: Accelerator
    bar: Bar

    def __call__(
        self, stage: str, options: PseudoLabels, samples: Sequence[Sample]
    ) -> list[Sample]:
        """Those of the `samples` that get a label, with it. Each process looks at its share, and
        all learn of all: a collective operation."""
        self.accelerator.wait_for_everyone()  # the first process writes the model file
        guesses = self._guesses(stage, options, samples)
        before = self._before(stage)
        told = pseudo_labels.summary(stage, samples, guesses, options, before)
        if self.accelerator.is_main_process:
            pseudo_labels.write_down(self.run, told, samples, guesses, options)
        say = LOGGER.info if told.labelled else LOGGER.warning
        say("stage %s: %s", stage, told.line())
        return pseudo_labels.labelled(samples, guesses, options)

    def _guesses(
        self, stage: str, options: PseudoLabels, samples: Sequence[Sample]
    ) -> list[Guess | None]:
        """Of each sample; None for one that cannot be read."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        # PyTorch, whatever engine is faster: a training that was killed here says the same again.
        predictor = load(
            self.run.path / MODEL_FILE,
            device=str(self.accelerator.device),
            engine="torch",
            workers=self.recipe.data.workers,
        )
        mine = samples[rank::world]
        self.bar.begin(f"{stage}: labelling images", len(mine))
        found: list[tuple[int, Guess | None]] = []
        size = self.recipe.evaluation.batch_size
        for k, answer in enumerate(predictor.answers(mine, batch_size=size)):
            soft = options.labels == "soft"
            guess = None if answer.reason else predictor.task.guess(answer.finding, soft=soft)
            found.append((rank + k * world, guess))
            self.bar.advance(k + 1)
        self.bar.done()
        return [guess for _, guess in sorted(gather_object(found), key=lambda one: one[0])]

    def _before(self, stage: str) -> dict[str, str]:
        """The labels of the last stage before this one that has labelled images."""
        earlier = takewhile(lambda one: one.name != stage, self.recipe.stages)
        names = [one.name for one in earlier if labels_images(one)]
        return pseudo_labels.read_labels(self.run, names[-1]) if names else {}


def labels_images(stage: StageOptions) -> bool:
    """Whether images get labels by the model when `stage` begins."""
    return isinstance(stage.data, PseudoLabels)
