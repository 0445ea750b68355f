"""Everything that a training is made of, from its recipe and its data: until the first step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from retinue import modelfile
from retinue.data.loader import worker_count
from retinue.data.options import DataOptions
from retinue.data.readable import unreadable
from retinue.data.remembered import Remembered
from retinue.data.sources import Dataset, open_dataset
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.figures import small_splits
from retinue.files import expanded
from retinue.inference.devices import choose_device, fit_threads
from retinue.inference.memory import keep_freed
from retinue.inference.predictor import Predictor, load
from retinue.inference.tta import refuse_oblong, views
from retinue.modelfile import MODEL_FILE
from retinue.models.network import Network
from retinue.processor import without_bfloat16
from retinue.run.folder import RunFolder
from retinue.run.log import LOGGER, Bar
from retinue.run.recorder import Recorder
from retinue.sample import Preprocessing, Sample
from retinue.tasks.learner import Learner
from retinue.tasks.task import Task, task_type
from retinue.text import few
from retinue.training import pictures
from retinue.training.changes import (
    RECIPE,
    RECORD,
    absolute,
    begin_anew,
    go_on,
    leaves_of,
    without_paths,
)
from retinue.training.environment import (
    Settings,
    build_accelerator,
    choose_precision,
    is_main,
    versions,
)
from retinue.training.examples import draw_examples
from retinue.training.planning.clock import Clock
from retinue.training.planning.lengths import steps_of_epochs
from retinue.training.preflight import (
    doubts,
    network_arguments,
    refuse_lone_images,
    refuse_metric,
    refuse_missing_splits,
    refuse_mixing,
    refuse_samplers,
    refuse_size,
    refuse_undealt,
    refuse_undefined,
    task_options,
)
from retinue.training.recipe import Recipe, dump
from retinue.training.stage_samples import stage_samples
from retinue.training.training import Training
from retinue.weights.files import sha256


def asked_data(recipe: Recipe) -> DataOptions:
    """What the recipe asks of the data, with names for `data.also=teacher`. Raises UsageError."""
    if recipe.data.also != "teacher":
        return recipe.data
    if recipe.teacher is None:
        raise UsageError(
            "the classes of a teacher are asked for, but there is no teacher",
            where="key data.also",
            mend="name it: teacher=MODEL",
        )
    known = modelfile.read_description(modelfile.find_model(expanded(recipe.teacher)))
    return recipe.data.model_copy(update={"also": known.classes})


def open_data(recipe: Recipe, split_file: Path | None = None, bar: Bar | None = None) -> Dataset:
    """The data set, with every unreadable file named before anything is trained."""
    data = asked_data(recipe)
    if split_file is not None:
        split = data.split.model_copy(update={"file": str(split_file)})
        data = data.model_copy(update={"split": split})
    dataset = open_dataset(data, task_type(recipe.task).readers())
    refuse_missing_splits(recipe, dataset)
    if data.on_bad_image == "stop":
        bad = _unreadable(dataset, worker_count(data.workers), bar or Bar(None))
        if bad:
            raise BadImageError(
                bad,
                mend="remove or replace these files, or go on without with data.on_bad_image=skip",
            )
    return dataset


def _unreadable(dataset: Dataset, workers: int, bar: Bar) -> dict[str, str]:
    """Path → reason. Each process looks at its share of the images, and all learn of all."""
    process = PartialState()
    part = (process.process_index, process.num_processes)
    shares = {s: len(range(part[0], len(rows), part[1])) for s, rows in dataset.parts.items()}
    store = Remembered()
    found: dict[str, str] = {}
    before = 0
    bar.begin("looking at the images", sum(shares.values()))
    for split, samples in dataset.parts.items():

        def tell(done: int, total: int, before: int = before) -> None:
            bar.advance(before + done)

        found |= unreadable(samples, workers=workers, progress=tell, remembered=store, part=part)
        before += shares[split]
    return {path: why for bad in gather_object([found]) for path, why in bad.items()}


def settings_of(recipe: Recipe) -> Settings:
    """What `auto` comes to here."""
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device)
    world = build_accelerator(device, precision).num_processes
    refuse_undealt(recipe, world)
    if device == "cpu":
        keep_freed()
    return Settings(device, precision, fit_threads(), world)


def same_as_before(before: dict[str, Any], now: Settings) -> Settings:
    """What `auto` chose the first time, where it is to be had."""
    if before["world"] != now.world:
        LOGGER.warning("%d processes instead of %d", now.world, before["world"])
    try:
        device = choose_device(before["device"])
    except UsageError as error:
        raise UsageError(
            error.what,
            where="the device that the training began on",
            mend="go on where there is one, or elsewhere: --resume device=cpu (not bit for bit)",
        ) from None
    chosen = before["precision"], before["threads"], now.world, before.get("why", "")
    return Settings(device, *chosen)


def on_another_device(before: dict[str, Any], now: Settings) -> Settings:
    """What a training goes on with whose device was changed: the same precision, if that is to be
    had."""
    precision = choose_precision(before["precision"], now.device)
    return Settings(now.device, precision, now.threads, now.world)


def refuse_absent(run: RunFolder, recipe: Recipe) -> None:
    """Raise UsageError where what the run's recipe leads to is not there any more, with what says
    where it is now."""
    for key, place in (
        ("data.path", recipe.data.path),
        ("data.images", recipe.data.images),
        ("data.pool", recipe.data.pool),
        ("teacher", recipe.teacher),
    ):
        if place is not None and not Path(place).exists():
            short = "data" if key == "data.path" else key
            raise UsageError(
                f"{place!r} is not there any more",
                where=f"{run.path / RECIPE}, key {key}",
                mend=f"put it back, or say where it is now: {go_on(run.path, f'{short}=NEW')}",
            )


def prepared(
    run: RunFolder,
    recipe: Recipe,
    dataset: Dataset,
    settings: Settings,
    bar: Bar,
    clock: Clock,
) -> Training:
    """The training, ready for its first step, or for the one after its last checkpoint."""
    train = dataset.splits["train"]
    if not dataset.splits.get("val") and any(stage.early_stop for stage in recipe.stages):
        LOGGER.warning("no validation split: early_stop ends no stage, the last weights count")
    resumed = run.checkpoints.exists()
    _doubt_emulation(run, settings, resumed=resumed)
    task = _task(run, recipe, dataset, resumed=resumed)
    refuse_metric(recipe, task)
    refuse_undefined(recipe, task, dataset)
    if not resumed:
        refuse_samplers(recipe, dataset)
        refuse_mixing(recipe, dataset)
    torch.manual_seed(recipe.seed)
    network, preprocessing = _network(run, recipe, task, resumed=resumed)
    _settle(run, recipe, task, dataset, preprocessing, resumed=resumed)
    refuse_oblong(views(recipe.evaluation.tta), preprocessing.size, where="evaluation.tta")
    refuse_size(recipe, task, network, preprocessing.size, begun=resumed)
    teacher, taught_by = _teacher(recipe, task, preprocessing, train)
    _refuse_another_teacher(run, recipe, taught_by)
    epoch_steps = steps_of_epochs(recipe, dataset.parts, run)
    if not resumed:
        refuse_lone_images(recipe, network, preprocessing.size, dataset, settings.world)
        sizes = {split: len(samples) for split, samples in dataset.splits.items()}
        small = small_splits(sizes, picks=recipe.evaluation.keep == "best")
        stages = zip(recipe.stages, epoch_steps, strict=True)
        steps = sum(stage.total_steps(each) for stage, each in stages)
        own = task.doubts(train, steps)
        for doubt in [*dataset.doubts, *doubts(recipe, network, epoch_steps), *own, *small]:
            LOGGER.warning("%s", doubt)
    description = modelfile.ModelDescription(
        task=recipe.task,
        task_options=recipe.task_options,
        task_state=task.state(),
        classes=list(dataset.classes),
        network=network.name or recipe.model.name,
        arguments=dict(network.arguments),
        preprocessing=preprocessing.as_dict(),
        tta=recipe.evaluation.tta,
        recipe=without_paths(recipe),
        figures={},
        teacher=taught_by,
        versions=versions(),
    )
    recorder = Recorder(
        run,
        description,
        every_minutes=recipe.checkpoint.every_minutes,
        every_steps=recipe.checkpoint.every_steps,
        tensorboard=recipe.tensorboard,
        keep_epochs=recipe.checkpoint.keep_epochs,
    )
    if is_main() and not resumed:
        draw_examples(run, recipe, train, preprocessing, task.classes)
    learner = Learner(
        network, task.objective(network), None if teacher is None else teacher.network
    )
    return Training(
        recipe,
        task,
        learner,
        dataset.parts,
        preprocessing,
        settings,
        recorder,
        bar,
        clock,
        epoch_steps,
        taught_by,
    )


def _doubt_emulation(run: RunFolder, settings: Settings, *, resumed: bool) -> None:
    """Say so where bfloat16 was asked for, or begun with elsewhere, and is emulated here. What is
    under way keeps its precision all the same: with another it would be another training."""
    asked = settings.device == "cpu" and settings.precision == "bf16"
    why = without_bfloat16() if asked else None
    if why is None:
        return
    mend = "precision=fp32"
    if resumed:
        file = run.path / MODEL_FILE
        weights = [f"model.weights={file}"] if file.is_file() else []
        mend = f"go on where there are, or start anew: {begin_anew(run.path, mend, *weights)}"
    said = "%s; without, a step in bf16 takes hundreds of times as long as one in fp32: %s"
    LOGGER.warning(said, why, mend)


def _task(run: RunFolder, recipe: Recipe, dataset: Dataset, *, resumed: bool) -> Task:
    """Prepared from the training samples, or as it was when the training began."""
    kind, options = task_type(recipe.task), task_options(recipe)
    began = run.read_json(RECORD) or {}
    if resumed and "task_state" in began:
        return kind(dataset.classes, options, began["task_state"])
    return kind.prepared(dataset.classes, options, dataset.splits["train"])


def _settle(
    run: RunFolder,
    recipe: Recipe,
    task: Task,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    resumed: bool,
) -> None:
    """The task's state as a whole, by the samples of the last stage (which may be tiles), written
    down for a resume, which finds it there."""
    began = run.read_json(RECORD) or {}
    if resumed and "task_state" in began:
        return
    samples: Sequence[Sample] = dataset.splits["train"]
    for stage in recipe.stages:
        samples = stage_samples(run, stage.name, stage.data, samples, dataset.parts, write=False)
    task.settle(samples, preprocessing)
    if is_main():
        run.write_json(RECORD, {**began, "task_state": task.state()})


def _network(
    run: RunFolder, recipe: Recipe, task: Task, *, resumed: bool
) -> tuple[Network, Preprocessing]:
    """The network, and how it takes its images: as its weights want it and the recipe changes it.

    Weights can bring arguments, too (another epsilon, say). A resumed run, which needs no weights
    any more, keeps the arguments and the preprocessing that it began with.
    """
    began = run.read_json(RECORD) or {}
    if resumed and "arguments" in began:
        network = task.build(recipe.model.name, began["arguments"], None)
        return network, Preprocessing.from_dict(began["preprocessing"])
    network = task.build(recipe.model.name, network_arguments(recipe), recipe.model.weights)
    chosen = recipe.input.applied(network.preprocessing)
    if is_main():
        facts = {"arguments": dict(network.arguments), "preprocessing": chosen.as_dict()}
        run.write_json(RECORD, {**began, **facts})
    return network, chosen


def _teacher(
    recipe: Recipe, task: Task, preprocessing: Preprocessing, train: Sequence[Sample]
) -> tuple[Predictor | None, str | None]:
    """The model to learn from, and the hash of its file. Raises UsageError if it answers another
    question, or takes its images otherwise."""
    if recipe.teacher is None:
        return None, None
    file = modelfile.find_model(expanded(recipe.teacher))
    teacher = load(file, device="cpu", engine="torch", tta="none")
    where = f"key teacher, {str(file)!r}"
    own, its = preprocessing.as_dict(), teacher.preprocessing.as_dict()
    differ = [f"{key} {its[key]}, not {own[key]}" for key in own if own[key] != its[key]]
    for what, unlike in (
        ("is of another task", [f"{teacher.task.name}, not {task.name}"]
         if task.name != teacher.task.name else []),
        ("takes its images otherwise", differ),
    ):  # fmt: skip
        if unlike:
            raise UsageError(
                f"the teacher {what}: {'; '.join(unlike)}",
                where=where,
                mend="train a teacher on the same data with the same input",
            )
    try:
        task.learn_from(teacher.task, train)
    except UsageError as error:
        raise UsageError(error.what, where=where, mend=error.mend) from error
    return teacher, sha256(file)


def _refuse_another_teacher(run: RunFolder, recipe: Recipe, taught_by: str | None) -> None:
    """Raise RetinueError where it is not the one that the training began with; note it if that is
    now."""
    began = run.read_json(RECORD) or {}
    known = began.get("teacher")
    if known is not None and known != taught_by:
        raise RetinueError(
            "the teacher is another one than when the training began",
            where=f"key teacher, {recipe.teacher!r}",
            mend="put the model file back that it was",
        )
    if known is None and taught_by is not None and is_main():
        run.write_json(RECORD, {**began, "teacher": taught_by})


# --- what is written down, and found again -------------------------------------------------------


def with_absolute_paths(recipe: Recipe, dataset: Dataset) -> Recipe:
    """With what finds the data, weights and teacher from anywhere, so that the run's recipe repeats
    it."""
    return absolute(recipe.model_copy(update={"data": dataset.options}))


def write_down(run: RunFolder, recipe: Recipe, dataset: Dataset, settings: Settings) -> None:
    """What the training began with, but for what an interrupted one has already written down."""
    if run.read_json("classes.json") is None:
        run.write_json("classes.json", list(dataset.classes))
    if not (run.path / "splits.csv").is_file():
        with run.replacing("splits.csv") as temporary:
            dataset.write_splits(temporary)
    if run.read_json(RECORD) is None:
        begun = {"settings": settings.as_dict(), "versions": versions()}
        run.write_json(RECORD, {**begun, "recipe": leaves_of(recipe)})
    if not (run.path / pictures.FILE).is_file():
        pictures.remember(run, dataset)


def write_fitted(run: RunFolder, training: Training, plan: dict[str, Any] | None) -> None:
    """What the training's recipe came to when it was fitted to a budget, and its settings when all
    of them were settled, in place of what was written down before; and how long it is thought to
    take."""
    recipe, recorder = training.recipe, training.recorder
    began = run.read_json(RECORD) or {}
    run.write(RECIPE, dump(recipe))
    settings = training.settings.as_dict()
    found = {"settings": settings, "recipe": leaves_of(recipe), "plan": plan}
    run.write_json(RECORD, {**began, **found})
    kept = {"recipe": without_paths(recipe)}
    recorder.description = recorder.description.model_copy(update=kept)


def refuse_changed(run: RunFolder, dataset: Dataset) -> None:
    """The draws are keyed by an image's place in its split: order and targets must be the same as
    when the training began, and so must the classes."""
    classes = run.read_json("classes.json")
    if classes is not None and tuple(classes) != dataset.classes:
        new = [name for name in dataset.classes if name not in classes]
        gone = [name for name in classes if name not in dataset.classes]
        differ = [
            f"{what}: {few(names)}" for what, names in (("new", new), ("gone", gone)) if names
        ]
        raise RetinueError(
            "the data has other classes than when the training began:"
            f" {'; '.join(differ) or 'they have another order'}",
            where=str(run.path / "classes.json"),
            mend=_put_back(run, dataset),
        )
    written = run.path / "splits.csv"
    if not written.is_file():
        return
    with TemporaryDirectory() as folder:
        dataset.write_splits(Path(folder) / written.name)
        now = (Path(folder) / written.name).read_bytes()
    before = written.read_bytes()
    if now == before:
        return
    if before.splitlines()[:1] != now.splitlines()[:1]:
        raise RetinueError(
            "the training was begun by an older version, which wrote other things down",
            where=str(written),
            mend="start a new training from the run's recipe.yaml",
        )
    pairs = zip_longest(before.splitlines(), now.splitlines())
    line = next((n for n, (old, new) in enumerate(pairs, 1) if old != new), 1)
    raise RetinueError(
        "images have another label or order, or another weight, than when the training began",
        where=f"{written}, line {line}",
        mend=_put_back(run, dataset),
    )


def _put_back(run: RunFolder, dataset: Dataset) -> str:
    """What to do about data that has changed."""
    settings = [f"data={dataset.options.path}"] if dataset.options.path else []
    from_here = (run.path / MODEL_FILE).is_file()
    settings += [f"model.weights={run.path / MODEL_FILE}"] if from_here else []
    return (
        "put the data back as it was, or start a new training"
        f"{' from these weights' if from_here else ''}: {begin_anew(run.path, *settings)}"
    )
