"""How long the stages of a recipe are on the data at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from retinue.run.folder import RunFolder
from retinue.sample import Sample
from retinue.text import counted
from retinue.training.options import ScheduleOptions, StageOptions
from retinue.training.recipe import Recipe
from retinue.training.stage_data import sampler_of
from retinue.training.stage_samples import PseudoLabels, changed, stage_samples, unlabelled

Splits = Mapping[str, Sequence[Sample]]


def samples_of_stages(
    recipe: Recipe, splits: Splits, run: RunFolder | None = None
) -> Iterator[Sequence[Sample]]:
    """What each stage learns from; what `run` has written of that is not asked for again."""
    samples: Sequence[Sample] = splits["train"]
    for stage in recipe.stages:
        if run is None:
            samples = changed(stage.data, samples, splits)
        else:
            samples = stage_samples(run, stage.name, stage.data, samples, splits, write=False)
        yield samples


def steps_of_epochs(recipe: Recipe, splits: Splits, run: RunFolder | None = None) -> list[int]:
    """The optimiser steps of an epoch of each stage."""
    each = zip(recipe.stages, samples_of_stages(recipe, splits, run), strict=True)
    return [sampler_of(stage, samples, recipe.seed).steps for stage, samples in each]


def images_to_label(recipe: Recipe, splits: Splits) -> list[int]:
    """Of how many images each stage asks the model for labels."""
    return [
        len(unlabelled(stage.data, splits)) if isinstance(stage.data, PseudoLabels) else 0
        for stage in recipe.stages
    ]


def fitted_to_data(recipe: Recipe, epoch_steps: Sequence[int]) -> tuple[Recipe, list[str]]:
    """`recipe` with its `min_steps` and `max_steps` made epochs, and lines that say what changed.
    What comes out stays as it is if it is fitted again."""
    stages, notes = [], []
    for stage, each in zip(recipe.stages, epoch_steps, strict=True):
        fitted = stage
        if stage.epochs is not None:
            least = -(-(stage.min_steps or 0) // each)
            most = max((stage.max_steps or stage.epochs * each) // each, 1)
            fitted = with_epochs(stage, min(max(stage.epochs, least), max(most, least)))
            if fitted is not stage:
                notes.append(f"stage {stage.name}: {told(fitted)}, of {counted(each, 'step')} each")
        stages.append(fitted)
    return recipe.model_copy(update={"stages": tuple(stages)}), notes


def with_epochs(stage: StageOptions, epochs: int) -> StageOptions:
    """`stage` with other epochs, and with what goes with them: of a longer stage the views are so
    many more, of a shorter one at most one for each epoch. Its warm-up is no longer a part of it
    than before; the schedule goes by shares of the stage anyway."""
    assert stage.epochs is not None
    if epochs == stage.epochs:
        return stage
    changes: dict[str, object] = {"epochs": epochs}
    if stage.views is not None:
        longer = max(epochs / stage.epochs, 1.0)
        changes["views"] = max(min(round(stage.views * longer), epochs), 1)
    changes["schedule"] = _with_warmup(stage.schedule, epochs / stage.epochs)
    return stage.model_copy(update=changes)


def with_steps(stage: StageOptions, steps: int) -> StageOptions:
    """`stage` with other steps; its warm-up is no longer a part of it than before."""
    assert stage.steps is not None
    if steps == stage.steps:
        return stage
    schedule = _with_warmup(stage.schedule, steps / stage.steps)
    return stage.model_copy(update={"steps": steps, "schedule": schedule})


def _with_warmup(schedule: ScheduleOptions, share: float) -> ScheduleOptions:
    """That of a stage which has become `share` times as long."""
    if share >= 1:
        return schedule
    if schedule.warmup_steps is not None:
        steps = max(round(schedule.warmup_steps * share), 1)
        return schedule.model_copy(update={"warmup_steps": steps})
    if schedule.warmup_epochs:
        epochs = schedule.warmup_epochs * share
        return schedule.model_copy(update={"warmup_epochs": epochs})
    return schedule


def learning(stage: StageOptions) -> str:
    """`neck learns`, `the last 2 units learn`."""
    if isinstance(stage.trainable, str):
        return f"{stage.trainable} learns"
    if stage.trainable < 2:
        return "the last unit learns" if stage.trainable else "head learns"
    return f"the last {stage.trainable} units learn"


def told(stage: StageOptions) -> str:
    """`12 epochs with 4 views`."""
    lengths = ((stage.epochs, "epoch"), (stage.steps, "step"))
    length = next(counted(number, unit) for number, unit in lengths if number is not None)
    return length + (f" with {counted(stage.views, 'view')}" if stage.views is not None else "")
