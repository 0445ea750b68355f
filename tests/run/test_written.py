"""A run's JSON files that were damaged or edited are refused by file and key, wherever read."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from retinue import modelfile
from retinue.errors import RetinueError
from retinue.models.registry import create_model
from retinue.page.record import read_run
from retinue.run.checkpoint import CheckpointStore, taking_up
from retinue.run.folder import RunFolder
from retinue.run.progress import Progress
from retinue.tasks.task import described

SETTINGS = {"device": "cpu", "precision": "fp32", "threads": 2, "world": 1}
PREPROCESSING = {"size": [8, 8], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}

ODD = [
    ("classes.json", None, ""),
    ("classes.json", {"a": 1}, ""),
    ("classes.json", [], ""),
    ("classes.json", ["a", 1], "1"),
    ("environment.json", None, ""),
    ("environment.json", [1], ""),
    ("environment.json", {"settings": 3}, "settings"),
    ("environment.json", {"settings": SETTINGS | {"threads": "2"}}, "settings.threads"),
    ("environment.json", {"settings": SETTINGS | {"threads": 0}}, "settings.threads"),
    ("environment.json", {"settings": SETTINGS | {"colour": 1}}, "settings.colour"),
    ("environment.json", {"versions": ["torch"]}, "versions"),
    ("environment.json", {"versions": {"torch": None}}, "versions.torch"),
    ("environment.json", {"recipe": "finetune"}, "recipe"),
    ("environment.json", {"task_state": []}, "task_state"),
    ("environment.json", {"skipped": 0}, "skipped"),
    ("environment.json", {"trunk": True}, "trunk"),
    ("environment.json", {"preprocessing": PREPROCESSING | {"size": [0, 8]}}, "preprocessing"),
    ("environment.json", {"preprocessing": PREPROCESSING | {"colour": 1}}, "preprocessing"),
    ("metrics.json", 1, ""),
    ("metrics.json", {"images": -1}, "images"),
    ("metrics.json", {"per_class": {"a": 1}}, "per_class"),
    ("metrics.json", {"skipped": ["a.jpg"]}, "skipped"),
]


@pytest.mark.parametrize(("name", "value", "key"), ODD)
def test_what_no_training_writes_is_refused(
    tmp_path: Path, name: str, value: Any, key: str
) -> None:
    (tmp_path / name).write_text(json.dumps(value))
    with pytest.raises(RetinueError, match="not what a training writes") as caught:
        RunFolder(tmp_path).read_json(name)
    assert caught.value.where == f"{tmp_path / name}" + (f", key {key}" if key else "")


@pytest.mark.parametrize("name", ["environment.json", "metrics.json"])
def test_a_report_notes_it_and_shows_the_rest(tmp_path: Path, name: str) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 1\n")
    (tmp_path / name).write_text('{"skipped": 3}')
    record = read_run(tmp_path)
    assert record.recipe == {"seed": 1}
    assert any(name in note and "skipped" in note for note in record.notes)


def test_what_a_training_writes_is_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    whole = {"settings": SETTINGS, "versions": {"a": "1"}, "trunk": None, "new": {"x": 1},
             "preprocessing": PREPROCESSING, "skipped": {}, "cpu": "x"}  # fmt: skip
    run.write_json("environment.json", whole)
    assert run.read_json("environment.json") == whole
    assert run.read_json("classes.json") is None


@pytest.mark.parametrize(
    ("change", "key"),
    [({"stage": "x"}, "stage"), ({"rows": {"a": 1}}, "rows"), ({"colour": 1}, "colour"),
     ({"kept_figures": {"top1": "good"}}, "kept_figures.top1"), ({"skipped": [1]}, "skipped")],
)  # fmt: skip
def test_a_checkpoint_of_other_counters_is_refused(change: dict[str, Any], key: str) -> None:
    whole = Progress(stage=2, best=0.5, rows=[{"epoch": 1}]).as_dict()
    assert Progress.from_dict(whole).as_dict() == whole
    with pytest.raises(RetinueError, match=rf"not what a training writes.*key {key}"):
        Progress.from_dict(whole | change)


@pytest.mark.parametrize("pointer", [b"", b"\xff\xfe", b"../000001", b"1", "²".encode() * 6])
def test_a_damaged_pointer_leads_nowhere_else(tmp_path: Path, pointer: bytes) -> None:
    CheckpointStore(tmp_path).save({"progress": {}})  # not in the folder of checkpoints
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "current").write_bytes(pointer)
    store = CheckpointStore(tmp_path / "last")
    assert not store.exists()
    with pytest.raises(RetinueError, match="no checkpoint to go on from"):
        store.load()
    store.save({"progress": {"stage": 1}})
    assert store.load() == {"progress": {"stage": 1}}


@pytest.mark.parametrize(
    "error",
    [KeyError("optimizer"), AttributeError("'int' object has no attribute 'copy'"),
     RuntimeError("Error(s) in loading state_dict for Learner:\n\tsize mismatch"), TypeError()],
)  # fmt: skip
def test_a_state_that_does_not_fit_is_a_damaged_checkpoint(
    tmp_path: Path, error: Exception
) -> None:
    told = f"not what this version writes.*{type(error).__name__}"
    with pytest.raises(RetinueError, match=told), taking_up(tmp_path):
        raise error
    for other in (RetinueError("its own words"), RuntimeError("CUDA out of memory")):
        with pytest.raises(type(other), match=str(other)), taking_up(tmp_path):
            raise other


ODD_VALUES = [None, True, 0, -1, 10**30, 1.5, "", "x" * 300, [], [[]], {}, {"a": 1}, [None], ["a"]]


def test_any_value_anywhere_in_a_models_description_is_one_line(tmp_path: Path) -> None:
    """300 drawn ones: read whole, or refused by a RetinueError."""
    network = create_model("mnist_cnn", num_classes=2)
    whole = modelfile.ModelDescription(
        task="classification",
        task_options={"top_k": 2},
        task_state={"temperature": 1.5},
        classes=["a", "b"],
        network="mnist_cnn",
        arguments=dict(network.arguments),
        preprocessing=network.preprocessing.as_dict(),
        recipe={"stages": [{"data": None}]},
    ).model_dump(mode="json")
    places = [(key,) for key in whole]
    for key in ("task_options", "task_state", "arguments", "preprocessing"):
        places += [(key, inner) for inner in [*whole[key], "unheard of"]]
    draw = random.Random(0)
    path = tmp_path / "odd.safetensors"
    refused: list[str] = []
    for _ in range(300):
        first, *inner = draw.choice(places)
        value = draw.choice(ODD_VALUES)
        changed = {**whole, first: {**whole[first], inner[0]: value} if inner else value}
        save_file({"w": torch.zeros(1)}, path, {modelfile.KEY: json.dumps(changed)})
        try:
            described(modelfile.read_description(path))
        except RetinueError as error:
            refused.append(str(error))
    assert len(refused) > 200
    assert not [said for said in refused if "Value error" in said or "validation error" in said]
