"""A few steps of a training that nothing stays of: to try rates, or to time its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch

from retinue.data.sources import Dataset
from retinue.data.sources.pool import POOL
from retinue.errors import UsageError, suggest
from retinue.run.folder import RunFolder
from retinue.run.log import console
from retinue.sample import Sample
from retinue.training.environment import Settings, is_main
from retinue.training.labelling import labels_images
from retinue.training.options import StageOptions
from retinue.training.planning.clock import Clock
from retinue.training.planning.lengths import steps_of_epochs
from retinue.training.planning.precision import settled
from retinue.training.prepare import prepared
from retinue.training.recipe import Recipe
from retinue.training.trainer import Trainer

T = TypeVar("T", bound=Trainer)


class TrialOver(Exception):  # noqa: N818 - nothing went wrong
    """Enough has been seen."""


def chosen_stage(recipe: Recipe, name: str | None, settings: Settings, what: str) -> StageOptions:
    """The recipe's stage called so, by default its first. Raises UsageError where there is none,
    or it cannot be tried by `what`."""
    names = [one.name for one in recipe.stages]
    if name is not None and name not in names:
        mend = suggest(name, names) or f"it has {', '.join(names)}"
        raise UsageError(f"the recipe has no stage {name!r}", where="stage", mend=mend)
    stage = recipe.stages[0 if name is None else names.index(name)]
    if labels_images(stage):
        raise UsageError(
            f"stage {stage.name} labels images by what the stages before it have learnt, and these"
            " are not trained here",
            where="stage",
            mend="try it without them: stages.N.data=null",
        )
    if settings.world > 1:  # each would end by itself, and the others wait for it
        raise UsageError(
            f"{what} runs in one process", mend="leave torchrun or accelerate launch out"
        )
    return stage


def trial(
    kind: type[T],
    recipe: Recipe,
    dataset: Dataset,
    settings: Settings,
    stage: StageOptions,
    changes: Mapping[str, Any],
    *,
    begin: Callable[[T], None],
    quiet: bool,
    learnt_from: Callable[[Sequence[Sample]], Sequence[Sample]] = lambda samples: samples,
) -> T:
    """Train by `stage` alone until the trainer, which is made ready by `begin`, raises `TrialOver`;
    in the precision that a training by the whole recipe has. `changes`: of the recipe;
    `learnt_from` chooses among the training images."""
    plain = {"stages": (stage,), "budget": None, "tensorboard": False, "trackers": ()}
    tried = recipe.model_copy(update={**plain, **changes})
    torch.set_num_threads(settings.threads)
    with (
        TemporaryDirectory() as folder,
        console(None, quiet=quiet or not is_main()) as bar,
    ):
        training = prepared(RunFolder(Path(folder)), tried, dataset, settings, bar, Clock())
        steps = steps_of_epochs(recipe, dataset.parts)
        whole, _ = settled(replace(training, recipe=recipe, epoch_steps=steps))
        training = replace(training, settings=whole.settings)
        unjudged = {part: rows for part, rows in dataset.parts.items() if part in ("train", POOL)}
        unjudged["train"] = learnt_from(unjudged["train"])
        trainer = kind(replace(training, splits=unjudged))
        begin(trainer)
        with suppress(TrialOver):
            trainer.fit()
    return trainer
