"""The end of a training: the model file itself is judged, as everyone gets it who gets that."""

from __future__ import annotations

from typing import Any

from retinue.data.sources import Dataset, judged_split
from retinue.explaining.overlays import for_the_page
from retinue.exporting.card import model_card
from retinue.inference.evaluator import evaluate
from retinue.inference.predictor import load
from retinue.modelfile import MODEL_FILE
from retinue.page.text import flat, words
from retinue.processor import cpu_name
from retinue.run.folder import RunFolder
from retinue.run.log import LOG_ALONE, LOGGER, Bar
from retinue.run.progress import Progress
from retinue.training.changes import RECORD
from retinue.training.environment import Settings, versions
from retinue.training.evaluation import seen_in_training
from retinue.training.planning.clock import EVALUATION, Clock
from retinue.training.recipe import Recipe
from retinue.training.validation import scalars


def final_figures(
    run: RunFolder,
    recipe: Recipe,
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
    bar: Bar,
    clock: Clock,
) -> dict[str, Any]:
    """What stands in `metrics.json` from now on; the other files of the run are written on the
    way."""
    split = judged_split(recipe.evaluation.split, dataset.splits)
    workers = recipe.data.workers
    predictor = load(run.path / MODEL_FILE, device=settings.device, workers=workers)
    clock.begin()
    samples = dataset.splits[split]
    seconds = 0.0

    def evaluated(done: int, total: int) -> None:
        nonlocal seconds
        seconds += clock.lap(EVALUATION, done / total)
        bar.advance(done)

    bar.begin(f"evaluating the {split} split", len(samples))
    judged = evaluate(
        predictor,
        samples,
        batch_size=recipe.evaluation.batch_size,
        bad_images="stop" if recipe.data.on_bad_image == "stop" else "drop",
        split=split,
        progress=evaluated,
    )
    evaluated(len(samples), len(samples))
    figures = {"task": recipe.task, "split": split, **judged.figures}
    figures |= seen_in_training(predictor, split)
    progress.skipped.update(judged.skipped)
    for name, table in judged.tables.items():
        run.write_table(f"{name}.parquet", table)
    run.write_json(
        RECORD,
        {
            **(run.read_json(RECORD) or {}),
            "versions": versions(),
            "settings": settings.as_dict(),
            "preprocessing": predictor.preprocessing.as_dict(),
            "device": settings.device,
            "engine": predictor.engine,
            "precision": settings.precision,
            **({"precision_chosen": settings.why} if settings.why else {}),
            "threads": settings.threads,
            "workers": workers,
            "cpu": cpu_name(),
            "trunk": progress.trunk or None,
            **({"packed": progress.packed} if progress.packed else {}),
            "teacher": predictor.description.teacher,
            "model": model_card(
                predictor,
                run.path / MODEL_FILE,
                samples,
                batch_size=min(32, recipe.evaluation.batch_size),
            ),
            "timings": {
                "total_s": round(clock.total, 3),
                "frozen_s": round(sum(progress.frozen_seconds.values()), 3),
                "training_s": round(progress.seconds, 3),
                "validation_s": round(progress.validation_seconds, 3),
                "evaluation_s": round(seconds, 3),
                "frozen_of_stages_s": {k: round(v, 3) for k, v in progress.frozen_seconds.items()},
            },
            "waited": {
                stage: {name: round(value, 3) for name, value in spent.items()}
                for stage, spent in progress.waited.items()
            },
            "kept": {"epoch": progress.kept_epoch, "figures": progress.kept_figures},
            "fitted": predictor.task.fitted(),
            "skipped": progress.skipped,
        },
    )
    run.write_json("metrics.json", figures)
    for kind, table in for_the_page(predictor, samples, run.path, judged.tables).items():
        run.write_table(f"{kind}.parquet", table)
    told = scalars(figures, predictor.task.figures())
    shown = "  ".join(f"{name} {value:.4f}" for name, value in told.items())
    for name, value in predictor.task.fitted().items():
        LOGGER.info("fitted on the validation split: %s %s", words(name), _once(value))
    said = [f"{split} split, {figures.get('images')} images: {shown}"]
    if remark := predictor.task.sections().remark(figures):
        said.append(remark)
    for line in said:
        LOGGER.info("%s", line, extra=LOG_ALONE)
    return figures


def _once(value: Any) -> str:
    """A JSON value in one line; one that is the same for several names once."""
    several = list(value.values()) if isinstance(value, dict) else []
    alike = len(several) > 1 and all(one == several[0] for one in several)
    return f"{flat(several[0])} for all {len(several)}" if alike else flat(value)
