"""Evaluating a model that is done, on its own data or on another's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.errors import UsageError, suggest
from retinue.files import replacing, write_text
from retinue.inference.engines import EngineName
from retinue.inference.evaluator import evaluate
from retinue.inference.predictor import load
from retinue.modelfile import find_model
from retinue.sample import Sample
from retinue.training.console import LOGGER, console
from retinue.training.recipe import load_recipe


def evaluate_model(
    model: Path,
    *,
    data: str | None,
    split: str,
    engine: EngineName,
    tta: str | None,
    device: str,
    batch_size: int,
    out: Path | None,
    quiet: bool,
) -> dict[str, Any]:
    """See `retinue.api.evaluate`."""
    if out is not None:
        _prepare(out)
    with console(None, quiet=quiet) as bar:
        file = find_model(model)
        options = DataOptions(path=data, split=SplitOptions(train=1, val=0, test=0))
        dataset = open_dataset(options if data is not None else _own_data(file), to_train=False)
        for note in dataset.notes:
            LOGGER.info("%s", note)
        predictor = load(file, device=device, engine=engine, tta=tta)
        chosen = _choose(dataset, split)
        samples = in_order_of(predictor.classes, dataset.classes, dataset.splits[chosen])
        bar.begin("evaluating", len(samples))
        judged = evaluate(
            predictor.compile(samples),
            predictor.task,
            samples,
            predictor.preprocessing,
            tta=tta or predictor.description.tta,
            batch_size=batch_size,
            device=predictor.device,
            bad_images="drop",
            progress=lambda done, total: bar.advance(done),
        )
    # A folder that has no splits is judged whole, whatever it was to its training.
    name = "all" if data is not None and list(dataset.splits) == ["train"] else chosen
    figures = {"task": predictor.description.task, "split": name, **judged.figures}
    if judged.skipped:
        figures["skipped"] = judged.skipped
    if out is not None:
        text = json.dumps(figures, indent=2, ensure_ascii=False)
        write_text(out / "metrics.json", text + "\n")
        with replacing(out / "predictions.parquet") as temporary:
            pq.write_table(judged.table, temporary)
    return figures


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
    """The samples with labels that index `wanted` instead of `found`.

    Raises UsageError for a class that is not among the wanted ones: the order of a model's classes
    never follows from a folder.
    """
    position = {name: index for index, name in enumerate(wanted)}
    strange = [name for name in found if name not in position]
    if strange:
        shown = ", ".join(map(repr, strange[:10]))
        raise UsageError(
            f"the model does not know the classes {shown}",
            where="key data",
            mend=suggest(strange[0], wanted) or f"it knows {', '.join(map(repr, wanted[:20]))}",
        )
    return [s if s.label is None else replace(s, label=position[found[s.label]]) for s in samples]


def _own_data(file: Path) -> DataOptions:
    """What the run of the model file was trained on, split as it was then."""
    run = file.parent
    if not (run / "recipe.yaml").is_file():
        raise UsageError(
            "the model file does not say where its data is",
            where=str(file),
            mend="name a folder or table with --data",
        )
    options = load_recipe(run / "recipe.yaml").data
    written = run / "splits.csv"
    if written.is_file():
        split = options.split.model_copy(update={"file": str(written)})
        options = options.model_copy(update={"split": split})
    return options


def _choose(dataset: Dataset, split: str) -> str:
    if split == "auto":
        return next(name for name in ("test", "val", "train") if dataset.splits.get(name))
    if not dataset.splits.get(split):
        raise UsageError(
            f"the data has no {split} split",
            where="key split",
            mend=f"it has {', '.join(dataset.splits)}",
        )
    return split
