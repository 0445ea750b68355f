"""What stops a training in good order, and what is never kept."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from reads import counted_reads, no_reads

import retinue
from retinue.errors import Interrupted, RetinueError
from retinue.run.checkpoint import CheckpointStore
from retinue.run.recorder import Recorder
from retinue.training import guards, trainer
from retinue.training.guards import FiniteWatch, Interruptions, SignalExchange, refuse_not_finite

pytestmark = pytest.mark.usefixtures("torch_alone")
NAN, INF = float("nan"), float("inf")


def _watch(*values: float) -> FiniteWatch:
    watch = FiniteWatch()
    with no_reads():
        for k, value in enumerate(values):
            noted = torch.tensor(value, requires_grad=True) * 1
            watch.note(noted, "the loss", [f"{k}a.png", f"{k}b.png"], f"step {k}")
    return watch


@pytest.mark.parametrize(("bad", "said"), [(NAN, "nan"), (INF, "inf"), (-INF, "-inf")])
def test_the_first_bad_step_is_named_although_it_is_looked_at_later(bad: float, said: str) -> None:
    watch = _watch(1.0, 2.0, bad, NAN, 3.0)
    with pytest.raises(RetinueError) as raised:
        watch.look()
    text = str(raised.value)
    assert text.startswith(f"the loss is {said}, step 2, images '2a.png', '2b.png', look at")
    assert "clip_norm" in text


def test_good_values_are_looked_at_in_one_go_and_once() -> None:
    watch = _watch(*map(float, range(10)))
    with counted_reads() as reads:
        watch.look()
        assert [what for what, _ in reads].count("Tensor.cpu") == 1
        assert {what for what, _ in reads} <= {"Tensor.cpu", "Tensor.tolist"}  # of that copy
        del reads[:]
        watch.look()
        assert reads == []


def test_it_is_time_to_look_after_so_many_values() -> None:
    assert not _watch(*[0.0] * (FiniteWatch.EVERY - 1)).full
    assert _watch(*[0.0] * FiniteWatch.EVERY).full
    watch = _watch(*[0.0] * FiniteWatch.EVERY)
    watch.look()
    assert not watch.full


def test_half_precision_and_very_large_values_are_finite() -> None:
    watch = FiniteWatch()
    for value in (torch.tensor(6e4).half(), torch.tensor(3e38), torch.tensor(1.0).bfloat16()):
        watch.note(value, "the loss", [], "step 0")
    watch.look()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_weights_that_are_not_finite_are_named(bad: float) -> None:
    tensors = {
        "counter": torch.tensor(3),
        "none": torch.zeros(0),
        "half": torch.tensor([6e4, -6e4]).half(),
        "large": torch.full((1000,), 3e38),
    }
    refuse_not_finite(tensors, "there")
    refuse_not_finite({}, "there")
    tensors["bad"] = torch.tensor([1.0, bad, 2.0])
    with pytest.raises(
        RetinueError, match=r"the weights bad are not finite, there, .*clip_norm, in a new training"
    ):
        refuse_not_finite(tensors, "there")


# --- in a training -------------------------------------------------------------------------------


def _recipe(data: Path, **stage: Any) -> dict[str, Any]:
    values = {"epochs": 3, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.01}, **stage}
    return tiny.recipe(data, stages=[values], ema=None, checkpoint={"every_minutes": 1000})


class _Kept:
    """Every checkpoint and every model file, as they are written: are they finite?"""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[int] = []
        self.models = 0
        save, write = CheckpointStore.save, Recorder.write_best

        def saved(store: CheckpointStore, state: dict[str, Any]) -> Path:
            self.check(state["learner"])
            self.steps.append(state["progress"]["steps"])
            return save(store, state)

        def written(recorder: Any, tensors: dict[str, torch.Tensor], *others: Any) -> None:
            self.check(tensors)
            self.models += 1
            write(recorder, tensors, *others)

        patch.setattr(CheckpointStore, "save", saved)
        patch.setattr(Recorder, "write_best", written)

    def check(self, tensors: dict[str, torch.Tensor]) -> None:
        assert all(torch.isfinite(t).all() for t in tensors.values())


def _spoilt(patch: pytest.MonkeyPatch, step: int, spoil: Any) -> None:
    """What `_loss` gives in `step`, counted from 1, goes through `spoil`."""
    real = trainer.Trainer._loss

    def loss(self: trainer.Trainer, *arguments: Any) -> torch.Tensor:
        value = real(self, *arguments)
        return spoil(self, value) if self.progress.steps == step - 1 else value

    patch.setattr(trainer.Trainer, "_loss", loss)


def _spoil_gradient(self: trainer.Trainer, value: torch.Tensor) -> torch.Tensor:
    self.network.head.fc.weight.register_hook(lambda gradient: gradient * INF)
    return value


def _fails(recipe: dict[str, Any], out: Path) -> str:
    with pytest.raises(RetinueError) as raised:
        retinue.train(recipe, out=out, report=False, quiet=True)
    return str(raised.value)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, [0]),
        ({"every_steps": 1}, [0, 1, 2, 3, 4, 5]),
        ({"every_steps": 4}, [0, 4]),
    ],
)
def test_nothing_is_kept_after_a_loss_that_is_not_finite(
    tmp_path: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    steps: list[int],
) -> None:
    """In the second step of the second epoch: it is looked at late, at that epoch's end or before
    a checkpoint."""
    kept = _Kept(monkeypatch)
    _spoilt(monkeypatch, 6, lambda self, value: value * NAN)
    recipe = _recipe(pictures)
    recipe["checkpoint"] |= changes
    message = _fails(recipe, tmp_path / "run")
    assert "the loss is nan, stage train, epoch 2, step 2, images" in message
    assert message.count(".png") == 8
    assert kept.steps == steps
    assert kept.models == 1
    assert len(tiny.rows(tmp_path / "run")) == 1


def test_nothing_is_kept_after_a_signal_either(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(self: trainer.Trainer, value: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return value * INF

    kept = _Kept(monkeypatch)
    _spoilt(monkeypatch, 6, spoil)
    assert "the loss is inf" in _fails(_recipe(pictures), tmp_path / "run")
    assert kept.steps == [0]


@pytest.mark.parametrize("every_steps", [1, None])
@pytest.mark.parametrize("split", ["val", "none"])
def test_a_gradient_that_is_not_finite_leaves_no_weights_behind(
    tmp_path: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    every_steps: int | None,
    split: str,
) -> None:
    """The loss of its step is fine; it comes in the last step of an epoch, so that no later loss
    tells. So it would be, too, for one of several processes where another's loss is not."""

    kept = _Kept(monkeypatch)
    _spoilt(monkeypatch, 8 if split == "val" else 10, _spoil_gradient)
    recipe = _recipe(pictures)
    recipe["checkpoint"]["every_steps"] = every_steps
    if split == "none":
        recipe["data"]["split"] = {"train": 0.85, "val": 0, "test": 0.15}
    message = _fails(recipe, tmp_path / "run")
    judged = split == "val" and every_steps is None
    told = r"answer is not finite, '[^']*\.png'" if judged else "head.fc.weight are"
    found_later = split == "none" and every_steps is None  # nothing is written before the next step
    assert re.search("the loss is nan, .*step 1" if found_later else told, message)
    assert found_later or "not finite" in message
    assert kept.models == 1
    assert kept.steps == ([0, *range(1, 8 if split == "val" else 10)] if every_steps else [0])


def test_the_norm_of_the_gradient_is_watched(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoilt(monkeypatch, 2, _spoil_gradient)
    message = _fails(_recipe(pictures, clip_norm=1.0), tmp_path / "run")
    assert "the gradient's norm is" in message
    assert "epoch 1, step 2" in message


# --- signals -------------------------------------------------------------------------------------


def test_alone_a_signal_is_its_own() -> None:
    exchange = SignalExchange(1)
    assert [exchange.largest(number) for number in (0, 15)] == [0, 15]


@pytest.mark.parametrize(("backend", "own_group"), [("gloo", False), ("nccl", True)])
def test_several_processes_hear_the_largest_over_a_channel_of_the_host(
    monkeypatch: pytest.MonkeyPatch, backend: str, own_group: bool
) -> None:
    asked: list[Any] = []

    def all_reduce(value: torch.Tensor, op: Any, group: Any) -> None:
        assert value.device.type == "cpu"
        assert op == torch.distributed.ReduceOp.MAX
        asked.append(group)
        value.fill_(max(int(value), 2))  # the other one had a SIGINT

    made: list[str] = []

    def new_group(*, backend: str) -> str:
        made.append(backend)
        return "a group"

    monkeypatch.setattr(torch.distributed, "get_backend", lambda: backend)
    monkeypatch.setattr(torch.distributed, "new_group", new_group)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    exchange = SignalExchange(2)
    assert [exchange.largest(number) for number in (0, 15)] == [2, 15]
    assert asked == ["a group" if own_group else None] * 2
    assert made == ["gloo"] * own_group


def test_signals_are_noted_and_the_second_interrupt_is_pythons_own() -> None:
    before = [signal.getsignal(number) for number in guards.SIGNALS]
    with Interruptions() as noted:
        assert noted.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert noted.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in guards.SIGNALS] == before


def test_another_processes_signal_stops_this_one(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def largest(self: SignalExchange, number: int) -> int:
        asked.append(number)
        # Twice the signal, and 1 more where a checkpoint is due.
        return 2 * signal.SIGTERM if len(asked) == 4 else number

    monkeypatch.setattr(SignalExchange, "largest", largest)
    with pytest.raises(Interrupted) as raised:
        retinue.train(_recipe(pictures), out=tmp_path / "run", report=False, quiet=True)
    assert raised.value.exit_code == 143
    assert "after step 4" in str(raised.value)
    assert CheckpointStore(tmp_path / "run" / "last").load()["progress"]["steps"] == 4
