"""What is given in a recipe's place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import box_sets
import examples
import pytest
import tiny
import torch

from retinue import api, modelfile
from retinue.errors import UsageError
from retinue.models.detector import PREPROCESSING
from retinue.run.folder import RunFolder
from retinue.tasks.shipped import SHIPPED
from retinue.training.recipe import dump, load_recipe
from retinue.training.request import asked
from retinue.training.written_recipes import shipped


def test_a_folder_or_table_is_trained_on_by_the_usual_recipe(tmp_path: Path) -> None:
    said: list[str] = []
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n")
    for given in (tmp_path, str(tmp_path), table):
        recipe, overrides = asked(given, {"seed": 1}, said.append)
        assert (recipe, overrides) == ("finetune", {"data": str(given), "seed": 1})
        assert load_recipe(recipe, overrides).data.path == str(given)
    assert f"{tmp_path} is taken for the pictures, and trained on by the recipe finetune" in said


def _of_voc(root: Path) -> Path:
    return box_sets.voc(root / "voc", a=box_sets.xml(("cat", 2, 3, 20, 30)))


def _of_yolo(root: Path) -> Path:
    box_sets.picture(root / "yolo" / "images" / "a.jpg")
    box_sets.write(root / "yolo" / "labels" / "a.txt", "0 0.5 0.5 0.2 0.2\n")
    box_sets.write(root / "yolo" / "data.yaml", "train: images\nnames: [cat]\n")
    return root / "yolo"


def _of_a_table(root: Path) -> Path:
    box_sets.picture(root / "table" / "a.jpg")
    rows = "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64,48,cat,2,3,20,30\n"
    return box_sets.write(root / "table" / "labels.csv", rows)


def _yolos_yaml(root: Path) -> Path:
    return _of_yolo(root) / "data.yaml"


def _of_coco(root: Path) -> Path:
    box_sets.picture(root / "a.jpg")
    contents = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 20, 30]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return box_sets.write(root / "boxes.json", json.dumps(contents))


def _of_records(root: Path) -> Path:
    sides = {f"image/object/bbox/{side}": [0.5] for side in ("xmin", "ymin", "xmax", "ymax")}
    return examples.write(root / "boxes.tfrecord", examples.example({**sides}))


@pytest.mark.parametrize(
    "made", [_of_voc, _of_yolo, _of_a_table, _yolos_yaml, _of_coco, _of_records]
)
def test_data_of_another_task_is_trained_on_by_that_tasks_recipe(
    tmp_path: Path, made: Callable[[Path], Path]
) -> None:
    data = made(tmp_path)
    said: list[str] = []
    assert asked(data, {}, said.append) == ("detect", {"data": str(data)})
    assert said == [f"{data} is taken for the pictures, and trained on by the recipe detect"]
    assert {task.usual for task in SHIPPED.values()} <= set(shipped())


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
    with pytest.raises(UsageError, match=r"model or weights, not a recipe.*model.weights="):
        asked(model, {}, pytest.fail)
    with pytest.raises(UsageError, match=r"'resnet50' is a network.*finetune.*model=resnet50"):
        asked("resnet50", {}, pytest.fail)
    for detector in ("yolov3", box_sets.write(tmp_path / "my.cfg", "[net]")):
        with pytest.raises(
            UsageError, match="is a network, not a recipe, retinue train detect data="
        ):
            asked(detector, {}, pytest.fail)


def test_a_detector_is_begun_from_by_the_recipe_for_boxes(tmp_path: Path) -> None:
    model = tmp_path / "best.safetensors"
    described = modelfile.ModelDescription(
        task="detection",
        network="yolov3_tiny",
        arguments={},
        classes=["cat"],
        preprocessing=PREPROCESSING.as_dict(),
    )
    modelfile.write(model, {"a": torch.zeros(1)}, described)
    with pytest.raises(UsageError, match="retinue train detect data=PHOTOS"):
        asked(model, {}, pytest.fail)


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
