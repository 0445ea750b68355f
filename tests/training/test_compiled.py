"""Compiled, a training is the same, its tensors keep their names, and after the first epoch nothing
is compiled any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from interrupted import assert_same, interrupted, state_of
from torch._dynamo.testing import CompileCounterWithBackend

import retinue
from retinue.errors import RetinueError
from retinue.models.registry import create_model
from retinue.models.vit import VisionTransformer
from retinue.training import compiled
from retinue.training.compiled import as_it_is, compile_network, release
from retinue.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("torch_alone")
BLOCKS = 4
"""Of `tiny`: three units and its head."""


class Counter(CompileCounterWithBackend):
    """Traced, taken apart into forward and backward, and run as it is; counts what runs, too."""

    def __init__(self) -> None:
        super().__init__("aot_eager")
        self.runs = 0

    def __call__(self, graph: Any, example_inputs: Any) -> Any:
        made = super().__call__(graph, example_inputs)

        def run(*given: Any) -> Any:
            self.runs += 1
            return made(*given)

        return run


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    torch._dynamo.reset()
    made = Counter()
    monkeypatch.setattr(compiled, "BACKEND", made)
    with torch._dynamo.config.patch(recompile_limit=2, accumulated_recompile_limit=2):
        yield made
    torch._dynamo.reset()


@pytest.fixture(params=[True, False], ids=["by blocks", "as a whole"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many regions `tiny` is compiled in: one, or as though its blocks were alike."""
    if not request.param:
        return 1
    monkeypatch.setattr(compiled, "ALIKE", 1.0)
    return BLOCKS


def _recipe(data: Path, **changes: Any) -> dict[str, Any]:
    """With a validation split that fills no batch, and an average of the weights. Compiled, a
    dropout would draw otherwise."""
    stage = {"name": "own", "epochs": 2, "batch_size": 8, "clip_norm": 1.0,
             "optimizer": {"name": "sgd", "lr": 0.02}}  # fmt: skip
    network = {"name": "tiny", "weights": None, "dropout": 0.0}
    usual = {"stages": [stage], "model": network, "evaluation": {"batch_size": 3}}
    return tiny.recipe(data, **(usual | changes))


def _train(recipe: dict[str, Any], out: Path) -> Path:
    return retinue.train(recipe, out=out, report=False, quiet=True).folder


def test_it_trains_as_what_is_not_compiled_and_each_region_once(
    tmp_path: Path, pictures: Path, counter: Counter, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = state_of(_train(_recipe(pictures), tmp_path / "plain"))
    assert counter.frame_count == 0
    found: list[int] = []
    real = Trainer._end_epoch

    def ended(self: Trainer, *given: Any) -> None:
        real(self, *given)
        found.append(counter.frame_count)

    monkeypatch.setattr(Trainer, "_end_epoch", ended)
    run = _train(_recipe(pictures, compile=True), tmp_path / "run")
    assert found == [blocks, blocks]
    steps = int(tiny.rows(run)[-1]["step"])
    assert counter.runs == blocks * steps  # nothing of the validation
    ours = state_of(run)
    assert ours.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_sizes_and_stages_are_compiled_once_each(
    tmp_path: Path, pictures: Path, counter: Counter, blocks: int
) -> None:
    """However many there are: the list of what is compiled, two by default here, is made long
    enough."""
    sizes = [16, 24, 32]
    many = {"name": "many", "steps": 12, "batch_size": 8, "sizes": sizes, "epoch_steps": 12}
    head = {"name": "head", "trainable": "head", "epochs": 2, "batch_size": 8, "views": 1}
    _train(_recipe(pictures, stages=[head, many], ema=None, compile=True), tmp_path / "run")
    drawn = counter.frame_count
    assert drawn == 1 + blocks * len(sizes)
    assert counter.runs == 2 * 4 + 12 * blocks


def test_the_limits_of_the_process_are_afterwards_what_they_were(
    tmp_path: Path, pictures: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two stages of which each needs more, and where a training ends too soon."""
    usual = {"epochs": 1, "batch_size": 8}
    stages = [
        {"name": "few", **usual, "sizes": [16, 24]},
        {"name": "many", **usual, "sizes": [16, 24, 32]},
    ]
    recipe = _recipe(pictures, stages=stages, ema=None, compile=True)
    raised: list[int] = []
    real = Trainer._end_epoch

    def ended(self: Trainer, *given: Any) -> None:
        real(self, *given)
        raised.append(torch._dynamo.config.recompile_limit)
        if len(raised) == 3:
            raise RuntimeError("it ends here")

    monkeypatch.setattr(Trainer, "_end_epoch", ended)
    _train(recipe, tmp_path / "run")
    assert 2 < raised[0] < raised[1]
    limits = torch._dynamo.config
    assert (limits.recompile_limit, limits.accumulated_recompile_limit) == (2, 2)
    with pytest.raises(RuntimeError, match="it ends here"):
        _train(recipe, tmp_path / "other")
    assert (limits.recompile_limit, limits.accumulated_recompile_limit) == (2, 2)


def test_it_goes_on_bit_for_bit(
    tmp_path: Path, pictures: Path, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(pictures, compile=True)
    whole = _train(recipe, tmp_path / "whole")
    interrupted(recipe, tmp_path / "run", monkeypatch, step=6)
    retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    assert_same(tmp_path / "run", whole)


def test_blocks_that_are_alike_share_what_was_compiled(counter: Counter) -> None:
    network = VisionTransformer(
        patch=8, width=32, depth=12, heads=2, image_size=32, num_classes=3
    ).train()
    names = list(network.state_dict())
    assert compile_network(network, 0, 1) == "14 blocks of 3 kinds"
    x = torch.randn(2, 3, 32, 32)
    network(x)
    assert (counter.frame_count, counter.runs) == (3, 14)
    with as_it_is(when=True):
        network(torch.randn(3, 3, 32, 32))
    assert (counter.frame_count, counter.runs) == (3, 14)
    assert list(network.state_dict()) == names
    release(network)
    network(x)
    assert counter.runs == 14


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("resnet18", "the network"),
        ("resnet50", "the network"),
        ("efficientnet_b0", "the network"),
        ("resnet101", "35 blocks of 10 kinds"),
    ],
)
def test_convolutional_networks_of_few_blocks_are_compiled_as_a_whole(
    counter: Counter, name: str, told: str
) -> None:
    with torch.device("meta"):
        network = create_model(name, num_classes=3)
    assert compile_network(network, 0, 1) == told


def test_what_lies_before_the_cut_is_left_alone(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "ALIKE", 1.0)
    network = tiny.Tiny(num_classes=3)
    assert compile_network(network, 2, 1) == "2 blocks of 2 kinds"
    network(torch.randn(2, 3, 32, 32))
    assert counter.runs == 2


def test_what_cannot_be_compiled_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, counter: Counter
) -> None:
    def broken(graph: Any, example_inputs: Any) -> Any:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    network = tiny.Tiny(num_classes=3)
    compile_network(network, 0, 1)
    with pytest.raises(RetinueError, match=r"compiled \(.*no working.*key compile.*compile=false"):
        network(torch.randn(2, 3, 32, 32))
