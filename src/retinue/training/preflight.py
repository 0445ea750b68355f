"""What a recipe would come to, told before its first step: everything that cannot work is refused
here, and what hardly anyone means is doubted aloud."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from retinue.data.options import ShuffledOptions
from retinue.data.sources import Dataset
from retinue.errors import RetinueError, UsageError, suggest
from retinue.inference.tta import refuse_oblong, views
from retinue.models.anatomy import on_meta
from retinue.models.network import Network
from retinue.models.registry import published
from retinue.options import Options
from retinue.sample import Preprocessing, Sample
from retinue.tasks.shipped import SHIPPED
from retinue.tasks.task import Task, task_type
from retinue.text import first_line
from retinue.training.options import StageOptions
from retinue.training.recipe import Recipe
from retinue.training.schedules import span, warmup_steps
from retinue.training.stage import first_to_learn
from retinue.training.stage_data import sampler_of
from retinue.training.stage_samples import PseudoLabels, WithPool, changed
from retinue.weights.resolution import names_a_file

REACH = 64
"""How many pixels up and down a size that works is looked for."""


def network_arguments(recipe: Recipe) -> dict[str, Any]:
    """The network's keywords that the recipe gives."""
    model = recipe.model
    given = {"dropout": model.dropout, "drop_path": model.drop_path, "head": model.head}
    return {**{k: v for k, v in given.items() if v is not None}, **model.arguments}


def task_options(recipe: Recipe) -> Options:
    """The options of the recipe's task."""
    return task_type(recipe.task).options_type.model_validate(recipe.task_options)


def refuse_before_data(recipe: Recipe) -> None:
    """What is wrong whatever the data is: figures and formats that the task does not have, and a
    network that cannot be built so. Raises UsageError."""
    task = task_type(recipe.task).sketch(task_options(recipe))
    if recipe.data.format != "auto" and task.readers().called(recipe.data.format) is None:
        raise UsageError(
            f"the task {recipe.task} reads no format {recipe.data.format!r}",
            where="key data.format",
            mend=suggest(recipe.data.format, task.formats) or f"it reads {', '.join(task.formats)}",
        )
    metric = recipe.evaluation.metric
    # Some figures there are with more classes only than the sketch has.
    if metric is None or metric not in [f.name for f in task.figures_among([metric], ())]:
        refuse_metric(recipe, task)
    _refuse_labelling(recipe, task)
    _refuse_unfit_model(recipe, task)


def _refuse_labelling(recipe: Recipe, task: Task) -> None:
    """Raise UsageError for a stage that labels images, or learns from some without, and cannot."""
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage.data, WithPool):
            _refuse_untaught(recipe, task, index)
        if not isinstance(stage.data, PseudoLabels):
            continue
        where = f"key stages.{index}.data"
        if type(task).guess is Task.guess:
            raise UsageError(
                f"the task {task.name!r} does not learn from labels of its own",
                where=where,
                mend="leave the pseudo-labels out",
            )
        if index == 0:
            raise UsageError(
                "the first stage labels images by what has been learnt, which is nothing yet",
                where=where,
                mend="let it learn from the labels that there are; label in the second one",
            )
        if stage.data.of == "pool" and recipe.data.pool is None:
            raise UsageError(
                f"stage {stage.name} labels images, but none are given",
                where="key data.pool",
                mend="say data.pool=FOLDER, images without labels"
                f" (stages.{index}.data.of=test takes the test split's)",
            )


def _refuse_untaught(recipe: Recipe, task: Task, index: int) -> None:
    where = f"key stages.{index}.data"
    if not task.taught_unlabelled:
        raise UsageError(
            f"the task {task.name!r} learns nothing from images without a label",
            where=where,
            mend="leave with_pool out",
        )
    for key, given, mend in (
        ("teacher", recipe.teacher, "a model file; its answers are all that is learnt from them"),
        ("data.pool", recipe.data.pool, "a folder of images without labels"),
    ):
        if given is None:
            raise UsageError(
                f"with_pool learns what a teacher says of images without a label, but {key} is not"
                " given",
                where=where,
                mend=f"say {key}={mend}",
            )


def refuse_metric(recipe: Recipe, task: Task) -> None:
    """Raise UsageError for a metric that the task does not declare."""
    known = [figure.name for figure in task.figures()]
    metric = recipe.evaluation.metric
    if metric is not None and metric not in known:
        raise UsageError(
            f"the validation gives no figure {metric!r}",
            where="key evaluation.metric",
            mend=", ".join(filter(None, [suggest(metric, known), f"it gives {', '.join(known)}"])),
        )


def refuse_undefined(recipe: Recipe, task: Task, dataset: Dataset) -> None:
    """Raise UsageError where the figure that picks the weights cannot be measured on the validation
    split, as its task tells."""
    judged = dataset.splits.get("val")
    if not judged:
        return
    undefined = task.undefined(judged)
    metric = recipe.evaluation.metric or task.default_metric
    if metric not in undefined:
        return
    others = [figure.name for figure in task.figures() if figure.name not in undefined]
    instead = f"choose another figure ({', '.join(others)}), or " if others else ""
    raise UsageError(
        f"the figure {metric} is not defined on the validation split: {undefined[metric]}",
        where="key evaluation.metric",
        mend=f"{instead}give the split what it needs (data.split.val, data.split.seed)",
    )


def refuse_undealt(recipe: Recipe, processes: int) -> None:
    """Raise UsageError for a batch that cannot be shared out evenly."""
    for index, stage in enumerate(recipe.stages):
        if stage.batch_size % (processes * stage.accumulate):
            raise UsageError(
                f"batch_size {stage.batch_size} cannot be dealt to {processes} processes"
                f" in {stage.accumulate} portions",
                where=f"key stages.{index}.batch_size",
                mend=f"make it a multiple of {processes * stage.accumulate}",
            )


def refuse_samplers(recipe: Recipe, dataset: Dataset) -> None:
    """Raise UsageError for a sampler that the samples of its stage do not allow."""
    samples: Sequence[Sample] = dataset.splits["train"]
    for index, stage in enumerate(recipe.stages):
        samples = changed(stage.data, samples, dataset.parts)
        if isinstance(stage.sampler, ShuffledOptions):  # nothing can be wrong with it
            continue
        try:
            sampler_of(stage, samples, recipe.seed)
        except UsageError as error:
            where = f"key stages.{index}.sampler"
            raise UsageError(error.what, where=where, mend=error.mend) from error


def refuse_mixing(recipe: Recipe, dataset: Dataset) -> None:
    """Raise UsageError where a stage mixes finished images of which the data tells what cannot be
    mixed."""
    targets = (sample.target for sample in dataset.splits["train"])
    one = next((target for target in targets if target is not None), None)
    for index, stage in enumerate(recipe.stages):
        if one is None or not stage.augment.mixes_pixels:
            continue
        nobody, whole = torch.zeros(1, dtype=torch.int64), torch.ones(1)
        try:
            type(one).mix_batch(type(one).collate([one]), nobody, whole)
        except UsageError as error:
            where = f"key stages.{index}.augment.mixing"
            raise UsageError(error.what, where=where, mend=error.mend) from error


def refuse_missing_splits(recipe: Recipe, dataset: Dataset) -> None:
    """Raise UsageError where a split that the recipe needs has no images."""
    if not dataset.splits.get("train"):
        raise UsageError("there are no training images", where=str(recipe.data.path))
    train = dataset.splits["train"]
    unlabelled = np.flatnonzero(train.target < 0)
    if len(unlabelled):
        raise UsageError(
            f"{len(unlabelled)} training images have no label,"
            f" first {train[int(unlabelled[0])].key!r}",
            where=str(recipe.data.path),
            mend="label them, or leave them out",
        )
    for index, stage in enumerate(recipe.stages):
        asked = stage.data
        if isinstance(asked, PseudoLabels) and not dataset.parts.get(asked.of):
            raise UsageError(
                f"the data has no {asked.of} split, which stage {stage.name} labels",
                where=f"key stages.{index}.data.of",
            )
    wanted = recipe.evaluation.split
    if wanted != "auto" and not dataset.splits.get(wanted):
        raise UsageError(f"the data has no {wanted} split", where="key evaluation.split")


def _refuse_unfit_model(recipe: Recipe, task: Task) -> None:
    """Try weights, arguments, stages and input size together, without data, memory or downloads.

    Weights of one's own can bring arguments and a size: what they are is only tried once they are
    read.
    """
    name, weights = recipe.model.name, recipe.model.weights
    if weights is not None and (weights.startswith("hub:") or names_a_file(weights)):
        return
    arguments = network_arguments(recipe)
    known = None
    if weights is not None:
        scratch = _from_scratch(recipe)
        brought, known = _published(*task.network(name, arguments), weights, scratch)
        arguments = {**brought, **arguments}
    try:
        with torch.device("meta"):
            network = task.build(name, arguments, None)
    except UsageError as error:
        where = error.where or "key model.arguments"
        raise UsageError(error.what, where=where, mend=error.mend) from error
    if known is None:
        _refuse_frozen_statistics(recipe, network)
        known = network.preprocessing
    size = recipe.input.applied(known).size
    refuse_oblong(views(recipe.evaluation.tta), size, where="evaluation.tta")
    if recipe.input.size is not None or weights is None:
        refuse_size(recipe, task, network, size)


def refuse_size(
    recipe: Recipe, task: Task, network: Network, size: tuple[int, int], *, begun: bool = False
) -> None:
    """Raise UsageError, with what would work, if `network` cannot take images of `size` (height,
    width), or of the sizes that a stage trains at. It is tried on the meta device: shapes without
    numbers."""
    for index, stage in enumerate(recipe.stages):
        for other in stage.input_sizes(size, recipe.seed)[1] if stage.sizes is not None else []:
            failure = _failure(on_meta(network), other)
            if failure is not None and _failure(on_meta(network), size) is None:
                raise UsageError(
                    f"{recipe.model.name} cannot take images of {other[0]} × {other[1]} pixels:"
                    f" {first_line(failure.args[0])}",
                    where=f"key stages.{index}.sizes",
                    mend="leave that size out",
                )
    shadow: Network = on_meta(network)
    failure = _failure(shadow, size)
    if failure is None:
        return
    native = network.preprocessing.size
    if not isinstance(failure, UsageError) and _failure(shadow, native) is not None:
        return  # it is not the size: the meta device cannot run this network
    ways = _ways(recipe, task, shadow, size)
    where = "input.size" if recipe.input.size is not None else "model.arguments"
    reason = first_line(failure.args[0])
    raise UsageError(
        f"{recipe.model.name} cannot take images of {size[0]} × {size[1]} pixels: {reason}",
        where=f"key {where}",
        mend=f"{'start a new training with' if begun else 'set'} {' or '.join(ways)}",
    )


def refuse_lone_images(
    recipe: Recipe, network: Network, size: tuple[int, int], dataset: Dataset, processes: int
) -> None:
    """Raise UsageError where BatchNorm would learn from one image at a time and sees one value a
    channel of it, whose variance is none. `size`: (height, width) of the input."""
    samples: Sequence[Sample] = dataset.splits["train"]
    for index, stage in enumerate(recipe.stages):
        samples = changed(stage.data, samples, dataset.parts)
        batch = sampler_of(stage, samples, recipe.seed).batch_size
        each = processes * stage.accumulate
        if stage.frozen_batchnorm or batch > each:  # a portion of one is filled up to that of all
            continue
        for seen in stage.input_sizes(size, recipe.seed)[1]:
            if _learns_from_one(network, stage, seen, f"key stages.{index}.trainable"):
                raise UsageError(
                    f"stage {stage.name} trains on one image at a time, from which BatchNorm in"
                    f" {recipe.model.name} cannot learn at {seen[0]} × {seen[1]} pixels",
                    where=f"key stages.{index}.batch_size",
                    mend=" or ".join(_more_at_a_time(stage, index, batch, len(samples), processes)),
                )


def _learns_from_one(
    network: Network, stage: StageOptions, size: tuple[int, int], where: str
) -> bool:
    """Whether BatchNorm that learns in `stage` refuses a single image of `size`."""
    shadow: Network = on_meta(network).train()
    for unit in shadow.units()[: first_to_learn(shadow, stage.trainable, where)]:
        unit.module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            shadow(torch.empty(1, 3, *size, device="meta"))
    except ValueError:
        return True
    except RuntimeError:  # the meta device cannot run this network: nothing can be told
        return False
    return False


def _more_at_a_time(
    stage: StageOptions, index: int, batch: int, images: int, processes: int
) -> Iterator[str]:
    """What gives each portion more than one image."""
    each = processes * stage.accumulate
    if images > each and stage.batch_size <= each:
        yield f"make it {2 * each} or more"
    portions = next((n for n in range(batch // (2 * processes), 0, -1) if batch % n == 0), None)
    if stage.accumulate > 1 and portions is not None:
        yield f"set stages.{index}.accumulate={portions}"
    elif images <= each:
        yield "give it more images"
    yield "set frozen_batchnorm: true with weights"


def doubts(recipe: Recipe, network: Network, epoch_steps: Sequence[int]) -> list[str]:
    """What is possible, but hardly meant. `epoch_steps`: the steps of an epoch of each stage."""
    found = []
    first = recipe.stages[0]
    learns = first_to_learn(network, first.trainable, "key stages.0.trainable")
    if learns > network.first_drawn:
        if recipe.model.weights is None:
            why = f"because model.weights is null; {_from_scratch(recipe)}"
        else:
            drawn = network.units()[network.first_drawn].name
            why = f"because the weights lack {drawn}; stages.0.trainable={drawn} trains it, too"
        found.append(
            f"stage {first.name} trains only a part of the network, and what is frozen is random,"
            f" {why}"
        )
    if recipe.evaluation.metric is not None and recipe.evaluation.keep == "last":
        found.append(
            "evaluation.metric picks no weights, because evaluation.keep is last; it only ends"
            " stages that have early_stop"
        )
    for index, (stage, each) in enumerate(zip(recipe.stages, epoch_steps, strict=True)):
        total = stage.total_steps(each)
        if warmup_steps(stage.schedule, each) >= span(recipe.stages, epoch_steps, index)[1]:
            length = "steps" if stage.steps else "epochs"
            rise = "warmup_steps" if stage.schedule.warmup_steps else "warmup_epochs"
            found.append(
                f"stage {stage.name}: the warm-up takes all of its {total} steps, so that it never"
                f" learns at lr {stage.optimizer.lr:g}; lower stages.{index}.schedule.{rise}"
                f" or raise stages.{index}.{length}"
            )
    return found


def _from_scratch(recipe: Recipe) -> str:
    """What to do without weights."""
    shipped = SHIPPED.get(recipe.task)
    if shipped is None or not shipped.untrained:
        first = recipe.stages[0]
        settings = ["stages.0.trainable=all"]
        settings += ["stages.0.views=null"] if first.views is not None else []
        settings += ["stages.0.frozen_batchnorm=false"] if first.frozen_batchnorm else []
        return f"{' '.join(settings)} has all of it learn from the beginning"
    return f"`retinue train {shipped.untrained}` trains without weights"


def _published(
    name: str, arguments: dict[str, Any], tag: str, scratch: str
) -> tuple[dict[str, Any], Preprocessing]:
    """What the catalogue's weights `tag` bring along, see `registry.published`."""
    try:
        return published(name, tag, arguments)
    except UsageError as error:
        mend = (error.mend or "").replace("weights=None", f"model.weights=null ({scratch})")
        raise UsageError(error.what, where="key model.weights", mend=mend) from error


def _refuse_frozen_statistics(recipe: Recipe, network: Network) -> None:
    """BatchNorm that is frozen before it has seen an image normalises nothing."""
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
        return
    for index, stage in enumerate(recipe.stages):
        if stage.frozen_batchnorm:
            raise UsageError(
                f"stage {stage.name} keeps BatchNorm as the weights have it, but there are none"
                " (model.weights is null): it would normalise nothing",
                where=f"key stages.{index}.frozen_batchnorm",
                mend=f"set stages.{index}.frozen_batchnorm=false, or give weights;"
                f" {_from_scratch(recipe)}",
            )
        if stage.trainable == "all":
            return  # its statistics are there from now on


_taken: set[tuple[type[Network], str, str, tuple[int, int]]] = set()
"""What `_failure` found nothing against in this process. The meta device takes up to a second for a
pass, and a training asks before it has read any data, and once its weights are there."""


def _failure(shadow: Network, size: tuple[int, int]) -> Exception | None:
    """What the network on the meta device says to images of `size`, evaluating and training."""
    # By these the registry builds it again: all that its shapes depend on.
    asked = (type(shadow), shadow.name, repr(shadow.arguments), size)
    if shadow.name and asked in _taken:
        return None
    images = torch.empty(2, 3, *size, device="meta")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for training in (False, True):
            try:
                shadow.train(training)(images)
            except (RetinueError, RuntimeError) as error:
                return error
    _taken.add(asked)
    return None


def _ways(recipe: Recipe, task: Task, shadow: Network, size: tuple[int, int]) -> list[str]:
    """Settings that would work in place of `size`."""
    ways = []
    side = size[0] if size[0] == size[1] else None
    if side is not None and shadow.arguments.get("image_size") not in (None, side):
        try:
            with torch.device("meta"):
                changed = {**shadow.arguments, "image_size": side}
                other = task.build(recipe.model.name, changed, None)
        except UsageError:
            pass
        else:
            if _failure(on_meta(other), size) is None:
                ways.append(f"model.arguments.image_size={side}")
    height, width = shadow.preprocessing.size
    native = str(height) if height == width else f"[{height}, {width}]"
    if side is not None and not ways:
        near = (n for d in range(1, REACH + 1) for n in (side - d, side + d) if n > 0)
        nearest = next((n for n in near if _failure(shadow, (n, n)) is None), None)
        if nearest is not None:
            ways.append(f"input.size={nearest}")
    if f"input.size={native}" not in ways and _failure(shadow, (height, width)) is None:
        ways.append(f"input.size={native}")
    return ways or ["another input.size"]
