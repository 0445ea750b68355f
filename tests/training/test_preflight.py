"""What is refused before the data is read, and what is only doubted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import retinue
from retinue.data.options import DataOptions
from retinue.data.sources import Dataset, open_dataset
from retinue.data.targets.one_class import OneClass
from retinue.errors import UsageError
from retinue.models.registry import create_model
from retinue.options.overrides import parse_override
from retinue.sample import Sample
from retinue.tasks.classification.task import ClassificationOptions
from retinue.tasks.task import task_type
from retinue.training import preflight, prepare, session
from retinue.training.planning.lengths import steps_of_epochs
from retinue.training.preflight import (
    doubts,
    refuse_before_data,
    refuse_lone_images,
    refuse_size,
)
from retinue.training.recipe import load_recipe
from retinue.training.session import Run

pytestmark = pytest.mark.usefixtures("torch_alone")


def _train(recipe: Any, out: Path, **overrides: Any) -> Run:
    return retinue.train(recipe, out=out, report=False, quiet=True, overrides=overrides)


def _refused(recipe: Any, out: Path, overrides: dict[str, Any]) -> str:
    """What is said before the data, which is not there, would be read."""
    with pytest.raises(UsageError) as raised:
        _train(recipe, out, **{"data": str(out / "nowhere"), **overrides})
    assert not out.exists()
    return str(raised.value)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2_035"])
def test_scratch_runs_and_everything_learns(
    tmp_path: Path, pictures: Path, name: str, only_torch: None
) -> None:
    changes = {"epochs": 1, "batch_size": 16, "schedule.warmup_epochs": 0}
    overrides = {f"stages.0.{key}": value for key, value in changes.items()}
    run = _train(
        "scratch", tmp_path / "run", **overrides,
        **{"data": str(pictures), "model": name, "input.size": 32, "device": "cpu"},
    )  # fmt: skip
    assert run.figures["images"] > 0
    log = (run.folder / "train.log").read_text(encoding="utf-8")
    learning, of = re.search(r"([\d,]+) of ([\d,]+) parameters learn", log).groups()  # type: ignore[union-attr]
    assert learning == of
    assert "warm-up" not in log
    assert "random" not in log


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({}, ["stage blocks", "key stages.1.frozen_batchnorm", "`retinue train scratch`"]),
        ({"model.weights": "None"}, ["stage blocks", "key stages.1.frozen_batchnorm"]),
        ({"stages.0.frozen_batchnorm": True}, ["stage head", "key stages.0.frozen_batchnorm"]),
    ],
)
def test_frozen_batchnorm_without_weights_is_refused(
    tmp_path: Path, overrides: dict[str, Any], parts: list[str]
) -> None:
    message = _refused("finetune", tmp_path / "run", {"model.weights": None, **overrides})
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "overrides",
    [
        {"model.weights": None, "stages.0.frozen_batchnorm": True},
        {"model.name": "mnist_cnn", "model.weights": "imagenet"},
    ],
)
def test_no_task_is_sent_to_a_recipe_of_another(tmp_path: Path, overrides: dict[str, Any]) -> None:
    message = _refused("detect", tmp_path / "run", overrides)
    assert "retinue train scratch" not in message
    advice = dict(map(parse_override, re.findall(r"stages\.0\.\w+=\w+", message)))
    changed = load_recipe("detect", {**overrides, **advice})
    assert changed.stages[0].trainable == "all"
    assert not changed.stages[0].frozen_batchnorm


def test_batchnorm_may_be_frozen_once_it_has_learnt(tmp_path: Path, pictures: Path) -> None:
    stages = [
        {"name": "first", "epochs": 1, "batch_size": 8},
        {"name": "second", "epochs": 1, "batch_size": 8, "frozen_batchnorm": True},
    ]
    assert _train(tiny.recipe(pictures, stages=stages), tmp_path / "run").figures


def test_networks_without_batchnorm_have_none_to_freeze(tmp_path: Path, pictures: Path) -> None:
    stage = {"epochs": 1, "batch_size": 8, "frozen_batchnorm": True}
    network = {"name": "tiny", "weights": None, "arguments": {"norm": False}}
    assert _train(tiny.recipe(pictures, stages=[stage], model=network), tmp_path / "run").figures


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (
            {"model.name": "mnist_cnn", "input.size": 32},
            ["32 × 32", "key input.size", "set model.arguments.image_size=32 or input.size=28"],
        ),
        ({"model.name": "alexnet", "input.size": 32}, ["set input.size=63 or input.size=224"]),
        (
            {"model.name": "vit_base_patch32", "model.weights": "imagenet", "input.size": 60},
            ["patches of 32 × 32", "key input.size", "set input.size=64 or input.size=224"],
        ),
        (
            {"model.name": "vit_base_patch32", "model.arguments.image_size": 60},
            ["not a multiple", "key model.arguments"],
        ),
        (
            {"model.name": "vit_base_patch32", "input.size": [32, 50]},
            ["32 × 50 pixels", "set input.size=224"],
        ),
        (
            {"model.name": "googlenet_original", "model.arguments.auxiliary": True},
            ["223 to 270", "set input.size=224"],
        ),
        (
            {
                "task": "detection",
                "task_options": {},
                "model.name": "mobilenet_v1_025",
                "input.size": 100,
            },
            [
                "100 × 100 pixels: both sides must be multiples of 32",
                "input.size=96 or input.size=416",
            ],
        ),
        (
            {
                "task": "detection",
                "task_options": {},
                "model.name": "mobilenet_v1_025",
                "input.size": [64, 100],
            },
            ["64 × 100 pixels", "set input.size=416"],
        ),
        (
            {
                "task": "detection",
                "task_options": {},
                "model.name": "vgg11",
                "input.size": 64,
                "stages.0.sizes": [64, 100],
            },
            ["100 × 100 pixels", "key stages.0.sizes", "leave that size out"],
        ),
        ({"model.arguments.dept": 3}, ["takes no argument 'dept'", "key model.arguments"]),
        (
            {"model.weights": "imagenett"},
            ["no weights called 'imagenett'", "key model.weights", "did you mean 'imagenet'"],
        ),
        (
            {"model.name": "mnist_cnn", "model.weights": "imagenet"},
            ["key model.weights", "model.weights=null", "`retinue train scratch`"],
        ),
        ({"evaluation.metric": "images"}, ["no figure 'images'", "it gives top1, loss, ece"]),
        ({"evaluation.metric": "confusion"}, ["no figure 'confusion'", "key evaluation.metric"]),
        ({"evaluation.metric": "per_class"}, ["no figure 'per_class'", "key evaluation.metric"]),
        ({"evaluation.metric": "top_1"}, ["no figure 'top_1'", "did you mean 'top1'"]),
        (
            {"evaluation.tta": "dihedral", "input.size": [64, 96]},
            ["need a square input, this one is 64 × 96", "key evaluation.tta"],
        ),
        (
            {"data.format": "fodler"},
            ["reads no format 'fodler'", "key data.format", "did you mean 'folder'"],
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, overrides: dict[str, Any], parts: list[str]
) -> None:
    message = _refused("scratch", tmp_path / "run", overrides)
    for part in parts:
        assert part in message


def test_a_size_that_only_the_data_s_weights_tell_leaves_no_folder(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of one's own are read when the run folder is there already."""
    stages = [{"epochs": 1, "batch_size": 8}]
    first = _train(
        tiny.recipe(pictures, stages=stages, model={"name": "mnist_cnn", "weights": None}),
        tmp_path / "first",
    )
    again = tiny.recipe(pictures, stages=stages, input={"size": 32})
    again["model"] = {"name": "mnist_cnn", "weights": str(first.best)}
    with pytest.raises(UsageError, match=r"32 × 32.*input\.size=28"):
        _train(again, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Begun before such sizes were refused: nothing to go on with, and no advice that fails.
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "refuse_size", lambda *_, **__: None)
        with pytest.raises(UsageError, match="takes images of 28 × 28"):
            _train(again, tmp_path / "run")
    with pytest.raises(UsageError, match=r"start a new training with .*input\.size=28"):
        retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)


def test_trying_a_size_draws_nothing_and_leaves_the_network_alone() -> None:
    network = tiny.Tiny(num_classes=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    task = task_type("classification").sketch(ClassificationOptions())
    refuse_size(load_recipe(tiny.recipe("pictures")), task, network, (32, 32))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)


def test_a_network_is_tried_once_at_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluating and training; what it takes says nothing of other sizes and other networks."""
    monkeypatch.setattr(preflight, "_taken", set())
    recipe = load_recipe(tiny.recipe("pictures", model={"name": "mnist_cnn", "weights": None}))
    task = task_type("classification").sketch(ClassificationOptions())

    def passes(side: int, **arguments: int) -> list[bool]:
        with torch.device("meta"):
            network = create_model("mnist_cnn", num_classes=3, **arguments).eval()
        training: list[bool] = []
        network.register_forward_pre_hook(lambda it, _: training.append(it.training))
        refuse_size(recipe, task, network, (side, side))
        return training

    assert passes(28) == [False, True]
    assert passes(28) == []
    assert passes(32, image_size=32) == [False, True]
    for _ in range(2):
        with pytest.raises(UsageError, match="cannot take images of 32 × 32"):
            passes(32)


@pytest.fixture(scope="module")
def dataset(pictures: Path) -> Dataset:
    readers = task_type("classification").readers()
    return open_dataset(DataOptions(path=str(pictures)), readers)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, []),
        (
            {"epochs": 1, "schedule.warmup_epochs": 1},
            [
                "stage train",
                "all of its 4 steps",
                "stages.0.schedule.warmup_epochs",
                "stages.0.epochs",
            ],
        ),
        ({"epochs": 2, "schedule.warmup_epochs": 1}, []),
        ({"epochs": None, "steps": 3, "schedule.warmup_epochs": 1}, ["raise stages.0.steps"]),
        ({"trainable": "head"}, ["stage train", "is random", "`retinue train scratch`"]),
        ({"trainable": 3}, []),  # of its three units
    ],
)
def test_what_is_hardly_meant_is_doubted(
    dataset: Dataset, changes: dict[str, Any], parts: list[str]
) -> None:
    recipe = load_recipe(
        tiny.recipe("pictures", stages=[{"epochs": 5, "batch_size": 8}]),
        {f"stages.0.{key}": value for key, value in changes.items()},
    )
    steps = steps_of_epochs(recipe, dataset.splits)
    found = doubts(recipe, tiny.Tiny(num_classes=3), steps)
    assert len(found) == bool(parts)
    for part in parts:
        assert part in found[0]


def test_what_the_weights_lack_is_not_frozen_without_a_word(dataset: Dataset) -> None:
    network = tiny.Tiny(num_classes=3)
    stages = [{"epochs": 5, "trainable": "head"}]
    recipe = load_recipe(tiny.recipe("pictures", stages=stages), {"model.weights": "w.pth"})
    steps = steps_of_epochs(recipe, dataset.splits)
    network.first_drawn = 1
    (found,) = doubts(recipe, network, steps)
    assert "because the weights lack middle; stages.0.trainable=middle trains it, too" in found
    network.first_drawn = len(network.units())
    assert doubts(recipe, network, steps) == []


def test_doubts_are_in_the_log(tmp_path: Path, pictures: Path) -> None:
    run = _train(tiny.recipe(pictures, ema=None), tmp_path / "run", **{"stages.1.epochs": 1})
    log = (run.folder / "train.log").read_text(encoding="utf-8")
    assert "stage head trains only a part of the network" in log
    assert "stage all: the warm-up takes all of its" in log


def test_several_labels_taken_for_classes_are_doubted(
    tmp_path: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = sorted(p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png"))
    rows = [f"{name},{('sea|dog', 'dog|sea', 'sky')[k % 3]}" for k, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    how = {"data.path": str(tmp_path / "t.csv"), "data.images": str(pictures)}
    session.plan(tiny.recipe(pictures), how, quiet=True)
    (doubt,) = [r for r in caplog.records if "several labels" in r.message]
    assert doubt.levelname == "WARNING"
    assert (
        "dog|sea, sea|dog, sky are taken for a class each, but this looks like several"
        in doubt.message
    )


def test_every_size_of_a_stage_is_tried() -> None:
    stage = {"epochs": 1, "sizes": [224, 250]}
    recipe = load_recipe(
        {"model": {"name": "vit_base_patch32", "weights": None}, "stages": [stage]}
    )
    with pytest.raises(UsageError, match=r"250 × 250.*key stages\.0\.sizes"):
        refuse_before_data(recipe)


@pytest.mark.parametrize(
    ("changes", "mend"),
    [
        ({"batch_size": 1}, "make it 2 or more"),
        ({"batch_size": 4, "accumulate": 4}, "make it 8 or more"),
    ],
)
def test_batchnorm_on_one_image_at_a_time_is_refused(
    tmp_path: Path, pictures: Path, changes: dict[str, int], mend: str
) -> None:
    recipe: dict[str, Any] = {
        "data": {"path": str(pictures)},
        "model": {"name": "mobilenet_v1_025", "weights": None},
        "input": {"size": 32},
        "stages": [{"epochs": 1, **changes}],
    }
    with pytest.raises(UsageError, match=rf"key stages\.0\.batch_size, {mend}"):
        _train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_image_at_a_time_is_enough_where_batchnorm_sees_several_values(
    tmp_path: Path, pictures: Path
) -> None:
    recipe: dict[str, Any] = {
        "data": {"path": str(pictures)},
        "model": {"name": "mobilenet_v1_025", "weights": None},
        "input": {"size": 64},
        "stages": [{"steps": 2, "batch_size": 1}],
    }
    assert _train(recipe, tmp_path / "run").figures["images"] > 0


@pytest.mark.parametrize(
    ("count", "changes", "processes", "mend"),
    [
        (40, {"batch_size": 1}, 1, "make it 2 or more"),
        (40, {"batch_size": 4, "accumulate": 4}, 1, "make it 8 or more or set .*accumulate=2"),
        (40, {"batch_size": 4, "accumulate": 2}, 2, "make it 8 or more or set .*accumulate=1"),
        (40, {"batch_size": 2}, 2, "make it 4 or more"),
        # A batch is never larger than the stage's samples.
        (3, {"batch_size": 8, "accumulate": 4}, 1, "set stages.0.accumulate=1 or"),
        (1, {"batch_size": 8}, 1, "give it more images"),
        (40, {"batch_size": 8, "data": {"name": "subset", "share": 0.01}}, 1, "more images"),
        (40, {"batch_size": 1, "sizes": [32, 96]}, 1, "make it 2 or more"),
    ],
)
def test_every_way_to_a_portion_of_one_image_is_refused(
    count: int, changes: dict[str, Any], processes: int, mend: str
) -> None:
    samples = [Sample(str(k), target=OneClass(0)) for k in range(count)]
    dataset = Dataset(("a", "b"), {"train": samples})
    network = create_model("mobilenet_v1_025", num_classes=2)
    for side, refused in ((32, True), (96, "sizes" in changes)):
        stage = {"epochs": 1, **changes}
        recipe = load_recipe(
            {"model": {"name": "mobilenet_v1_025", "weights": None}, "stages": [stage]}
        )
        if not refused:  # BatchNorm sees several values of each image
            refuse_lone_images(recipe, network, (side, side), dataset, processes)
            continue
        with pytest.raises(UsageError, match=f"32 × 32 pixels, key stages.0.batch_size, .*{mend}"):
            refuse_lone_images(recipe, network, (side, side), dataset, processes)


def test_two_images_at_a_time_are_enough() -> None:
    samples = [Sample(str(k), target=OneClass(0)) for k in range(5)]
    network = create_model("mobilenet_v1_025", num_classes=2)
    for stage, processes in (
        ({"batch_size": 8, "accumulate": 4}, 1),  # a batch of 5, filled up to 8
        ({"batch_size": 4, "sampler": {"name": "class_pairs", "images": 4}}, 2),
        ({"batch_size": 1, "frozen_batchnorm": True}, 1),
    ):
        recipe = load_recipe(
            {
                "model": {"name": "mobilenet_v1_025", "weights": None},
                "stages": [{"epochs": 1, **stage}],
            }
        )
        dataset = Dataset(("a", "b"), {"train": samples})
        refuse_lone_images(recipe, network, (32, 32), dataset, processes)
