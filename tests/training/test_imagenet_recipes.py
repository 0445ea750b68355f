"""The ImageNet recipes say what was published, for every size of the network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from retinue.data.options import ColourOptions
from retinue.models.network import Network
from retinue.training.optim import build_optimizer
from retinue.training.preflight import network_arguments
from retinue.training.recipe import Recipe, load_recipe
from retinue.training.schedules import factor

PUBLISHED = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
    "b8": (2.2, 3.6, 672, 0.5),
    "l2": (4.3, 5.3, 800, 0.5),
}
"""Width, depth, resolution, dropout."""


def network_of(recipe: Recipe) -> Network:
    from retinue.models.registry import create_model

    with torch.device("meta"):
        return create_model(recipe.model.name, num_classes=1000, **network_arguments(recipe))


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("name", ["imagenet-efficientnet", "imagenet-efficientnet-modern"])
def test_the_name_of_the_network_brings_its_size_and_dropout(name: str, size: str) -> None:
    width, depth, resolution, dropout = PUBLISHED[size]
    first = load_recipe(name).model.name
    recipe = load_recipe(name, {"model": first.replace("b0", size)})
    network = network_of(recipe)
    preprocessing = recipe.input.applied(network.preprocessing)
    assert preprocessing.size == (resolution, resolution)
    assert preprocessing.covered == (int(256 * resolution / 224),) * 2
    assert [m.p for m in network.head.modules() if isinstance(m, nn.Dropout)] == [dropout]
    assert len(network.get_submodule("stages.5")) == math.ceil(4 * depth)  # type: ignore[arg-type]
    wide = next(p for p in network.parameters()).shape[0]
    assert abs(wide - 32 * width) <= 4


def test_as_published() -> None:
    recipe = load_recipe("imagenet-efficientnet")
    network = network_of(recipe)
    [stage] = recipe.stages
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert not any(m.rate for m in network.modules() if type(m).__name__ == "DropPath")
    # 0.02 · step / 1000, then the cosine of all 60 epochs of 20,000 steps.
    steps = (0, 1, 999, 1000, 600_000, 1_200_000)
    got = [stage.optimizer.lr * factor(stage.schedule, k, 1_200_000, 20_000) for k in steps]
    whole = 0.01 * (1 + math.cos(math.pi * 1000 / 1_200_000))
    assert got == pytest.approx([0, 2e-5, 0.01998, whole, 0.01, 0], abs=1e-12)
    groups = build_optimizer(network, stage.optimizer).param_groups
    decayed = [p for group in groups if group["weight_decay"] for p in group["params"]]
    assert {group["weight_decay"] for group in groups} == {0, 2e-5}
    assert not any(group["nesterov"] for group in groups)
    assert all(p.ndim == 4 for p in decayed)
    assert len(decayed) == sum(isinstance(m, nn.Conv2d) for m in network.modules())
    preprocessing = recipe.input.applied(network.preprocessing)
    assert [255 * m for m in preprocessing.mean] == pytest.approx([123.68, 116.779, 103.939])
    assert [255 * s for s in preprocessing.std] == pytest.approx([58.393, 57.12, 57.375])
    assert stage.augment.colour == ColourOptions(
        hsv=1, hsv_gains=(0.3, 0.4, 0), brightness_shift=0.3, pca_noise=0.1
    )
    assert (stage.augment.crop_scale, stage.augment.rotation) == ((0.08, 1), 7)
    assert stage.augment.crop_ratio == pytest.approx((3 / 4, 4 / 3))
    assert (recipe.log_steps, recipe.checkpoint.keep_epochs) == (100, 1)
