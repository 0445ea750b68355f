"""What may change while a training is under way is honoured; the rest is refused by name."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from interrupted import interrupted
from PIL import Image

import retinue
from retinue.errors import Interrupted, RetinueError, UsageError
from retinue.options.overrides import parse_override
from retinue.options.resuming import OnResume, marked
from retinue.run.folder import RunFolder
from retinue.training import trainer
from retinue.training.changes import find_changes
from retinue.training.recipe import Recipe, load_recipe
from retinue.training.session import Run

pytestmark = pytest.mark.usefixtures("torch_alone")

ROOT = Path(__file__).parents[2]


def _recipe(data: Path, **stage: Any) -> dict[str, Any]:
    tiny.register()
    whole = {"epochs": 2, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.01}, **stage}
    return tiny.recipe(data, stages=[whole], ema={"decay": 0.9})


def _train(recipe: Any, out: Path) -> Run:
    return retinue.train(recipe, out=out, report=False, quiet=True)


def _resume(run: Path, **overrides: Any) -> Run:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return retinue.train(run, resume=True, report=False, quiet=True, overrides=dotted)


def _edit(run: Path, old: str, new: str) -> None:
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (run / "recipe.yaml").write_text(text.replace(old, new), encoding="utf-8")


def _log(run: Path) -> str:
    return (run / "train.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, pictures: Path, torch_alone: None) -> Path:
    return _train(_recipe(pictures), tmp_path_factory.mktemp("done") / "run").folder


@pytest.fixture
def run(tmp_path: Path, done: Path) -> Path:
    """A training of two epochs that is done."""
    return Path(shutil.copytree(done, tmp_path / "run"))


@pytest.fixture
def stopped(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training of two epochs that was stopped in its first."""
    return interrupted(_recipe(pictures), tmp_path / "stopped", monkeypatch)


# --- what is refused -----------------------------------------------------------------------------

EDITS = [
    ("  lr: 0.01", "  lr: 0.5", "stages.0.optimizer.lr was 0.01, is 0.5"),
    ("  name: sgd\n", "  name: adamw\n", "stages.0.optimizer.name was sgd, is adamw"),
    ("momentum: 0.9", "momentum: 0.8", "stages.0.optimizer.momentum was 0.9, is 0.8"),
    ("weight_decay: 0.0001", "weight_decay: 0.1", "weight_decay was 0.0001, is 0.1"),
    ("  batch_size: 8", "  batch_size: 4", "stages.0.batch_size was 8, is 4"),
    ("  name: tiny\n", "  name: mnist_cnn\n", "model.name was tiny, is mnist_cnn"),
    ("  arguments: {}\n", "  arguments: {width: 2}\n", "model.arguments was {}"),
    ("ema:\n  decay: 0.9\n  last_epochs: null\n", "ema: null\n", "ema.decay was 0.9, is nothing"),
    ("  size: null\n", "  size: 64\n", "input.size was null, is 64"),
    ("\nseed: 0\n", "\nseed: 1\n", "seed was 0, is 1"),
    ("precision: auto", "precision: bf16", "precision was auto, which came to fp32, is bf16"),
]


@pytest.mark.parametrize(("old", "new", "said"), EDITS, ids=[said for *_, said in EDITS])
def test_an_edit_that_decides_the_weights_is_refused_by_name(
    run: Path, old: str, new: str, said: str
) -> None:
    _edit(run, old, new)
    with pytest.raises(RetinueError) as refused:
        _resume(run)
    assert said in str(refused.value)
    assert str(run / "recipe.yaml") in str(refused.value.where)
    assert f"retinue train {run / 'recipe.yaml'}" in str(refused.value.mend)
    assert refused.value.exit_code == 1


def test_an_override_is_refused_by_the_same_rule_with_a_command_that_works(
    run: Path, tmp_path: Path
) -> None:
    before = (run / "recipe.yaml").read_bytes()
    with pytest.raises(UsageError) as refused:
        _resume(run, stages__0__optimizer__lr=0.5, seed=3)
    assert "stages.0.optimizer.lr was 0.01, is 0.5; seed was 0, is 3" in refused.value.what
    assert "cannot change what its weights come from" in refused.value.what
    assert (run / "recipe.yaml").read_bytes() == before
    command = str(refused.value.mend).split(": retinue train ")[1].split()
    assert command[0] == str(run / "recipe.yaml")
    overrides = dict(part.split("=") for part in command[1:])
    assert overrides.keys() == {"model.weights", "stages.0.optimizer.lr", "seed"}
    recipe = load_recipe(command[0], {**overrides, "stages.0.optimizer.lr": 0.5, "seed": 3})
    assert _train(recipe.model_dump(mode="json"), tmp_path / "fresh").figures["images"]


@pytest.mark.parametrize("asked", ["bf16", "fp32"])
def test_another_precision_is_refused_with_what_auto_came_to(run: Path, asked: str) -> None:
    with pytest.raises(UsageError) as refused:
        _resume(run, precision=asked)
    assert f"precision was auto, which came to fp32, is {asked}" in refused.value.what
    weights = run / "best.safetensors"
    assert refused.value.mend == (
        "leave it out, or start a new training from these weights: retinue train"
        f" {run / 'recipe.yaml'} model.weights={weights} precision={asked}"
    )


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ({"budget": "10m"}, {"budget.time": "10m"}),
        ({"ema": None}, {"ema": "null"}),
        ({"data.classes": ["red", "a b"]}, {"data.classes": '["red", "a b"]'}),
    ],
)
def test_a_section_or_list_that_comes_or_goes_leaves_a_command_that_works(
    run: Path, overrides: dict[str, Any], wanted: dict[str, str]
) -> None:
    with pytest.raises(UsageError) as refused:
        retinue.train(run, resume=True, quiet=True, overrides=overrides)
    command = shlex.split(str(refused.value.mend).split(": retinue train ")[1])
    given = dict(map(parse_override, command[1:]))
    assert given == {"model.weights": given["model.weights"], **wanted}
    assert load_recipe(command[0], given) == load_recipe(
        command[0], {"model.weights": given["model.weights"], **overrides}
    )


def test_another_number_of_stages_is_refused(run: Path) -> None:
    _edit(run, "\nstages:\n", "\nstages:\n- name: more\n  epochs: 1\n")
    with pytest.raises(RetinueError, match="stages was 1 of them, is 2 of them"):
        _resume(run)


def test_a_key_that_does_not_exist_is_refused_as_ever(run: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        _resume(run, stages__0__epoch=3)
    with pytest.raises(UsageError, match="numbered 0 to 0"):
        _resume(run, stages__4__epochs=3)


def test_the_docs_list_what_may_change() -> None:
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    section = text.split("## Going on with changes", 1)[1].split("\n## ", 1)[0]
    listed = set(re.findall(r"`([a-z_N.]+)`", section.split("|---|", 1)[1].split("\n\n", 1)[0]))
    assert {key for key, _ in marked(Recipe)} <= listed


# --- what is honoured ----------------------------------------------------------------------------


def test_what_decides_nothing_may_be_edited(run: Path) -> None:
    _edit(run, "  workers: 1\n", "  workers: 0\n")
    _edit(run, "tensorboard: false", "tensorboard: true")
    (run / "recipe.yaml").write_text("# mine\n" + (run / "recipe.yaml").read_text())
    before = json.loads((run / "metrics.json").read_text())
    assert _resume(run).figures == before
    assert (run / "recipe.yaml").read_text().startswith("# mine\n")
    changes = json.loads((run / "environment.json").read_text())["changes"]
    assert {change["key"] for change in changes} == {"data.workers", "tensorboard"}
    _resume(run)  # is not told again
    assert json.loads((run / "environment.json").read_text())["changes"] == changes


def test_a_training_that_is_done_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    retinue.train(run, resume=True, report=False)
    assert "this training is done" in capsys.readouterr().err


def test_a_training_that_is_done_takes_no_data_that_is_not_there(run: Path) -> None:
    before = (run / "recipe.yaml").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="'/nowhere' is not there"):
        _resume(run, data__path="/nowhere")
    assert (run / "recipe.yaml").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("by", ["an edit", "an override"])
def test_a_training_that_is_done_goes_on_with_more_epochs(run: Path, by: str) -> None:
    before = tiny.rows(run)
    steps = int(before[-1]["step"])
    if by == "an edit":
        _edit(run, "epochs: 2", "epochs: 4")
        _resume(run)
    else:
        _resume(run, stages__0__epochs=4)
    rows = tiny.rows(run)
    assert rows[:2] == before
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [int(row["step"]) for row in rows] == [steps * k // 2 for k in (1, 2, 3, 4)]
    # Cosine over the new length: in the middle, where the old one was at its end.
    assert float(before[-1]["lr"]) < 0.001 < 0.002 < float(rows[2]["lr"])
    assert load_recipe(run).stages[0].epochs == 4
    assert "by the schedule of the new length" in _log(run)
    assert "stages.0.epochs was 2, is 4" in _log(run)
    record = json.loads((run / "environment.json").read_text())
    (change,) = record["changes"]
    assert change == {"after_step": steps, "key": "stages.0.epochs", "old": 2, "new": 4}
    assert record["kept"]["epoch"] in (1, 2, 3, 4)


def test_killed_while_it_goes_on_it_does_not_pass_for_done(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with the old figures, nor with the old weights."""
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "fit", _killed)
        with pytest.raises(Interrupted):
            _resume(run, stages__0__epochs=3)
    assert not (run / "metrics.json").exists()
    _resume(run)
    assert [row["epoch"] for row in tiny.rows(run)] == ["1", "2", "3"]
    assert json.loads((run / "metrics.json").read_text())["images"]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("until", ["recipe.yaml", "metrics.json"])
def test_killed_while_changes_are_written_they_are_found_again(
    run: Path, monkeypatch: pytest.MonkeyPatch, until: str
) -> None:
    real = RunFolder.write

    def write(self: RunFolder, name: str, text: str) -> None:
        if until == "metrics.json" and name == "environment.json":
            raise KeyboardInterrupt
        real(self, name, text)
        if name == until:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write", write)
        with pytest.raises(Interrupted):
            _resume(run, stages__0__epochs=3)
    _resume(run)
    assert len(tiny.rows(run)) == 3


def test_a_stage_that_is_under_way_may_last_longer(stopped: Path) -> None:
    _resume(stopped, stages__0__epochs=3)
    assert len(tiny.rows(stopped)) == 3
    assert "goes on from its step 2" in _log(stopped)


def test_a_stage_counted_in_steps_goes_on(tmp_path: Path, pictures: Path) -> None:
    run = _train(_recipe(pictures, epochs=None, steps=6), tmp_path / "run").folder
    _resume(run, stages__0__steps=9)
    assert tiny.rows(run)[-1]["step"] == "9"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"stages.1.epochs": 1}, "stage all has done 3 epochs already"),
        ({"stages.1.epochs": None, "stages.1.steps": 99}, "counted in another unit"),
        ({"stages.0.epochs": 9}, "stage head is over, and others have gone on from it"),
        ({"stages.0.early_stop": {"patience": 2}}, "stage head is over"),
    ],
)
def test_a_length_that_comes_too_late_is_refused(
    two_stages: Path, overrides: dict[str, Any], said: str
) -> None:
    before = (two_stages / "recipe.yaml").read_bytes()
    with pytest.raises(RetinueError, match=said) as refused:
        retinue.train(two_stages, resume=True, quiet=True, overrides=overrides)
    assert "or start a new training: retinue train" in str(refused.value.mend)
    assert (two_stages / "recipe.yaml").read_bytes() == before


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory: pytest.TempPathFactory, pictures: Path, torch_alone: None) -> Path:
    tiny.register()
    return _train(tiny.recipe(pictures), tmp_path_factory.mktemp("two") / "run").folder


def test_a_stage_that_early_stop_has_ended_goes_on_only_with_patience(
    tmp_path: Path, pictures: Path
) -> None:
    patience = {"patience": 1, "min_delta": 10.0}
    run = _train(_recipe(pictures, epochs=9, early_stop=patience), tmp_path / "run").folder
    assert len(tiny.rows(run)) == 2
    with pytest.raises(RetinueError, match=r"early_stop has ended stage train after 2 epochs"):
        _resume(run, stages__0__epochs=12)
    _resume(run, stages__0__early_stop__patience=3)
    assert len(tiny.rows(run)) == 4


def test_a_bad_image_can_be_skipped_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tiny.write_pictures(tmp_path / "data", each=8)
    run = interrupted(_recipe(data), tmp_path / "run", monkeypatch)
    bad = next(data.rglob("03.png"))
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(RetinueError, match=r"data\.on_bad_image=skip"):
        _resume(run)
    done = _resume(run, data__on_bad_image="skip")
    assert list(done.skipped) == [str(bad)]
    assert "not bit for bit" in _log(run)


def test_portions_may_change_when_memory_is_short(stopped: Path) -> None:
    _resume(stopped, stages__0__accumulate=2)
    assert len(tiny.rows(stopped)) == 2
    assert load_recipe(stopped).stages[0].accumulate == 2


def test_a_device_may_change(stopped: Path) -> None:
    record = json.loads((stopped / "environment.json").read_text())
    record["settings"]["device"] = "cuda:7"
    (stopped / "environment.json").write_text(json.dumps(record))
    _edit(stopped, "device: cpu", "device: auto")
    record["recipe"]["device"] = "auto"
    (stopped / "environment.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="--resume device=cpu"):
        _resume(stopped)
    _resume(stopped, device="cpu")
    assert json.loads((stopped / "environment.json").read_text())["settings"]["device"] == "cpu"


# --- data that has moved, or is other data -------------------------------------------------------


def _interrupted_on_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path, Path]:
    """Run, data, and the same training undisturbed."""
    data = tiny.write_pictures(tmp_path / "data", each=8)
    recipe = _recipe(data)
    recipe["stages"][0]["data"] = {"name": "subset", "share": 0.9}
    whole = _train(recipe, tmp_path / "whole").folder
    return interrupted(recipe, tmp_path / "run", monkeypatch), data, whole


def test_moved_data_is_asked_for_and_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, whole = _interrupted_on_own_data(tmp_path, monkeypatch)
    moved = tmp_path / "elsewhere" / "photos"
    moved.parent.mkdir()
    data.rename(moved)
    with pytest.raises(UsageError) as refused:
        _resume(run)
    assert f"{str(data)!r} is not there any more" in refused.value.what
    assert refused.value.where == f"{run / 'recipe.yaml'}, key data.path"
    assert f"retinue train {run} --resume data=NEW" in str(refused.value.mend)
    monkeypatch.chdir(tmp_path)
    _resume(run, data="elsewhere/photos")
    for name, value in tiny.last_network(run).items():
        assert value.equal(tiny.last_network(whole)[name]), name
    assert load_recipe(run).data.path == str(moved)
    assert "other bytes" not in _log(run)


def test_other_data_is_no_moved_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _data, _ = _interrupted_on_own_data(tmp_path, monkeypatch)
    before = (run / "recipe.yaml").read_bytes()
    other = tiny.write_pictures(tmp_path / "other", each=4)
    with pytest.raises(UsageError, match=r"of the written-down split (is|are) missing"):
        _resume(run, data=str(other))
    assert (run / "recipe.yaml").read_bytes() == before
    _resume(run)


def test_pictures_that_have_changed_under_their_names_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data, _ = _interrupted_on_own_data(tmp_path, monkeypatch)
    red = data / "red"
    Image.new("RGB", (40, 40)).save(red / "00.png")
    os.utime(red / "01.png", ns=(1, 1))
    _resume(run)
    assert re.search(r"1 image has other bytes.*first 'red/00\.png' \([\d,]+ bytes then", _log(run))
    assert re.search(r"1 image was written anew.*same size, first 'red/01\.png'", _log(run))


def test_a_run_of_an_older_version_takes_overrides_too(run: Path) -> None:
    record = json.loads((run / "environment.json").read_text())
    del record["recipe"]
    (run / "environment.json").write_text(json.dumps(record))
    (run / "last" / "images.parquet").unlink()
    found = find_changes(RunFolder.open(run), {"stages.0.epochs": 3})
    assert [(c.key, c.mark) for c in found.changes] == [("stages.0.epochs", OnResume.LENGTH)]
    assert found.goes_on
