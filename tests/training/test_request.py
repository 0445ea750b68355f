"""What is given in a recipe's place."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from retinue import api
from retinue.errors import UsageError
from retinue.run.folder import RunFolder
from retinue.training.recipe import dump, load_recipe
from retinue.training.request import asked


def test_a_folder_or_table_is_trained_on_by_the_usual_recipe(tmp_path: Path) -> None:
    said: list[str] = []
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n")
    for given in (tmp_path, str(tmp_path), table):
        recipe, overrides = asked(given, {"seed": 1}, said.append)
        assert (recipe, overrides) == ("finetune", {"data": str(given), "seed": 1})
        assert load_recipe(recipe, overrides).data.path == str(given)
    assert f"{tmp_path} is taken for the pictures, to train on by the recipe finetune" in said


def test_recipes_stay_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scratch").mkdir()  # called like a shipped one
    mine = Path("mine.yaml")
    mine.write_text("")
    run = Path("run")
    run.mkdir()
    (run / "recipe.yaml").write_text("")
    for recipe in ("scratch", "finetune", mine, run, str(run), "nowhere", {"a": 1}):
        assert asked(recipe, {}, pytest.fail) == (recipe, {})


def test_data_twice_a_model_and_a_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data is given twice"):
        asked(tmp_path, {"data": "x"}, pytest.fail)
    model = tmp_path / "best.safetensors"
    model.write_bytes(b"")
    with pytest.raises(UsageError, match=r"model or weights, no recipe.*model.weights="):
        asked(model, {}, pytest.fail)
    with pytest.raises(UsageError, match=r"'resnet50' is a network.*model=resnet50"):
        asked("resnet50", {}, pytest.fail)


def test_an_interrupted_training_is_not_begun_anew_without_a_word(
    tmp_path: Path, pictures: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.write("recipe.yaml", dump(load_recipe(tiny.recipe(pictures))))
    run.checkpoints.save({})
    with pytest.raises(UsageError) as raised:
        api.train(run.path)
    assert raised.value.exit_code == 2
    message = str(raised.value)
    assert "this training was interrupted" in message
    assert f"`retinue train {run.path} --resume`" in message
    assert f"`retinue train {run.path / 'recipe.yaml'}`" in message
    assert not (tmp_path / "runs").exists()
    run.write_json("metrics.json", {})
    assert asked(run.path, {}, pytest.fail) == (run.path, {})
