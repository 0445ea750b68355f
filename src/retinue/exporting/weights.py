"""What a model's training began from, and by which licence that is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retinue.errors import RetinueError
from retinue.inference.exported import Weights
from retinue.modelfile import ModelDescription
from retinue.weights import catalogue
from retinue.weights.catalogue.entry import address
from retinue.weights.resolution import names_a_file


def began_from(description: ModelDescription) -> Weights | None:
    """The weights that the recipe of a model names, with what the catalogue knows of them; None
    where it began from nothing, or nobody knows."""
    model: Any = (description.recipe or {}).get("model")
    model = model if isinstance(model, dict) else {}
    network, name = model.get("name"), model.get("weights")
    if not isinstance(name, str):
        return None
    return origin(network if isinstance(network, str) else description.network, name)


def origin(network: str, name: str) -> Weights:
    """The weights `name` (a tag, a file, an address) of `network`."""
    if name.startswith("hub:"):
        return Weights(name=name)
    if names_a_file(name):
        return Weights(name=Path(name).name)  # paths are of this machine only
    try:
        entry = catalogue.find(network, name)
    except RetinueError:
        return Weights(name=name)
    source = address(entry.places[0]) if entry.places else None
    return Weights(name=name, licence=entry.licence, source=source)
