from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from retinue.errors import UsageError
from retinue.models.registry import create_model
from retinue.training.optim import build_optimizer, set_rate, take_up
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


def test_kernels_of_convolutions_alone_decay() -> None:
    with torch.device("meta"):
        network = create_model("tf_efficientnet_b0", num_classes=3)
    options = OptimizerOptions(weight_decay=0.1, decay_of="convolutions")
    decayed = {
        id(p)
        for group in build_optimizer(network, options).param_groups
        if group["weight_decay"]
        for p in group["params"]
    }
    kernels = {name for name, p in network.named_parameters() if p.ndim == 4}
    assert {name for name, p in network.named_parameters() if id(p) in decayed} == kernels
    assert any("depthwise" in name for name in kernels)
    assert not any("head" in name for name in kernels)


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


def one_group_a_unit(network: tiny.Tiny, options: OptimizerOptions) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = []
    links = [("stem", network.stem), ("middle", network.middle), ("last", network.last)]
    for depth, (name, module) in enumerate([*links, ("head", network.head)]):
        scale = options.layer_decay ** (3 - depth)
        scale *= options.head_lr_scale if name == "head" else 1
        for parameter in module.parameters():
            if parameter.requires_grad:
                decay = options.weight_decay if parameter.ndim > 1 else 0.0
                rate = options.lr * scale
                groups.append({"params": [parameter], "lr": rate, "weight_decay": decay})
    if options.name == "sgd":
        return torch.optim.SGD(groups, momentum=options.momentum, nesterov=True, fused=True)
    if options.name == "rmsprop":
        return torch.optim.RMSprop(groups, momentum=options.momentum, eps=options.eps)
    kind = torch.optim.Adam if options.name == "adam" else torch.optim.AdamW
    return kind(groups, betas=options.betas, eps=options.eps, fused=True)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_merged_groups_step_bit_for_bit_as_one_a_unit(name: Any, layer_decay: float) -> None:
    options = OptimizerOptions(
        name=name, lr=0.01, weight_decay=0.1, layer_decay=layer_decay, head_lr_scale=2.0
    )
    torch.manual_seed(0)
    merged = tiny.Tiny(num_classes=3, dropout=0.0)
    freeze(merged, 1)
    apart = copy.deepcopy(merged)
    optimizers = (build_optimizer(merged, options), one_group_a_unit(apart, options))
    for step in range(4):
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        for network, optimizer in zip((merged, apart), optimizers, strict=True):
            network(x)["logits"].square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    start = tiny.Tiny(num_classes=3)
    for mine, other in zip(merged.parameters(), apart.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(merged.head.fc.weight, start.head.fc.weight)


def test_groups_of_one_rate_and_decay_are_one() -> None:
    network = tiny.Tiny(num_classes=3)
    groups = build_optimizer(network, OptimizerOptions(weight_decay=0.1)).param_groups
    assert [group["name"] for group in groups] == ["stem … head weights", "stem … head others"]
    groups = build_optimizer(network, OptimizerOptions(weight_decay=0.0)).param_groups
    assert [group["name"] for group in groups] == ["stem … head"]
    options = OptimizerOptions(weight_decay=0.1, head_lr_scale=2.0)
    assert [group["name"] for group in build_optimizer(network, options).param_groups] == [
        "stem … last weights",
        "stem … last others",
        "head weights",
        "head others",
    ]


def test_what_the_loss_learns_has_its_own_rate_and_no_decay() -> None:
    network, centres = tiny.Tiny(num_classes=3), nn.Parameter(torch.zeros(3, 16))
    fixed = nn.Parameter(torch.zeros(1), requires_grad=False)
    options = OptimizerOptions(lr=1.0, weight_decay=0.1, objective_lr_scale=0.5)
    optimizer = build_optimizer(network, options, [("centres", [centres, fixed])])
    set_rate(optimizer, 0.1)
    last = optimizer.param_groups[-1]
    assert last["params"] == [centres]
    assert (last["lr"], last["weight_decay"]) == (0.05, 0.0)
    assert last["name"] == "centres others"


def test_a_state_goes_on_bit_for_bit() -> None:
    torch.manual_seed(0)
    first = tiny.Tiny(num_classes=3, dropout=0.0)
    options = OptimizerOptions(name="adamw", lr=0.01, layer_decay=0.9)

    def step(network: tiny.Tiny, optimizer: torch.optim.Optimizer) -> None:
        network(torch.ones(2, 3, 32, 32))["logits"].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    optimizer = build_optimizer(first, options)
    step(first, optimizer)
    second = copy.deepcopy(first)
    resumed = build_optimizer(second, options)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(first, optimizer)
    step(second, resumed)
    for mine, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_fused_form_is_for_cpu_and_cuda(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.Tiny(num_classes=3)
    assert build_optimizer(network, OptimizerOptions(name=name)).defaults["fused"] is True
    for kind, fused in (("cuda", True), ("mps", None)):
        monkeypatch.setattr(nn.Parameter, "device", torch.device(kind))
        assert build_optimizer(network, OptimizerOptions(name=name)).defaults["fused"] is fused


def _stepped(
    network: tiny.Tiny, optimizer: torch.optim.Optimizer, steps: range
) -> list[torch.Tensor]:
    for step in steps:
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        network(x)["logits"].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in network.parameters()]


def _channels_last() -> tiny.Tiny:
    torch.manual_seed(0)
    network = tiny.Tiny(num_classes=3, dropout=0.0)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_fused_form_does_what_the_plain_one_does(name: Any) -> None:
    options = OptimizerOptions(name=name, lr=0.01, weight_decay=0.1)
    fused, plain = _channels_last(), _channels_last()
    ours, optimizer = build_optimizer(fused, options), build_optimizer(plain, options)
    for group in optimizer.param_groups:
        group["fused"] = None
    # Gradients that are drawn: those of biases before a BatchNorm are rounding errors, which Adam
    # makes as large as any.
    for _ in range(4):
        for mine, other in zip(fused.parameters(), plain.parameters(), strict=True):
            mine.grad, other.grad = (torch.randn_like(mine),) * 2
        ours.step()
        optimizer.step()
    for mine, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_state_that_lies_otherwise_in_memory_goes_on_bit_for_bit(name: Any) -> None:
    """Files have no memory formats of their own; fused forms rely on one."""
    options = OptimizerOptions(name=name, lr=0.01)
    whole = _channels_last()
    wanted = _stepped(whole, build_optimizer(whole, options), range(4))

    def resumed(load: Any) -> list[torch.Tensor]:
        network = _channels_last()
        optimizer = build_optimizer(network, options)
        _stepped(network, optimizer, range(2))
        state = optimizer.state_dict()
        for own in state["state"].values():
            for key, value in own.items():
                own[key] = value.contiguous() if isinstance(value, torch.Tensor) else value
        again = build_optimizer(network, options)
        load(again, state)
        return _stepped(network, again, range(2, 4))

    for mine, other in zip(resumed(take_up), wanted, strict=True):
        assert torch.equal(mine, other)
    mixed_up = resumed(torch.optim.Optimizer.load_state_dict)
    assert not all(map(torch.equal, mixed_up, wanted))


def test_a_training_that_began_with_the_plain_form_keeps_to_it() -> None:
    network = _channels_last()
    before = build_optimizer(network, OptimizerOptions())
    for group in before.param_groups:
        group["fused"] = None
    optimizer = build_optimizer(network, OptimizerOptions())
    take_up(optimizer, before.state_dict())
    assert [group["fused"] for group in optimizer.param_groups] == [None] * len(
        optimizer.param_groups
    )


def test_weight_decay_can_begin_at_a_unit() -> None:
    network = tiny.Tiny(num_classes=3)
    optimizer = build_optimizer(network, OptimizerOptions(weight_decay=0.1, decay_from="last"))
    decayed = {
        id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]
    }
    names = {name for name, p in network.named_parameters() if id(p) in decayed}
    assert names == {"last.0.weight", "head.fc.weight"}


def test_a_unit_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no unit 'lost'.*decay_from.*last"):
        build_optimizer(tiny.Tiny(num_classes=3), OptimizerOptions(decay_from="lost"))
