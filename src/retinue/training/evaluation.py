"""Evaluating a model that is done, on its own data or on another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from retinue import modelfile
from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources import Dataset, judged_split, open_dataset
from retinue.data.sources.copies import copies
from retinue.data.sources.pool import POOL
from retinue.documents import json_text
from retinue.errors import RetinueError, UsageError, some, suggest
from retinue.explaining.overlays import for_the_page
from retinue.exporting.material import Material
from retinue.files import replacing, sweep, write_text
from retinue.inference.engine import Precision
from retinue.inference.ensembles import members_of
from retinue.inference.evaluator import evaluate
from retinue.inference.names import EngineName
from retinue.inference.predictor import Predictor, load
from retinue.modelfile import ModelDescription, find_model
from retinue.run.folder import EPOCHS, RunFolder
from retinue.run.log import LOGGER, console
from retinue.sample import Sample
from retinue.tasks.task import task_type
from retinue.training.pseudo_labels import read_taken
from retinue.training.recipe import load_recipe
from retinue.training.stage_samples import PseudoLabels, WithPool, WithValidation


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be evaluated, and how; see `retinue.api.evaluate`."""

    models: Sequence[Path]
    data: str | None = None
    split: str = "auto"
    engine: EngineName = "auto"
    precision: Precision = "fp32"
    tta: str | None = None
    device: str = "auto"
    batch_size: int = 32
    out: Path | None = None
    quiet: bool = True


def evaluate_model(asked: Question) -> dict[str, Any]:
    """See `retinue.api.evaluate`."""
    out = asked.out
    if out is not None:
        _prepare(out)
    with console(None, quiet=asked.quiet) as bar:
        files = [find_model(model) for model in asked.models]
        predictor = load_in(
            files,
            precision=asked.precision,
            device=asked.device,
            engine=asked.engine,
            tta=asked.tta,
        )
        whole = DataOptions(path=asked.data, split=SplitOptions(train=1, val=0, test=0))
        dataset = open_dataset(
            whole if asked.data is not None else own_data(find_model(members_of(files)[0][0])),
            predictor.task.readers(),
            to_train=False,
        )
        for note in dataset.notes:
            LOGGER.info("%s", note)
        chosen = _choose(dataset, asked.split)
        # A folder that has no splits is judged whole, whatever it was to its training.
        alone = asked.data is not None and list(dataset.splits) == ["train"]
        name = "all" if alone else chosen
        samples = in_order_of(predictor.classes, dataset.classes, dataset.splits[chosen])
        bar.begin("evaluating", len(samples))
        judged = evaluate(
            predictor,
            samples,
            batch_size=asked.batch_size,
            split=name,
            progress=lambda done, total: bar.advance(done),
        )
    figures = {"task": predictor.description.task, "split": name, **judged.figures}
    if asked.precision != "fp32":
        figures["precision"] = asked.precision
    if asked.data is None:
        figures |= seen_in_training(predictor, chosen)
    elif learnt := _learnt_from(predictor, files, samples):
        figures["learnt_from"] = learnt
    if judged.skipped:
        figures["skipped"] = judged.skipped
    if out is not None:
        sweep(out)
        write_text(out / "metrics.json", json_text(figures, indent=2) + "\n")
        for kind, table in judged.tables.items():
            with replacing(out / f"{kind}.parquet") as temporary:
                pq.write_table(table, temporary)
        for kind, table in for_the_page(predictor, samples, out, judged.tables).items():
            with replacing(out / f"{kind}.parquet") as temporary:
                pq.write_table(table, temporary)
    return figures


def seen_in_training(predictor: Predictor, split: str) -> dict[str, Any]:
    """Why figures of a model's own `split` are no judgement, for `metrics.json`:
    `trained_on_this_split` (true; a stage may have learnt from the validation split, too),
    `transductive` (true: its images were learnt from by labels of the model's own), and
    `fitted_on_this_split`, the names of what the task chose on it; each only where it is so. Of the
    validation split also `epoch_chosen_on_this_split`, whether it chose among the epochs.

    Of several models, those count that were trained on the data of the first one.
    """
    data = (predictor.description.recipe or {}).get("data")
    members = [m for m in predictor.members if (m.description.recipe or {}).get("data") == data]
    found: dict[str, Any] = {}
    if any(_trained_on(m.description, split) for m in members):
        found["trained_on_this_split"] = True
    if split == "val":
        found["epoch_chosen_on_this_split"] = any(_compared(m.description) for m in members)
    if any(_labelling(m.description, split) for m in members):
        found["transductive"] = True
    fitted = {name for member in members if split == "val" for name in member.task.fitted()}
    if fitted:
        found["fitted_on_this_split"] = sorted(fitted)
    return found


def _learnt_from(predictor: Predictor, files: Sequence[Path], samples: Sequence[Sample]) -> int:
    """How many of the `samples` are, byte for byte, images that one of the models has learnt from:
    as far as their runs, and the data of these, are here to tell."""
    known: list[Sample] = []
    for named, member in zip(members_of(files)[0], predictor.members, strict=True):
        with suppress(RetinueError):
            known += _learnt(find_model(named), member.description)
    return sum(copies(samples, known))


def _learnt(file: Path, description: ModelDescription) -> list[Sample]:
    """The images that the model of the run's `file` has learnt from. RetinueError where its data
    is not there."""
    found: list[Sample] = []
    for name, part in _parts(file, description).items():
        if _trained_on(description, name):
            found += part
        elif stages := _labelling(description, name):
            taken = read_taken(RunFolder(_run_of(file)), stages)
            found += [s for s in part if taken is None or (s.name or s.key) in taken]
    return found


def _parts(file: Path, description: ModelDescription) -> Mapping[str, Sequence[Sample]]:
    """The splits of its run, and the pool if it has learnt from that, and that is still there."""
    if _trained_on(description, POOL) or _labelling(description, POOL):
        task = task_type(load_recipe(_run_of(file) / "recipe.yaml").task)
        with suppress(RetinueError):
            return open_dataset(own_data(file), task.readers()).parts
    return own_dataset(file).splits


def _trained_on(description: ModelDescription, split: str) -> bool:
    """Whether the model learnt from all images of `split` (`POOL`: what a teacher said of them)."""
    if split == POOL:
        return any(data.get("name") == WithPool().name for data in _data(description))
    return split == "train" or (split == "val" and _took_validation(description))


def _compared(description: ModelDescription) -> bool:
    """Whether the validation split chose among the epochs."""
    evaluation = (description.recipe or {}).get("evaluation") or {}
    return bool(evaluation.get("keep") != "last")


def _took_validation(description: ModelDescription) -> bool:
    """Whether a stage of the model's recipe learnt from the validation split."""
    return any(data.get("name") == WithValidation().name for data in _data(description))


def _labelling(description: ModelDescription, split: str) -> list[str]:
    """The stages of the model's recipe that labelled images of `split` and learnt from them."""
    name = PseudoLabels().name
    return [
        str(stage.get("name"))
        for stage, data in zip(_stages(description), _data(description), strict=True)
        if data.get("name") == name and data.get("of") == split
    ]


def _data(description: ModelDescription) -> list[dict[str, Any]]:
    return [stage.get("data") or {} for stage in _stages(description)]


def _stages(description: ModelDescription) -> list[dict[str, Any]]:
    return (description.recipe or {}).get("stages") or []


def _prepare(out: Path) -> None:
    """The folder is there before the work begins, and it is no run's."""
    if (out / "recipe.yaml").exists():
        raise UsageError(
            "the figures of a run are not overwritten",
            where=str(out),
            mend="name another folder with --out",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the folder cannot be made: {error.strerror}",
            where=str(out),
            mend="name another folder with --out",
        ) from error


def in_order_of(
    wanted: Sequence[str], found: Sequence[str], samples: Sequence[Sample]
) -> list[Sample]:
    """The samples with targets that index `wanted` instead of `found`.

    Raises UsageError for a class that is not among the wanted ones: the order of a model's classes
    never follows from a folder.
    """
    position = {name: index for index, name in enumerate(wanted)}
    strange = [name for name in found if name not in position]
    if strange:
        lines = list(map(repr, strange))
        knows = f"it knows {some(list(map(repr, wanted)), between=', ')}"
        raise UsageError(
            f"the model does not know the classes {some(lines, 10, between=', ')}",
            where="key data",
            mend=suggest(strange[0], wanted) or knows,
            details=lines if len(lines) > 10 else (),
        )
    moved = {index: position[name] for index, name in enumerate(found)}
    absent = sorted(set(position.values()) - set(moved.values()))
    targets = [None if s.target is None else s.target.remap(moved) for s in samples]
    return [
        replace(s, target=None if target is None else target.leaving_open(absent))
        for s, target in zip(samples, targets, strict=True)
    ]


def data_of_run(run: Path) -> Dataset:
    """What the run was trained on, split as it was then. Raises UsageError if that is not there."""
    recipe = load_recipe(run / "recipe.yaml")
    return open_dataset(own_data(run / "best.safetensors"), task_type(recipe.task).readers())


_NAME_DATA = "name a folder or table with --data"


def own_dataset(file: Path, *, mend: str = _NAME_DATA) -> Dataset:
    """The same of the run of the model file, to look at: without a pool. Raises UsageError, with
    `mend`, where the file lies in no run."""
    options = own_data(file, mend=mend)
    task = task_type(load_recipe(_run_of(file) / "recipe.yaml").task)
    return open_dataset(options, task.readers(), to_train=False)


def _run_of(file: Path) -> Path:
    """The folder that a model file's run would have."""
    return file.parent.parent if file.parent.name == EPOCHS else file.parent


def own_data(file: Path, *, mend: str = _NAME_DATA) -> DataOptions:
    """What the run of the model file was trained on, split as it was then. Raises UsageError, with
    `mend`, where the file lies in no run."""
    run = _run_of(file)
    if not (run / "recipe.yaml").is_file():
        raise UsageError(
            "the model file does not say where its data is",
            where=str(file),
            mend=mend,
        )
    options = load_recipe(run / "recipe.yaml").data
    written = run / "splits.csv"
    if written.is_file():
        split = options.split.model_copy(update={"file": str(written)})
        options = options.model_copy(update={"split": split})
    return options


def samples_of(file: Path, classes: Sequence[str]) -> dict[str, list[Sample]]:
    """The splits of what the run of the model file was trained on, their targets in the order of
    `classes`. UsageError where that is not there."""
    task = task_type(modelfile.read_description(file).task)
    dataset = open_dataset(own_data(file), task.readers(), to_train=False)
    return {
        name: in_order_of(classes, dataset.classes, samples)
        for name, samples in dataset.splits.items()
    }


ENOUGH = 16
"""Images for a proof; where a split has fewer, others help out."""


def material_of(file: Path) -> Material:
    """Real images for the proof of an export of the model file: its run's own. UsageError where
    they are not there."""
    try:
        splits = samples_of(file, modelfile.read_description(file).classes)
    except UsageError as error:
        raise UsageError(
            f"an export is proven on real images, and there are none: {error.what}",
            where=error.where,
            mend="name some: images=FOLDER (--images FOLDER)",
        ) from error
    best = judged_split("auto", splits)
    own = list(splits[best])
    rest = [sample for name, samples in splits.items() if name != best for sample in samples]
    lacking = ENOUGH - len(own)
    proof = [*own, *rest[:: max(len(rest) // lacking, 1)]] if lacking > 0 else own
    return Material(proof, splits.get("train") or own, own, best)


def load_in(
    models: Sequence[Path],
    *,
    precision: Precision = "fp32",
    engine: EngineName = "auto",
    **how: Any,
) -> Predictor:
    """`retinue.inference.predictor.load`, in int8, too: with ranges of numbers chosen by the
    model's own images, and what it costs told. Raises UsageError where there are none."""
    if precision != "int8":
        return load(list(models), engine=engine, precision=precision, **how)
    from retinue.exporting.eight_bits import load_in_eight_bits

    def material(file: Path) -> Material:
        try:
            return material_of(file)
        except UsageError as error:
            raise UsageError(
                f"ranges for int8 are chosen by the model's own images: {error.what}",
                where=error.where,
                mend="export it (retinue export MODEL --to onnx --precision int8 --images FOLDER),"
                " and name that file",
            ) from error

    files = [find_model(model) for model in models]
    if len(members_of(files)[0]) != len(files):
        raise UsageError(
            "an ensemble has no int8 of its own",
            where="precision (--precision)",
            mend="name its models one after the other",
        )
    return load_in_eight_bits(files, material, engine=engine, **how)


def _choose(dataset: Dataset, split: str) -> str:
    if split != "auto" and not dataset.splits.get(split):
        raise UsageError(
            f"the data has no {split} split",
            where="key split",
            mend=f"it has {', '.join(dataset.splits)}",
        )
    return judged_split(split, dataset.splits)
