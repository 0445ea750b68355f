"""A classifier and a detector, served for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bright
import pytest
from predictors import CLASSES, randomise
from served import Service, httpx, quick, serving

from retinue import modelfile
from retinue.models.registry import create_model
from retinue.sample import Preprocessing


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of four classes, its weights drawn at random."""
    return write_classifier(tmp_path_factory.mktemp("flowers") / "flowers.safetensors")


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of `bright`."""
    return bright.model(tmp_path_factory.mktemp("lights") / "lights.safetensors")


def write_classifier(path: Path, *, scale: float = 1.0, classes: list[str] = CLASSES) -> Path:
    """`scale`: of the last layer; NaN makes a model that says nothing finite."""
    network = create_model("mobilenet_v1_025", num_classes=len(classes))
    randomise(network)
    state = network.state_dict()
    last = list(state)[-1]
    state[last] = state[last] * scale
    description = modelfile.ModelDescription(
        task="classification",
        classes=classes,
        network="mobilenet_v1_025",
        arguments=dict(network.arguments),
        preprocessing=Preprocessing(size=(64, 64)).as_dict(),
    )
    modelfile.write(path, state, description)
    return path


@pytest.fixture(scope="module")
def both(classifier: Path, detector: Path) -> Iterator[tuple[Service, httpx.Client]]:
    """`flowers`, the first one, and `lights`."""
    models = {"flowers": classifier, "lights": detector}
    with serving(models, quick(max_images=4)) as running:
        yield running


@pytest.fixture
def client(both: tuple[Service, httpx.Client]) -> httpx.Client:
    return both[1]
