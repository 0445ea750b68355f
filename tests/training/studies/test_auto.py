"""`auto`: what is tried, what is chosen and why, within the time, and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

import retinue
from retinue.data.options import DataOptions, SplitOptions
from retinue.data.sources import open_dataset
from retinue.errors import Interrupted, UsageError
from retinue.run.folder import RunFolder
from retinue.tasks.task import task_type
from retinue.training import trainer
from retinue.training.environment import Settings
from retinue.training.options import BudgetOptions
from retinue.training.recipe import load_recipe
from retinue.training.session import Run
from retinue.training.studies import auto, member
from retinue.training.studies.auto import Study, Try

pytestmark = pytest.mark.usefixtures("torch_alone")


class Clock:
    """Passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Compares made-up trainings: by name a figure and seconds; gives the names of those made."""

    def compare(run: Path, study: Study, known: dict[str, tuple[float | None, float]]) -> list[str]:
        clock, made = Clock(), []
        monkeypatch.setattr(auto, "time", clock)

        def train(folder: Path, recipe: Any, *, quiet: bool) -> Run:
            figure, seconds = known[folder.name]
            made.append(folder.name)
            clock.now += seconds
            if figure is None:
                raise UsageError("it does not fit")
            return Run(folder, {"top1": figure}, folder / "best.safetensors")

        monkeypatch.setattr(member, "train", train)
        auto._compare(RunFolder(run), study, clock.now, quiet=True)
        return made

    return compare


def _study(seconds: float, *tries: Try, val: int = 200) -> Study:
    recipes = {
        name: load_recipe(name, {"data": "x"}).model_dump(mode="json")
        for name in ("linear-probe", "finetune")
    }
    images = {"train": 800, "val": val}
    return Study(seconds, recipes, "top1", images, tries=list(tries))


LITE0 = "tf_efficientnet_lite0"  # 0.40 GMACs; lite2 has 0.86, resnet152 11.5


def _probe(network: str) -> Try:
    return Try("linear-probe", network, "imagenet")


def test_the_best_network_is_fine_tuned_and_what_would_take_too_long_is_left_out(
    tmp_path: Path, tried: Callable[..., list[str]]
) -> None:
    study = _study(600, *map(_probe, (LITE0, "resnet152", "tf_efficientnet_lite2")))
    made = tried(
        tmp_path,
        study,
        {
            f"linear-probe-{LITE0}": (0.85, 20),
            "linear-probe-tf_efficientnet_lite2": (0.88, 43),
            "finetune-tf_efficientnet_lite2": (0.91, 100),
        },
    )
    assert made == [
        f"linear-probe-{LITE0}",
        "linear-probe-tf_efficientnet_lite2",
        "finetune-tf_efficientnet_lite2",
    ]
    assert study.chosen == "finetune-tf_efficientnet_lite2"
    slow = next(one for one in study.tries if one.network == "resnet152")
    assert slow.why.startswith("it would take about ")  # 20 s × 11.5 / 0.4: ten minutes
    written = json.loads((tmp_path / "study.json").read_text())
    assert [one["figure"] for one in written["tries"]] == [0.85, None, 0.88, 0.91]
    table = list(auto._table(study))
    assert table[0].split() == ["tried", "top1", "time"]
    assert "91.0 %" in table[-1]
    assert "1:40 min" in table[-1]


def test_the_head_alone_is_chosen_where_more_harms(
    tmp_path: Path, tried: Callable[..., list[str]]
) -> None:
    study = _study(600, _probe(LITE0))
    tried(tmp_path, study, {f"linear-probe-{LITE0}": (0.9, 20), f"finetune-{LITE0}": (0.88, 100)})
    assert study.chosen == f"linear-probe-{LITE0}"
    assert study.tries[0].whole
    assert not study.tries[1].whole  # fitted to a time


def test_of_equal_ones_that_is_chosen_which_learns_more(
    tmp_path: Path, tried: Callable[..., list[str]]
) -> None:
    study = _study(600, _probe(LITE0))
    tried(tmp_path, study, {f"linear-probe-{LITE0}": (0.9, 20), f"finetune-{LITE0}": (0.9, 100)})
    assert study.chosen == f"finetune-{LITE0}"


def test_what_cannot_be_trained_says_why_and_the_others_go_on(
    tmp_path: Path, tried: Callable[..., list[str]]
) -> None:
    study = _study(600, _probe(LITE0), _probe("tf_efficientnet_lite2"))
    tried(
        tmp_path,
        study,
        {
            f"linear-probe-{LITE0}": (0.9, 20),
            "linear-probe-tf_efficientnet_lite2": (None, 3),
            f"finetune-{LITE0}": (None, 4),
        },
    )
    assert study.chosen == f"linear-probe-{LITE0}"
    assert [one.why for one in study.tries] == ["", "it does not fit", "it does not fit"]


def test_tries_that_are_made_are_not_made_again(
    tmp_path: Path, tried: Callable[..., list[str]]
) -> None:
    before = Try("linear-probe", LITE0, "imagenet", 0.85, 20.0)
    study = _study(600, before, Try("linear-probe", "resnet152", "imagenet", why="too long"))
    assert tried(tmp_path, study, {f"finetune-{LITE0}": (0.8, 1)}) == [f"finetune-{LITE0}"]
    assert study.chosen == before.name


def test_without_validation_images_the_usual_recipe_is_trained_and_it_is_said(
    tmp_path: Path, tried: Callable[..., list[str]]
) -> None:
    study = _study(600, _probe(LITE0), val=0)
    assert tried(tmp_path, study, {}) == []
    assert study.chosen == f"finetune-{LITE0}"
    assert list(auto._why(study, study.tries[0])) == [
        f"chosen: finetune on {LITE0}, because there is no validation split to compare by"
    ]


def test_of_many_images_a_try_learns_from_some() -> None:
    study = _study(600, _probe(LITE0))
    assert auto._short(study, study.tries[0]).stages[0].data is None
    study.images["train"] = 20_000
    short = auto._short(study, study.tries[0])
    assert short.stages[0].data.share == 0.1  # type: ignore[union-attr]
    assert short.evaluation.split == "val"
    assert study.recipe(study.tries[0]).stages[0].data is None


def test_the_networks_are_those_whose_weights_are_here() -> None:
    recipes = {name: load_recipe(name, {"data": "x"}) for name in ("linear-probe", "finetune")}
    found = list(auto._networks(recipes, {}))
    assert found[0] == Try("linear-probe", LITE0, "imagenet")
    assert len({one.network for one in found}) == len(found) <= auto.MOST_NETWORKS
    assert [one.network for one in auto._networks(recipes, {"arch": "x"})] == [LITE0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A model file of the tiny network."""
    tiny.register()
    out = tmp_path_factory.mktemp("weights") / "run"
    recipe = tiny.recipe(pictures, stages=[{"epochs": 1, "batch_size": 8}], ema=None)
    best = retinue.train(recipe, out=out, report=False, quiet=True).best
    assert best is not None
    return best


def _auto(pictures: Path, weights: Path, out: Path, budget: Any = "2m") -> Run:
    overrides = {"model": "tiny", "model.weights": str(weights), "budget": budget}
    overrides |= {"stages.*.epochs": 1, "device": "cpu", "data.workers": 1, "tensorboard": False}
    return retinue.train(
        "auto", data=str(pictures), out=out, report=False, quiet=True, overrides=overrides
    )


def test_it_looks_tries_and_trains_and_goes_on_where_it_was_stopped(
    tmp_path: Path, pictures: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainer.validate, []

    def validate(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:  # in the second try
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validate", validate)
        with pytest.raises(Interrupted) as stopped:
            _auto(pictures, weights, tmp_path / "run")
    assert stopped.value.mend == f"go on with: retinue train {tmp_path / 'run'} --resume"
    first = json.loads((tmp_path / "run" / "study.json").read_text())
    assert first["chosen"] is None
    assert first["tries"][0]["figure"] is not None
    run = retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    study = json.loads((tmp_path / "run" / "study.json").read_text())
    assert study["tries"][0] == first["tries"][0]
    assert study["spent"] > first["spent"] > 0
    names = [one["recipe"] + "-" + one["network"] for one in study["tries"]]
    assert names == ["linear-probe-tiny", "finetune-tiny"]
    assert study["chosen"] in names
    assert run.folder == tmp_path / "run"
    assert run.best == tmp_path / "run" / "best.safetensors"
    assert run.figures["split"] == "test"  # which no try has looked at
    for name in names:
        tried = json.loads((tmp_path / "run" / "tries" / name / "metrics.json").read_text())
        assert tried["split"] == "val"
    log = (tmp_path / "run" / "train.log").read_text()
    assert "chosen: " in log
    assert "the best top1 on the validation split" in log
    again = retinue.train(tmp_path / "run", resume=True, report=False, quiet=True)
    assert again.figures == run.figures


def test_a_time_that_is_too_short_is_overrun_and_it_is_said(
    tmp_path: Path, pictures: Path, weights: Path
) -> None:
    run = _auto(pictures, weights, tmp_path / "run", budget=0.5)
    assert run.best is not None
    assert run.best.is_file()
    assert "it takes longer than was asked for" in (run.folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ({}, "there is no data"),
        ({"data": "x", "budget": "soon"}, "it is no time"),
        ({"data": "x", "folds": 5}, "folds judge one recipe"),
        ({"data": "x", "task": "singing"}, "no recipes are shipped for 'singing'"),
        ({"data": "x", "evaluation.colour": 1}, "colour"),
        ({"data": "x", "stages.0.data": "with_validation"}, "learns from the validation split"),
    ],
)
def test_what_auto_refuses(tmp_path: Path, overrides: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        retinue.train("auto", overrides=overrides, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="auto finds what to train by trying"):
        retinue.train("auto", overrides={"data": "x"}, dry_run=True, quiet=True)


def test_images_of_each_class_are_counted_where_an_image_has_several(tmp_path: Path) -> None:
    labels = ("a|b", "a|c", "a", "b|a", "")
    for k in range(len(labels)):
        (tmp_path / f"{k}.png").touch()
    rows = "".join(f"{k}.png,{said},train\n" for k, said in enumerate(labels))
    (tmp_path / "t.csv").write_text(f"path,labels,split\n{rows}")
    split = SplitOptions(train=1, val=0, test=0)
    options = DataOptions(path=str(tmp_path / "t.csv"), split=split)
    dataset = open_dataset(options, task_type("multilabel").readers())
    settings = Settings("cpu", "float32", threads=1, world=1)
    said = list(auto._looked(dataset, settings, BudgetOptions(time=60)))
    assert "to learn from, 1 to 4 images of each of 3 classes" in said
    (tmp_path / "t.csv").write_text("path,labels,split\n0.png,a|b,train\n1.png,b|a,train\n")
    dataset = open_dataset(options, task_type("multilabel").readers())
    said = list(auto._looked(dataset, settings, BudgetOptions(time=60)))
    assert "to learn from, 2 images of each of 2 classes" in said
