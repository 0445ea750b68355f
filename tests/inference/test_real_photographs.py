"""Real weights on real photographs, through every engine."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from retinue.data.targets.one_class import OneClass
from retinue.errors import RetinueError
from retinue.inference.agreement import agrees
from retinue.inference.engines import TorchEngine, installed
from retinue.inference.evaluator import evaluate
from retinue.inference.names import EngineName
from retinue.inference.predictor import Member, Predictor, example_inputs
from retinue.modelfile import ModelDescription
from retinue.models.network import Network
from retinue.models.registry import create_model
from retinue.sample import Sample
from retinue.tasks.classification.task import Classification

COUNT = 20


@pytest.fixture(scope="module")
def photographs(shared: Callable[[str], Path]) -> tuple[list[Sample], list[str]]:
    root = shared("data/imagenet-samples")
    with open(root / "labels.csv", encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["class_index"]))
    names = [f"{row['class_index']} {row['name']}" for row in rows]
    place = {path.name: path for path in root.rglob("*.[jJ]*")}
    samples = [
        Sample(
            str(place[Path(row["file"]).name]),
            target=OneClass(int(row["class_index"]), len(names)),
        )
        for row in rows
    ]
    return samples[:: len(samples) // COUNT], names


@pytest.fixture(scope="module")
def network() -> Network:
    try:
        return create_model("tf_efficientnet_lite0", weights="imagenet")
    except RetinueError as error:
        pytest.skip(f"needs the weights of efficientnet-lite0: {error}")


@pytest.mark.parametrize(
    "engine", ["torch", "openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)]
)
def test_every_engine_gives_the_right_names(
    engine: EngineName, network: Network, photographs: tuple[list[Sample], list[str]]
) -> None:
    if not installed(engine):
        pytest.skip(f"needs {engine}")
    samples, names = photographs
    description = ModelDescription(
        task="classification",
        classes=names,
        network=network.name,
        arguments={},
        preprocessing=network.preprocessing.as_dict(),
    )
    made = Predictor([Member(network, Classification(names), description)], engine=engine)
    made.compile(samples)
    (compiled,) = made._compiled or []
    inputs = example_inputs(samples, network.preprocessing)
    assert agrees(compiled, TorchEngine(network), inputs).error < 1e-3
    found = evaluate(made, samples)
    assert found.figures["engine"] == engine
    assert found.figures["top1"] > 0.7  # these photographs are from the training set, re-encoded
    assert found.figures["top5"] > 0.9
    assert found.skipped == {}
