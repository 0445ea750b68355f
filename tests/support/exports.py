"""Model files to export, their weights drawn so that answers depend on the image; and photographs
that are made up, with edges that a wrong resize would show."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import predictors
import tiny
import torch
from PIL import Image

from retinue import modelfile
from retinue.inference.predictor import load
from retinue.modelfile import ModelDescription
from retinue.models import registry
from retinue.models.vit import VisionTransformer
from retinue.tasks.task import task_type

CLASSES = ("daisy", 'rose "x"', "猫 & dog/1")


def model(
    path: Path,
    name: str = "tiny",
    *,
    task: str = "classification",
    size: tuple[int, int] | None = None,
    classes: tuple[str, ...] = CLASSES,
    options: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
    settled: bool = False,
    **arguments: Any,
) -> Path:
    """A model file of the network `name`, `settled`: with statistics of its own activations."""
    tiny.register()
    register_small_transformer()
    kind = task_type(task)
    made = kind(classes, kind.options_type.model_validate(options or {}), state)
    with torch.random.fork_rng(devices=[]):
        network = made.build(name, arguments, None)
    predictors.randomise(network)
    if settled:
        predictors.settle(network, size or network.preprocessing.size)
    prepared = network.preprocessing.as_dict()
    if size is not None:
        prepared["size"] = list(size)
    description = ModelDescription(
        task=task, classes=list(classes), network=network.name, recipe=recipe,
        arguments=dict(network.arguments), preprocessing=prepared, task_state=made.state(),
        task_options=options or {},
    )  # fmt: skip
    modelfile.write(path, network.state_dict(), description)
    return path


def register_small_transformer() -> None:
    """`small_vit`: one block, with positions of 14 × 14 patches of 16 pixels."""
    if "small_vit" in registry.list_models():
        return
    build = partial(VisionTransformer, patch=16, width=32, depth=1, heads=4)
    registry.register(
        replace(registry.find("vit_base_patch16"), name="small_vit", build=build, macs=0)
    )


def detector(path: Path, **more: Any) -> Path:
    """A small one, which finds a few dozen things anywhere."""
    options = {"confidence": 0.6, "iou": 0.5, **more.pop("options", {})}
    return model(path, "yolov3_tiny", task="detection", size=(96, 96), options=options, **more)


def photographs(folder: Path, count: int = 6) -> Path:
    """JPEGs and PNGs of several sizes, with soft light, edges and noise."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        height, width = 60 + 17 * k, 90 - 9 * k
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / rng.uniform(2, 9) + y / rng.uniform(2, 9)) for _ in range(3)]
        pixels = 128 + 70 * np.stack(waves, 2) + rng.normal(0, 20, (height, width, 3))
        pixels[: height // 2, : width // 3] = rng.integers(0, 255, 3)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{k}.{'png' if k % 2 else 'jpg'}")
    return folder


def answers(model: Path, photographs: Path) -> list[Any]:
    predictor = load(model, device="cpu", engine="auto")
    return list(predictor.predict(sorted(photographs.iterdir()), batch_size=4))


def same(first: list[Any], second: list[Any], most: float = 1e-4) -> None:
    """Result by result."""
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.path == other.path
        assert [name for name, _ in one.answers()] == [name for name, _ in other.answers()]
        scores = [np.array([score for _, score in r.answers()]) for r in (one, other)]
        np.testing.assert_allclose(*scores, atol=most)
        places = [np.array([part.xyxy for part in r.parts()]) for r in (one, other)]
        np.testing.assert_allclose(*places, atol=100 * most)
