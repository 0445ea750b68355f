"""The model card: what a model is, weighs and costs, for `environment.json` and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinue.exporting import preparing
from retinue.exporting.weights import origin
from retinue.inference.predictor import Predictor
from retinue.inference.speed import measured
from retinue.models.anatomy import count_macs
from retinue.run.log import LOGGER
from retinue.sample import Sample
from retinue.training.recipe import Recipe


def model_card(
    predictor: Predictor, file: Path, recipe: Recipe, samples: Sequence[Sample]
) -> dict[str, Any]:
    """Plain JSON values: `network, parameters, macs, file_bytes, input, prepared, weights`, and
    `speed` as `retinue.inference.speed` measures it on `samples`. What cannot be told is None."""
    network, preprocessing = predictor.network, predictor.preprocessing
    return {
        "network": recipe.model.name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "macs": _or_none(lambda: count_macs(network, preprocessing.size), "multiply-adds"),
        "file_bytes": file.stat().st_size,
        "input": list(preprocessing.size),
        "prepared": preparing.words(preprocessing),
        "weights": _origin(recipe),
        "speed": _or_none(
            lambda: measured(predictor, samples, most=min(32, recipe.evaluation.batch_size)),
            "speed",
        ),
    }


def _origin(recipe: Recipe) -> dict[str, Any] | None:
    """What the training began from: `name` and, where the catalogue knows them, `licence` and
    `source`."""
    name = recipe.model.weights
    if name is None:
        return None
    return origin(recipe.model.name, name).model_dump(exclude_none=True)


def _or_none(work: Any, what: str) -> Any:
    try:
        return work()
    except Exception as error:  # the training is done, whatever its card lacks
        LOGGER.warning("the model card lacks its %s (%s: %s)", what, type(error).__name__, error)
        return None
