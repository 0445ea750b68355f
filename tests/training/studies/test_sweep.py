"""A search for values: what is searched over, what comes of trials, and going on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

import retinue
from retinue.errors import Interrupted, UsageError
from retinue.run.folder import RunFolder
from retinue.training import trainer
from retinue.training.studies import sweep
from retinue.training.studies.sweep import Span, Study, Trial, parsed

pytestmark = pytest.mark.usefixtures("torch_alone")


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("lr=1e-5..1e-2", Span("lr", 1e-5, 1e-2, log=True)),
        ("a.b=0.1..0.5", Span("a.b", 0.1, 0.5)),
        ("stages.0.epochs=2..8", Span("stages.0.epochs", 2, 8, whole=True)),
        ("batch_size=16..256", Span("batch_size", 16, 256, whole=True, log=True)),
        ("x=-1..1", Span("x", -1, 1, whole=True)),
        ("optimizer=sgd, adamw", Span("optimizer", choices=("sgd", "adamw"))),
        (
            "scale=[0.2, 1],null,{a: 1, b: 2}",
            Span("scale", choices=("[0.2, 1]", "null", "{a: 1, b: 2}")),
        ),
    ],
)
def test_what_is_searched_over(text: str, span: Span) -> None:
    assert parsed(text) == span


def test_a_choice_is_read_as_the_command_line_reads_it(pictures: Path) -> None:
    recipe = _recipe(pictures, augment={"policy": "randaugment"})
    values = {"ema": "null", "augment.policy": "null", "clip_norm": "2.5", "lr": 0.25,
              "augment.crop_scale": "[0.5, 1]", "frozen_batchnorm": "true"}  # fmt: skip
    loaded = sweep.with_values({**recipe, "ema": 0.9}, values)
    (stage,) = loaded.stages
    assert loaded.ema is None
    assert stage.augment.policy is None
    assert (stage.clip_norm, stage.optimizer.lr) == (2.5, 0.25)
    assert stage.augment.crop_scale == (0.5, 1)
    assert stage.frozen_batchnorm is True


@pytest.mark.parametrize("text", ["lr", "=1..2", "lr=", "lr=2..1", "lr=a..b", "lr=1", "lr=1,1",
                                  "lr=1,,2", "lr=1..inf", "lr=nan..1"])  # fmt: skip
def test_what_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match=r"--over"):
        parsed(text)


def test_the_best_of_trials() -> None:
    done = [Trial(0, {}, 0.5), Trial(1, {}, None, "it fell behind"), Trial(2, {}, 0.8)]
    study = Study({}, [], "top1", less=False, wanted=3, seed=0, done=done)
    assert study.best is done[2]
    study.less = True
    assert study.best is done[0]
    study.done = done[1:2]
    assert study.best is None


def _recipe(pictures: Path, **stage: Any) -> dict[str, Any]:
    return tiny.recipe(pictures, stages=[{"epochs": 2, "batch_size": 8, **stage}], ema=None)


def test_without_optuna_it_is_said_how_to_get_it(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'retinue\[sweep\]'"):
        sweep.start(_recipe(pictures), {}, ["lr=1e-3..1e-1"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def _optuna() -> None:
    if importlib.util.find_spec("optuna") is None:
        pytest.skip("needs optuna")


@pytest.mark.usefixtures("_optuna")
def test_trials_are_trained_and_gone_on_with(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = trainer.validate, []

    def validate(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:  # in the second trial
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    over = ["lr=1e-3..1e-1", "batch_size=4,8"]
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validate", validate)
        with pytest.raises(Interrupted) as stopped:
            sweep.start(_recipe(pictures), {}, over, trials=3, out=tmp_path / "run")
    assert stopped.value.mend == f"go on with: retinue train {tmp_path / 'run'} --resume"
    before = json.loads((tmp_path / "run" / "study.json").read_text())["done"]
    assert [one["number"] for one in before] == [0]
    run = retinue.train(tmp_path / "run", resume=True, quiet=True)
    assert "What was searched" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    study = json.loads((tmp_path / "run" / "study.json").read_text())
    assert study["done"][0] == before[0]
    assert [one["number"] for one in study["done"]] == [0, 1, 2]
    figures = [one["figure"] for one in study["done"]]
    assert run.figures["top1"] == max(figure for figure in figures if figure is not None)
    assert run.figures["split"] == "val"
    assert run.best is not None
    assert run.best.is_file()
    for one in study["done"]:
        assert 1e-3 <= one["values"]["lr"] <= 1e-1
        assert one["values"]["batch_size"] in ("4", "8")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "best of 3 trials" in log
    assert f"{100 * max(f for f in figures if f is not None):.2f} %" in log
    assert "the report could not be written" not in log


@pytest.mark.usefixtures("_optuna")
def test_trials_that_fall_behind_or_fail_do_not_end_the_search(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda trial: trial.number == 1)
    over = ["stages.0.accumulate=1,3"]  # of 8 images, three portions cannot be made
    run = sweep.start(_recipe(pictures), {}, over, trials=6, seed=1, out=tmp_path / "run")
    study = json.loads((run.folder / "study.json").read_text())
    whys = {one["values"]["stages.0.accumulate"]: one["why"] for one in study["done"]}
    assert "cannot be divided" in whys["3"]
    assert any(one["figure"] is not None for one in study["done"])
    pruned = study["done"][1]
    assert pruned["figure"] is None


@pytest.mark.usefixtures("_optuna")
def test_pictures_may_stand_in_the_recipes_place(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Study] = []

    def work(run: RunFolder, study: Study, *_: Any, **__: Any) -> None:
        begun.append(study)

    monkeypatch.setattr(sweep, "_work", work)
    over = ["stages.0.optimizer.lr=1e-3..1e-1"]
    changes = {"model": "tiny", "model.weights": None, "model.arguments": {"norm": False}}
    sweep.start(str(pictures), changes, over, out=tmp_path / "run")
    assert begun[0].recipe["data"]["path"] == str(pictures)
    assert begun[0].recipe["model"]["name"] == "tiny"
    assert "is taken for the pictures" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.parametrize("key", ["lr", "stages.0.optimizer.lr", "stages.*.lr"])
def test_what_is_searched_over_is_not_given_as_well(
    tmp_path: Path, pictures: Path, key: str
) -> None:
    with pytest.raises(UsageError, match=r"lr is searched over, and .* is given"):
        sweep.start(_recipe(pictures), {key: 3}, ["lr=1e-3,1e-2"], out=tmp_path / "run")


@pytest.mark.usefixtures("_optuna")
@pytest.mark.parametrize(
    ("over", "what"),
    [
        ([], "nothing to search over"),
        (["lr=1e-3..1e-1", "lr=1,2"], "searched over twice"),
        (["stages.0.colour=1,2"], "colour"),
        (["batch_size=-4,8"], "batch_size"),
        (["stages.0.data=with_validation,null"], "learns from the validation split"),
    ],
)
def test_what_is_refused(tmp_path: Path, pictures: Path, over: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        sweep.start(_recipe(pictures), {}, over, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
