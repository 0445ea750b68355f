"""What a recipe says of machines is settled once, before overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

import retinue
from retinue.errors import UsageError
from retinue.training.planning import machine
from retinue.training.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("torch_alone")


def _recipe(**changes: Any) -> dict[str, Any]:
    rules = {"stages": [{"name": "everything", "epochs": 3}], "evaluation": {"tta": "flip"}}
    return tiny.recipe("photos", on_gpu=rules, **{"device": "auto", **changes})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "choose_device", lambda wish: "cuda")


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_it_takes_the_place_of_the_rest() -> None:
    said: list[str] = []
    loaded = load_recipe(_recipe(), {"stages.0.epochs": 5}, said.append)
    assert [(stage.name, stage.epochs) for stage in loaded.stages] == [("everything", 5)]
    assert (loaded.evaluation.tta, loaded.evaluation.batch_size) == ("flip", 16)  # field by field
    assert loaded.on_gpu is None
    assert said == ["it runs on cuda: the recipe's on_gpu holds (stages, evaluation)"]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("how", ["override", "recipe"])
def test_a_device_that_is_asked_for_decides(how: str) -> None:
    changes = {"device": "cpu"}
    given = (_recipe(), changes) if how == "override" else (_recipe(**changes), {})
    said: list[str] = []
    loaded = load_recipe(*given, said.append)
    assert [stage.name for stage in loaded.stages] == ["head", "all"]
    assert said == ["it runs on cpu: the recipe's on_gpu (stages, evaluation) does not hold"]


def test_no_rules_no_note() -> None:
    said: list[str] = []
    load_recipe(tiny.recipe("photos"), {}, said.append)
    assert said == []


@pytest.mark.parametrize(
    ("rules", "overrides", "part"),
    [
        ({"stages": []}, {"device": "cuda"}, "key stages"),
        ({"epochs": 5}, {"device": "cuda"}, "unknown key 'epochs'"),
        ("stages", {}, "on_gpu holds fields of the recipe"),
        ({"on_gpu": {}}, {}, "on_gpu holds fields of the recipe"),
        ({"seed": 1}, {"on_gpu.seed": 2}, "override the field itself"),
    ],
)
def test_what_will_not_do_is_refused(rules: Any, overrides: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        load_recipe(tiny.recipe("photos", device="auto", on_gpu=rules), overrides)


def test_an_error_in_a_rule_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "model: {name: tiny}\nstages:\n  - epochs: 1\n"
        "on_gpu:\n  stages:\n    - name: all\n      epochs: -1\n"
    )
    assert load_recipe(path, {"device": "cpu"}).stages[0].epochs == 1
    with pytest.raises(UsageError, match=r"line 7, key stages\.0\.epochs"):
        load_recipe(path, {"device": "cuda"})


def test_the_run_holds_what_came_of_it(tmp_path: Path, pictures: Path) -> None:
    recipe = {**_recipe(), "data": {"path": str(pictures)}, "device": "cpu"}
    run = retinue.train(recipe, out=tmp_path / "run", report=False, quiet=True)
    written = load_recipe(run.folder)
    assert written.on_gpu is None
    assert [stage.name for stage in written.stages] == ["head", "all"]
    assert "on_gpu (stages, evaluation) does not hold" in (run.folder / "train.log").read_text()
