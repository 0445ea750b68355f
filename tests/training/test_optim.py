from __future__ import annotations

import pytest
import tiny
import torch

from retinue.models.registry import create_model
from retinue.training.optim import build_optimizer, set_rate
from retinue.training.options import OptimizerOptions
from retinue.training.stage import freeze


def test_norms_and_biases_get_no_weight_decay() -> None:
    network = tiny.Tiny(num_classes=3)
    optimizer = build_optimizer(network, OptimizerOptions(weight_decay=0.1))
    decayed = {
        id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]
    }
    for name, parameter in network.named_parameters():
        is_weight = name in {"stem.0.weight", "middle.0.weight", "last.0.weight", "head.fc.weight"}
        assert (id(parameter) in decayed) == is_weight, name


def test_class_token_and_positions_get_no_weight_decay() -> None:
    with torch.device("meta"):
        network = create_model("vit_base_patch32", num_classes=3)
    optimizer = build_optimizer(network, OptimizerOptions(weight_decay=0.1))
    decayed = {
        id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]
    }
    names = {name for name, p in network.named_parameters() if id(p) not in decayed and p.ndim > 1}
    assert names == {"stem.class_token", "stem.position"}


def test_every_learning_parameter_is_in_exactly_one_group() -> None:
    network = tiny.Tiny(num_classes=3)
    freeze(network, 2)
    optimizer = build_optimizer(network, OptimizerOptions())
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    learning = [id(p) for p in network.parameters() if p.requires_grad]
    assert sorted(held) == sorted(learning)
    assert len(learning) == 6  # last: conv and norm, head: linear; weight and bias each


def test_layer_decay_halves_the_rate_with_every_unit_away_from_the_head() -> None:
    network = tiny.Tiny(num_classes=3)
    options = OptimizerOptions(lr=1.0, layer_decay=0.5, head_lr_scale=3.0)
    optimizer = build_optimizer(network, options)
    set_rate(optimizer, 0.1)
    rates = {group["name"].split()[0]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"stem": 0.0125, "middle": 0.025, "last": 0.05, "head": 0.3})


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_every_optimiser_takes_a_step_downhill(name: str) -> None:
    torch.manual_seed(0)
    network = tiny.Tiny(num_classes=3, dropout=0.0).train()
    optimizer = build_optimizer(network, OptimizerOptions(name=name, lr=1e-3))  # type: ignore[arg-type]
    x = torch.randn(8, 3, 32, 32)
    before = network(x)["logits"][:, 0].sum()
    before.backward()
    optimizer.step()
    assert network(x)["logits"][:, 0].sum() < before
