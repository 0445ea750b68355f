"""A shell's completion, asked as Typer's scripts ask it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from retinue.cli import outline
from retinue.cli.app import run
from retinue.models.registry import list_models
from retinue.options.typed import classes, places, words
from retinue.tasks.shipped import DEFAULT
from retinue.training.options import StageOptions
from retinue.training.recipe import Recipe
from retinue.training.written_recipes import shipped

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Complete:
    """`complete("train", "fine")` → what bash would be offered for the last word."""
    monkeypatch.chdir(tmp_path)

    def asked(*line: str) -> list[str]:
        words = ["retinue", *line]
        monkeypatch.setenv("_RETINUE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        capsys.readouterr()
        run([])
        return capsys.readouterr().out.split()

    return asked


def _run(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text("stages: [{}, {}, {}]\n")


def test_recipes_and_folders(complete: Complete) -> None:
    Path("fine-photos").mkdir()
    Path("fine.yaml").write_text("")
    Path("fine.txt").write_text("")
    assert complete("train", "fin") == ["finetune", "fine-photos/", "fine.yaml"]
    assert complete("recipes", "s") == ["scratch", "self-training"]
    assert complete("train", "finetune", "data=fi") == [
        "data=fine-photos/", "data=fine.txt", "data=fine.yaml",
    ]  # fmt: skip
    assert complete("train", "finetune", "fine-") == ["fine-photos/"]
    for name in ("boxes.json", "boxes.tfrecord", "boxes.cfg"):
        Path(name).write_text("")
    assert complete("train", "box") == ["boxes.json", "boxes.tfrecord"]
    assert complete("train", "detect", "box") == ["boxes.json", "boxes.tfrecord"]
    assert complete("train", "detect", "model=box") == ["model=boxes.cfg"]


def test_run_folders_and_models(complete: Complete) -> None:
    _run(Path("runs/roses"))
    Path("runs/nothing").mkdir()
    Path("mine.safetensors").write_bytes(b"")
    for command in ("predict", "evaluate", "export", "report", "clean"):
        assert complete(command, "runs/r") == ["runs/roses"]
    assert complete("predict", "mi") == ["mine.safetensors"]
    assert "runs/roses" in complete("predict", "")


def test_networks(complete: Complete) -> None:
    assert complete("train", "finetune", "model=resnet1") == [
        f"model={name}" for name in sorted(list_models("resnet1*"))
    ]
    assert complete("train", "finetune", "model.name=mobilenetv2_1") == [
        "model.name=mobilenetv2_100", "model.name=mobilenetv2_100.ra_in1k",
        "model.name=mobilenetv2_140", "model.name=mobilenetv2_140.ra_in1k",
    ]  # fmt: skip
    assert complete("models", "vit_h") == ["vit_huge_patch14"]


def test_keys_and_values(complete: Complete) -> None:
    assert "data=" in complete("train", "finetune", "")
    assert complete("train", "finetune", "stages.1.optimizer.l") == [
        "stages.1.optimizer.lr=", "stages.1.optimizer.layer_decay=",
    ]  # fmt: skip
    assert complete("train", "finetune", "stages.7.") == []
    assert complete("train", "finetune", "horizontal") == ["horizontal_flip="]
    assert complete("train", "finetune", "augment.horiz") == ["augment.horizontal_flip="]
    assert complete("train", "finetune", "precision=f") == ["precision=fp32", "precision=fp16"]
    assert complete("train", "finetune", "precision", "=", "f") == ["fp32", "fp16"]  # bash's way
    assert complete("train", "finetune", "prec") == [
        f"precision={value}" for value in ("auto", "fp32", "bf16", "fp16")
    ]
    assert complete("train", "finetune", "seed=1", "compile=") == ["compile=true", "compile=false"]
    assert complete("train", "finetune", "stages.0.sampler=bal") == ["stages.0.sampler=balanced"]
    assert complete("train", "finetune", "optimizer=ad") == ["optimizer=adam", "optimizer=adamw"]


def test_a_recipe_of_ones_own_has_its_own_stages(complete: Complete) -> None:
    _run(Path("runs/three"))
    for recipe in ("runs/three", "runs/three/recipe.yaml"):
        assert complete("train", recipe, "stages.2.ep")[0] == "stages.2.epochs="
    assert complete("train", "linear-probe", "stages.1.ep") == []


def test_the_outline_is_the_schemas() -> None:
    stages = [{"epochs": 1}, {"epochs": 1}]
    theirs = {".".join(map(str, place)) for place in places(Recipe, {"stages": stages})}
    assert set(outline.keys(2)) == theirs
    assert DEFAULT
    for field in ("sampler", "schedule", "optimizer", "cache_features", "frozen_batchnorm", "data"):
        annotation = StageOptions.model_fields[field].annotation
        named = [o.model_fields["name"].annotation for o in classes(annotation)]
        wanted = [*words(annotation), *(w for inner in named for w in words(inner))]
        told = outline.words(outline.keys(1)[f"stages.0.{field}"])
        assert [w for w in told if w not in ("true", "false", "null")] == wanted


def test_it_is_quick_and_brings_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys; from retinue.cli.app import run; run([]);"
        "print(sorted({'torch', 'numpy', 'cv2', 'pyarrow', 'PIL'} & set(sys.modules)),"
        " file=sys.stderr)"
    )
    for typed in ("train finetune stages.1.optimizer.n", "train finetune model=res", "train f"):
        line = {"_RETINUE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": f"retinue {typed}"}
        done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **line},
                              capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
        assert done.stderr.strip() == "[]"
        assert len(done.stdout) > 20
    assert len(shipped()) > 3
