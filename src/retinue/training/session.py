"""A training from its recipe to its final figures, in a new run folder or a resumed one."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from retinue import modelfile
from retinue.data.scan import scan
from retinue.data.sources import Dataset, open_dataset
from retinue.errors import BadImageError, RetinueError, UsageError, suggest
from retinue.inference.devices import choose_device
from retinue.inference.evaluator import evaluate
from retinue.inference.predictor import load
from retinue.modelfile import MODEL_FILE
from retinue.models.network import Network
from retinue.options import Options
from retinue.sample import Preprocessing
from retinue.tasks.task import Task, task_type
from retinue.training.console import LOGGER, Bar, console
from retinue.training.environment import (
    Settings,
    build_accelerator,
    choose_precision,
    cpu_name,
    versions,
)
from retinue.training.examples import draw_examples
from retinue.training.foresight import doubts, network_arguments, refuse_size, refuse_unfit_model
from retinue.training.keeper import Keeper
from retinue.training.progress import Progress
from retinue.training.recipe import Recipe, dump, load_recipe
from retinue.training.run_folder import RunFolder
from retinue.training.trainer import Trainer
from retinue.weights.resolution import names_a_file


@dataclass(frozen=True)
class Run:
    """A training that is done."""

    folder: Path
    figures: dict[str, Any]
    """What stands in `metrics.json`."""
    best: Path
    """The model file."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Files that could not be read, with the reasons."""


def start(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any],
    *,
    out: Path | None,
    quiet: bool,
) -> Run:
    """A new training. The run folder is only made once the recipe and the data are in order."""
    loaded = load_recipe(recipe, overrides)
    refuse_unfit_model(loaded)
    name = Path(str(recipe)).stem if isinstance(recipe, str | Path) else "training"
    settings = _settings(loaded)
    with console(None, quiet=quiet or not _is_main()):
        dataset = _open_data(loaded)
    folder = [str(RunFolder.create(out, name).path)] if _is_main() else [None]
    broadcast_object_list(folder)
    run = RunFolder(Path(str(folder[0])))
    if _is_main():
        loaded = _absolute(loaded)
        run.write("recipe.yaml", dump(loaded))
        _write_down(run, dataset, settings)
    try:
        return _work(run, loaded, dataset, settings, quiet=quiet)
    except RetinueError:
        if _is_main() and not run.checkpoints.exists():
            shutil.rmtree(run.path, ignore_errors=True)  # nothing had begun that could go on
        raise


def resume(folder: Path, *, quiet: bool) -> Run:
    """Go on with the training in `folder`; one that is done already only gives its figures."""
    run = RunFolder.open(folder)
    recipe = load_recipe(run.path / "recipe.yaml")
    environment = run.read_json("environment.json") or {}
    done = run.read_json("metrics.json")
    if done is not None:
        return Run(run.path, done, run.path / MODEL_FILE, environment.get("skipped", {}))
    settings = _settings(recipe)
    if before := environment.get("settings"):
        settings = _same_as_before(before, settings)
    with console(None, quiet=quiet or not _is_main()):
        changed = {
            f"{name} {old} → {versions().get(name)}"
            for name, old in environment.get("versions", {}).items()
            if versions().get(name) != old
        }
        if changed:
            LOGGER.warning("versions differ, the result may too: %s", ", ".join(sorted(changed)))
        split_file = run.path / "splits.csv"
        dataset = _open_data(recipe, split_file if split_file.is_file() else None)
    classes = run.read_json("classes.json")
    if classes is not None and tuple(classes) != dataset.classes:
        raise RetinueError(
            "the data has other classes than when the training began",
            where=str(run.path / "classes.json"),
            mend="put the data back as it was, or start a new training",
        )
    _refuse_changed(run.path / "splits.csv", dataset)
    if _is_main():
        _write_down(run, dataset, settings)
    return _work(run, recipe, dataset, settings, quiet=quiet)


def _work(
    run: RunFolder, recipe: Recipe, dataset: Dataset, settings: Settings, *, quiet: bool
) -> Run:
    main = _is_main()
    torch.set_num_threads(settings.threads)
    lock = run.locked() if main else nullcontext()
    with lock, console(run.path / "train.log" if main else None, quiet=quiet or not main) as bar:
        for note in dataset.notes:
            LOGGER.info("%s", note)
        LOGGER.info("run folder %s", run.path)
        if not dataset.splits.get("val") and any(stage.early_stop for stage in recipe.stages):
            LOGGER.warning("no validation split: early_stop ends no stage, the last weights count")
        options_type = task_type(recipe.task).options_type
        task = task_type(recipe.task)(
            dataset.classes, options_type.model_validate(recipe.task_options)
        )
        torch.manual_seed(recipe.seed)
        resumed = run.checkpoints.exists()
        network, preprocessing = _network(run, recipe, task, resumed=resumed)
        _refuse_contradictions(recipe, task, preprocessing)
        refuse_size(recipe, network, preprocessing.size, begun=resumed)
        if not resumed:
            for doubt in doubts(recipe, network, dataset):
                LOGGER.warning("%s", doubt)
        description = modelfile.ModelDescription(
            task=recipe.task,
            task_options=recipe.task_options,
            classes=list(dataset.classes),
            network=recipe.model.name,
            arguments=dict(network.arguments),
            preprocessing=preprocessing.as_dict(),
            tta=recipe.evaluation.tta,
            recipe=_without_paths(recipe),
            figures={},
            versions=versions(),
        )
        keeper = Keeper(run, recipe.checkpoint, description, tensorboard=recipe.tensorboard)
        if main and not resumed:
            draw_examples(run, recipe, dataset, preprocessing)
        trainer = Trainer(recipe, task, network, dataset, preprocessing, settings, keeper, bar)
        progress = trainer.fit()
        if not main:
            return Run(run.path, {}, run.path / MODEL_FILE)
        figures = _judge(run, recipe, task, dataset, settings, progress, bar)
        return Run(run.path, figures, run.path / MODEL_FILE, progress.skipped)


def _judge(
    run: RunFolder,
    recipe: Recipe,
    task: Task,
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
    bar: Bar,
) -> dict[str, Any]:
    """Evaluate the model file itself, as everyone who gets it would."""
    split = _final_split(recipe, dataset)
    predictor = load(run.path / MODEL_FILE, device=settings.device)
    began = time.monotonic()
    samples = dataset.splits[split]
    bar.begin(f"evaluating the {split} split", len(samples))
    judged = evaluate(
        predictor.compile(samples),
        task,
        samples,
        predictor.preprocessing,
        tta=recipe.evaluation.tta,
        batch_size=recipe.evaluation.batch_size,
        device=settings.device,
        workers=recipe.data.workers,
        bad_images="stop" if recipe.data.on_bad_image == "stop" else "drop",
        progress=lambda done, total: bar.advance(done),
    )
    seconds = time.monotonic() - began
    figures = {"task": recipe.task, "split": split, **judged.figures}
    progress.skipped.update(judged.skipped)
    run.write_table("predictions.parquet", judged.table)
    run.write_json(
        "environment.json",
        {
            **(run.read_json("environment.json") or {}),
            "versions": versions(),
            "settings": settings.as_dict(),
            "preprocessing": predictor.preprocessing.as_dict(),
            "device": settings.device,
            "engine": figures.get("engine"),
            "precision": settings.precision,
            "threads": settings.threads,
            "workers": recipe.data.workers,
            "cpu": cpu_name(),
            "trunk": progress.trunk or None,
            "timings": {
                "training_s": round(progress.seconds, 2),
                "evaluation_s": round(seconds, 2),
            },
            "kept": {"epoch": progress.kept_epoch, "figures": progress.kept_figures},
            "skipped": progress.skipped,
        },
    )
    run.write_json("metrics.json", figures)
    scalars = {k: v for k, v in figures.items() if isinstance(v, float)}
    shown = "  ".join(f"{k} {v:.4f}" for k, v in scalars.items() if k != "images_per_second")
    LOGGER.info("%s split, %s images: %s", split, figures.get("images"), shown)
    return figures


# --- what a session is made of -------------------------------------------------------------------


def _open_data(recipe: Recipe, split_file: Path | None = None) -> Dataset:
    """The data set, with every unreadable file named before anything is trained."""
    data = recipe.data
    if split_file is not None:
        split = data.split.model_copy(update={"file": str(split_file)})
        data = data.model_copy(update={"split": split})
    dataset = open_dataset(data)
    if not dataset.splits.get("train"):
        raise UsageError("there are no training images", where=str(data.path))
    wanted = recipe.evaluation.split
    if wanted != "auto" and not dataset.splits.get(wanted):
        raise UsageError(f"the data has no {wanted} split", where="key evaluation.split")
    if data.on_bad_image == "stop":
        samples = [sample for split in dataset.splits.values() for sample in split]
        bad = scan(samples, thorough=False)
        if bad:
            raise BadImageError(
                bad,
                mend="remove or replace these files, or go on without with data.on_bad_image=skip",
            )
    return dataset


def _settings(recipe: Recipe) -> Settings:
    device = choose_device(recipe.device)
    precision = choose_precision(recipe.precision, device)
    world = build_accelerator(device, precision).num_processes
    for index, stage in enumerate(recipe.stages):
        if stage.batch_size % (world * stage.accumulate):
            raise UsageError(
                f"batch_size {stage.batch_size} cannot be dealt to {world} processes"
                f" in {stage.accumulate} portions",
                where=f"key stages.{index}.batch_size",
                mend=f"make it a multiple of {world * stage.accumulate}",
            )
    return Settings(device, precision, torch.get_num_threads(), world)


def _same_as_before(before: dict[str, Any], now: Settings) -> Settings:
    """What `auto` chose the first time, where it is to be had."""
    if before["world"] != now.world:
        LOGGER.warning("%d processes instead of %d", now.world, before["world"])
    try:
        device = choose_device(before["device"])
    except UsageError as error:
        raise UsageError(
            error.what,
            where="the device that the training began on",
            mend="go on where there is one, or start a new training from its recipe.yaml",
        ) from None
    return Settings(device, before["precision"], before["threads"], now.world)


def _network(
    run: RunFolder, recipe: Recipe, task: Task, *, resumed: bool
) -> tuple[Network, Preprocessing]:
    """The network, and how it takes its images: as its weights want it and the recipe changes it.

    Weights can bring arguments, too (another epsilon, say). A resumed run, which needs no weights
    any more, keeps the arguments and the preprocessing that it began with.
    """
    began = run.read_json("environment.json") or {}
    if resumed and "arguments" in began:
        network = task.build(recipe.model.name, began["arguments"], None)
        return network, Preprocessing.from_dict(began["preprocessing"])
    network = task.build(recipe.model.name, network_arguments(recipe), recipe.model.weights)
    chosen = recipe.input.applied(network.preprocessing)
    if _is_main():
        facts = {"arguments": dict(network.arguments), "preprocessing": chosen.as_dict()}
        run.write_json("environment.json", {**began, **facts})
    return network, chosen


def _refuse_contradictions(recipe: Recipe, task: Task, preprocessing: Preprocessing) -> None:
    """What would otherwise show only once an epoch, or the whole training, is over."""
    known = task.meter().compute()
    metric = recipe.evaluation.metric
    if metric is not None and metric not in known:
        raise UsageError(
            f"the validation gives no figure {metric!r}",
            where="key evaluation.metric",
            mend=suggest(metric, known) or f"it gives {', '.join(known)}",
        )
    height, width = preprocessing.size
    if recipe.evaluation.tta == "dihedral" and height != width:
        raise UsageError(
            f"quarter turns need a square input, this one is {height} × {width}",
            where="key evaluation.tta",
            mend="use evaluation.tta=flip",
        )


def _write_down(run: RunFolder, dataset: Dataset, settings: Settings) -> None:
    """What the training began with, but for what an interrupted one has already written down."""
    if run.read_json("classes.json") is None:
        run.write_json("classes.json", list(dataset.classes))
    if not (run.path / "splits.csv").is_file():
        with run.replacing("splits.csv") as temporary:
            dataset.write_splits(temporary)
    if run.read_json("environment.json") is None:
        run.write_json("environment.json", {"settings": settings.as_dict(), "versions": versions()})


def _refuse_changed(written: Path, dataset: Dataset) -> None:
    """The draws are keyed by an image's place in its split: order and labels must be the same."""
    if not written.is_file():
        return
    with TemporaryDirectory() as folder:
        dataset.write_splits(Path(folder) / written.name)
        now = (Path(folder) / written.name).read_bytes()
    before = written.read_bytes()
    if now == before:
        return
    pairs = zip_longest(before.splitlines(), now.splitlines())
    line = next((n for n, (old, new) in enumerate(pairs, 1) if old != new), 1)
    raise RetinueError(
        "images have another label or order than when the training began",
        where=f"{written}, line {line}",
        mend="put the data back as it was, or start a new training",
    )


def _final_split(recipe: Recipe, dataset: Dataset) -> str:
    wanted = recipe.evaluation.split
    if wanted != "auto":
        return wanted
    return next(split for split in ("test", "val", "train") if dataset.splits.get(split))


def _absolute(recipe: Recipe) -> Recipe:
    """With absolute paths of data and weights, so that the run's recipe repeats it from
    anywhere."""

    def placed(options: Options, *names: str) -> dict[str, str]:
        given = {name: getattr(options, name) for name in names}
        return {k: str(Path(v).expanduser().absolute()) for k, v in given.items() if v is not None}

    data, model = recipe.data, recipe.model
    split = data.split.model_copy(update=placed(data.split, "file"))
    data = data.model_copy(update={**placed(data, "path", "images"), "split": split})
    if model.weights is not None and names_a_file(model.weights):
        model = model.model_copy(update=placed(model, "weights"))
    return recipe.model_copy(update={"data": data, "model": model})


def _without_paths(recipe: Recipe) -> dict[str, Any]:
    """The recipe as the model file keeps it: folders by their last name only."""
    values: dict[str, Any] = json.loads(recipe.model_dump_json())
    for name in ("path", "images"):
        if values["data"][name] is not None:
            values["data"][name] = Path(values["data"][name]).name
    if values["data"]["split"]["file"] is not None:
        values["data"]["split"]["file"] = Path(values["data"]["split"]["file"]).name
    weights = values["model"]["weights"]
    if weights is not None and names_a_file(weights):
        values["model"]["weights"] = Path(weights).name
    return values


def _is_main() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)
