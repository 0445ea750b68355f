"""What a training is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retinue.run.log import Bar
from retinue.run.recorder import Recorder
from retinue.sample import Preprocessing, Sample
from retinue.tasks.learner import Learner
from retinue.tasks.task import Task
from retinue.training.environment import Settings
from retinue.training.planning.clock import Clock
from retinue.training.recipe import Recipe


@dataclass(frozen=True)
class Training:
    """All that a training is made of, ready for its first step."""

    recipe: Recipe
    task: Task
    learner: Learner
    splits: Mapping[str, Sequence[Sample]]
    preprocessing: Preprocessing
    settings: Settings
    recorder: Recorder
    bar: Bar
    clock: Clock
    epoch_steps: Sequence[int]
    """Optimiser steps of an epoch of each stage."""
    taught_by: str | None = None
    """The hash of the teacher's file."""
