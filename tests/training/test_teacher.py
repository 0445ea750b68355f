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
from retinue.inference.predictor import load
from retinue.models.registry import create_model
from retinue.run.checkpoint import CheckpointStore
from retinue.tasks.classification.task import Classification
from retinue.tasks.learner import Learner
from retinue.training import trainer
from retinue.training.guards import SignalExchange
from retinue.training.recipe import load_recipe
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
            r"knows 1 class that the data has not: red.*data\.also=teacher",
        ),
        (
            _recipe(pictures, teacher=teacher) | {"input": {"size": 40}},
            r"takes its images otherwise: size \[32, 32\], not \[40, 40\]",
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


# --- a teacher that knows fewer classes ----------------------------------------------------------


def _of(pictures: Path, root: Path, *names: str) -> Path:
    """A folder of some of the classes."""
    root.mkdir(parents=True)
    for name in names:
        (root / name).symlink_to(pictures / name, target_is_directory=True)
    return root


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory, pictures: Path, torch_alone: None) -> Path:
    """A model of two of the three classes."""
    tiny.register()
    root = tmp_path_factory.mktemp("two")
    data = _of(pictures, root / "data", "blue 猫", "green")
    recipe = tiny.recipe(data, stages=[{"epochs": 3, "batch_size": 8}], seed=9)
    return _train(recipe, root / "run").folder


def test_classes_are_added_and_the_old_ones_kept_where_their_images_are_gone(
    tmp_path: Path, pictures: Path, of_two: Path
) -> None:
    data = _of(pictures, tmp_path / "new", "green", "red")
    recipe = _recipe(data, teacher=of_two, epochs=15) | {"evaluation": {"keep": "last"}}
    recipe["model"]["weights"] = str(of_two / "best.safetensors")
    recipe["data"]["also"] = "teacher"
    run = _train(recipe, tmp_path / "run")
    assert json.loads((run.folder / "classes.json").read_text()) == ["blue 猫", "green", "red"]
    assert load_recipe(run.folder / "recipe.yaml").data.also == ["blue 猫", "green"]
    judged = retinue.evaluate(run.folder, data=pictures)
    old, new = judged["top1_old"], judged["top1_new"]
    assert judged["top1"] == pytest.approx((32 * old + 16 * new) / 48)
    untaught = {**recipe, "teacher": None}
    untaught["data"] = {**recipe["data"], "also": ["blue 猫"]}
    forgotten = _train(untaught, tmp_path / "untaught")
    blue = sorted((pictures / "blue 猫").iterdir())

    def score(folder: Path) -> float:
        """What the old class gets on its pictures."""
        found = load(folder, engine="torch").predict(blue)
        return sum(dict(one.answers())["blue 猫"] for one in found) / len(blue)  # type: ignore[union-attr]

    assert score(run.folder) > 2 * score(forgotten.folder)
    with pytest.raises(UsageError, match="1 class that the data has not: blue 猫"):
        _train({**recipe, "data": {**recipe["data"], "also": None}}, tmp_path / "refused")


def test_a_single_new_class_is_doubted(
    tmp_path: Path, pictures: Path, of_two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = _recipe(_of(pictures, tmp_path / "new", "red"), teacher=of_two, epochs=1)
    recipe["data"]["also"] = "teacher"
    run = _train(recipe, tmp_path / "run")
    assert "the data has images of one class alone" in caplog.text
    assert run.figures["top1_old"] is None  # none of their images is here


def test_old_and_new_classes_together_are_judged_apart(
    tmp_path: Path, pictures: Path, of_two: Path
) -> None:
    run = _train(_recipe(pictures, teacher=of_two), tmp_path / "run")
    assert {"top1_old", "top1_new"} <= run.figures.keys()
    rows = tiny.rows(run.folder)
    assert all("val_top1_new" in row for row in rows)
    described = modelfile.read_description(run.folder / "best.safetensors")
    assert described.task_state["taught"] == ["blue 猫", "green"]


def test_one_that_knows_the_classes_in_another_order_is_asked_by_name(
    tmp_path: Path, pictures: Path, teacher: Path, taught: Path
) -> None:
    recipe = _recipe(pictures, teacher=teacher, epochs=1)
    recipe["data"]["classes"] = ["red", "green", "blue 猫"]
    network = create_model("tiny", num_classes=3)
    task = Classification(recipe["data"]["classes"])
    task.learn_from(load(teacher / "best.safetensors").task, [])
    logits = torch.randn(4, 3)
    label = torch.tensor([0, 1, 2, 0])
    told = task.objective(network)({"logits": logits}, {"label": label}, logits.flip(1)).parts
    torch.testing.assert_close(told["distillation"], torch.zeros(4), atol=1e-6, rtol=0)
    assert "top1_old" not in _train(recipe, tmp_path / "run").figures


def test_a_teacher_of_classes_that_the_data_has_not_is_refused_with_the_way_out(
    tmp_path: Path, pictures: Path, teacher: Path
) -> None:
    data = _of(pictures, tmp_path / "two", "green", "red")
    with pytest.raises(UsageError, match=r"1 class that the data has not: blue 猫.*also=teacher"):
        _train(_recipe(data, teacher=teacher), tmp_path / "run")
    recipe = _recipe(data)
    recipe["data"]["also"] = "teacher"
    with pytest.raises(UsageError, match="there is no teacher"):
        _train(recipe, tmp_path / "run")
