"""Learning from another model: it is asked, and leaves no trace but its hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import finder
import pytest
import tiny
import torch

import retinue
from retinue import modelfile
from retinue.errors import Interrupted, UsageError
from retinue.run.checkpoint import CheckpointStore
from retinue.tasks.learner import Learner
from retinue.training import trainer
from retinue.training.guards import SignalExchange
from retinue.training.session import Run
from retinue.weights.files import sha256

pytestmark = pytest.mark.usefixtures("torch_alone")
SGD = {"name": "sgd", "lr": 0.05}


def _train(recipe: dict[str, Any], out: Path) -> Run:
    return retinue.train(recipe, out=out, report=False, quiet=True)


def _recipe(data: Path, *, teacher: Path | None = None, **stage: Any) -> dict[str, Any]:
    values = {"epochs": 2, "batch_size": 8, "optimizer": SGD, **stage}
    network = {"name": "tiny", "weights": None, "dropout": 0.0}
    said = {} if teacher is None else {"teacher": str(teacher)}
    return tiny.recipe(data, stages=[values], model=network, **said)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, pictures: Path, torch_alone: None) -> Path:
    tiny.register()
    recipe = tiny.recipe(pictures, stages=[{"epochs": 3, "batch_size": 8}], seed=9)
    return _train(recipe, tmp_path_factory.mktemp("teacher") / "run").folder


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, pictures: Path, teacher: Path) -> Path:
    out = tmp_path_factory.mktemp("taught") / "run"
    return _train(_recipe(pictures, teacher=teacher), out).folder


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory, pictures: Path, teacher: Path) -> Path:
    return _train(_recipe(pictures), tmp_path_factory.mktemp("untaught") / "run").folder


def test_a_checkpoint_holds_the_learner_alone(taught: Path, untaught: Path) -> None:
    with_one, without = (CheckpointStore(run / "last").load() for run in (taught, untaught))
    assert with_one["learner"].keys() == without["learner"].keys()
    assert with_one["ema"].keys() == without["ema"].keys()
    groups = [state["optimizer"]["param_groups"] for state in (with_one, without)]
    assert [[g["name"], g["params"]] for g in groups[0]] == [
        [g["name"], g["params"]] for g in groups[1]
    ]
    assert with_one["optimizer"]["state"].keys() == without["optimizer"]["state"].keys()
    tensors = modelfile.read(taught / "best.safetensors")[1]
    assert tensors.keys() == modelfile.read(untaught / "best.safetensors")[1].keys()


def test_its_hash_is_written_down_and_no_path(taught: Path, untaught: Path, teacher: Path) -> None:
    digest = sha256(teacher / "best.safetensors")
    described = modelfile.read_description(taught / "best.safetensors")
    assert described.teacher == digest
    assert str(teacher.parent) not in described.model_dump_json()
    assert json.loads((taught / "environment.json").read_text())["teacher"] == digest
    assert modelfile.read_description(untaught / "best.safetensors").teacher is None
    assert json.loads((untaught / "environment.json").read_text())["teacher"] is None


def test_it_is_learnt_from(taught: Path, untaught: Path) -> None:
    row = tiny.rows(taught)[-1]
    assert float(row["train_loss_distillation"]) > 0
    parts = float(row["train_loss_distillation"]) + float(row["train_loss_cross_entropy"])
    assert parts == pytest.approx(float(row["train_loss"]), rel=1e-4)
    assert "train_loss_distillation" not in tiny.rows(untaught)[-1]
    assert not torch.equal(tiny.learnt(taught), tiny.learnt(untaught))


def test_it_stays_as_it_is_and_sees_what_the_learner_sees(
    tmp_path: Path, pictures: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In eval mode and without gradients, mixed images among them."""
    seen: list[torch.Tensor] = []
    real = Learner.forward

    def forward(self: Learner, inputs: Any, targets: Any, start: int = 0) -> Any:
        assert self.teacher is not None
        assert not any(module.training for module in self.teacher.modules())
        assert not any(p.requires_grad for p in self.teacher.parameters())
        asked: list[torch.Tensor] = []
        hook = self.teacher.register_forward_hook(lambda _, given, out: asked.append(given[0]))
        losses = real(self, inputs, targets, start)
        hook.remove()
        assert len(asked) == 1
        assert torch.equal(asked[0], inputs)
        seen.append(inputs)
        return losses

    monkeypatch.setattr(Learner, "forward", forward)
    kept: list[torch.nn.Module] = []
    fit = trainer.Trainer.fit

    def fitted(self: trainer.Trainer) -> Any:
        assert self.learner.teacher is not None
        kept.append(self.learner.teacher)
        assert not any(module is kept[0] for module in self.learner.modules())
        seen.clear()  # before it, some steps were timed
        return fit(self)

    monkeypatch.setattr(trainer.Trainer, "fit", fitted)
    stage = {"augment": {"mixing": {"mixup": 1.0}}, "epochs": 1}
    _train(_recipe(pictures, teacher=teacher, **stage), tmp_path / "run")
    assert len(seen) == 4
    before = modelfile.read(teacher / "best.safetensors")[1]
    after = kept[0].state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_with_cached_features_it_teaches_the_same(
    tmp_path: Path, pictures: Path, teacher: Path
) -> None:
    """Its answers are cached beside them; float16 is all that differs."""
    stage = {"trainable": "middle", "augment": {"horizontal_flip": 0.0}}
    runs = [
        _train(_recipe(pictures, teacher=teacher, cache_features=wish, **stage), tmp_path / wish)
        for wish in ("on", "off")
    ]
    cached, plain = (tiny.learnt(run.folder) for run in runs)
    assert plain.norm() > 0.03
    assert (cached - plain).norm() < 0.02 * plain.norm()
    alone = _train(_recipe(pictures, cache_features="on", **stage), tmp_path / "alone")
    assert (tiny.learnt(alone.folder) - plain).norm() > 0.1 * plain.norm()


def test_resumed_from_another_folder_it_goes_on_bit_for_bit(
    tmp_path: Path,
    pictures: Path,
    teacher: Path,
    taught: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(teacher.parent)
    asked: list[int] = []

    def largest(self: SignalExchange, number: int) -> int:
        asked.append(1)
        return 15 if len(asked) == 3 else number

    with monkeypatch.context() as patch:
        patch.setattr(SignalExchange, "largest", largest)
        with pytest.raises(Interrupted):
            _train(_recipe(pictures, teacher=Path(teacher.name)), tmp_path / "run")
    monkeypatch.chdir("/")
    retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    ours, theirs = tiny.last_network(tmp_path / "run"), tiny.last_network(taught)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_one_that_answers_another_question_is_refused(
    tmp_path: Path, pictures: Path, teacher: Path
) -> None:
    stage = {"epochs": None, "steps": 1, "batch_size": 4}
    patches = finder.write_pictures(tmp_path / "patches", count=10)
    finds = _train(finder.recipe(patches, stages=[stage], ema=None), tmp_path / "finds").folder
    other = tiny.write_pictures(tmp_path / "data", each=8)
    (other / "red").rename(other / "white")
    cases: list[tuple[dict[str, Any], str]] = [
        (_recipe(pictures, teacher=finds), r"is of another task: find, not classification"),
        (
            _recipe(other, teacher=teacher),
            r"knows other classes, or in another order: .*'red'.*, not .*'white'",
        ),
        (
            _recipe(pictures, teacher=teacher) | {"input": {"size": 40}},
            r"takes its images otherwise: .*\(32, 32\).*, not .*\(40, 40\)",
        ),
        (
            _recipe(pictures, teacher=teacher)
            | {"data": {"path": str(pictures), "classes": ["red", "green", "blue 猫"]}},
            r"another order: \('blue 猫', 'green', 'red'\), not \('red', 'green', 'blue 猫'\)",
        ),
    ]
    for recipe, message in cases:
        with pytest.raises(UsageError, match=message) as raised:
            _train(recipe, tmp_path / "run")
        assert "key teacher" in str(raised.value)
        assert not (tmp_path / "run").exists()


def test_one_that_is_not_there_is_refused(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        _train(_recipe(pictures, teacher=tmp_path / "nowhere"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
