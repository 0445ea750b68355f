"""One file is the model: whole or not at all, described, and read without executing anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file

from retinue import modelfile
from retinue.errors import RetinueError, UsageError
from retinue.modelfile import ModelDescription
from retinue.sample import Preprocessing

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def description() -> ModelDescription:
    return ModelDescription(
        task="classification",
        task_options={"label_smoothing": 0.1},
        classes=["böse", "gut", "猫"],
        network="mobilenet_v2",
        arguments={"num_classes": 3, "width": 1.0},
        preprocessing=Preprocessing(size=(32, 48)).as_dict(),
        figures={"top1": 0.875},
        versions={"retinue": "0.1.0"},
    )


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "stem.conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "stem.norm.num_batches_tracked": torch.tensor(7),
        "head.fc.bias": torch.randn(3, generator=generator).to(torch.bfloat16),
    }


def test_round_trip(tmp_path, description):
    path = tmp_path / "best.safetensors"
    before = tensors()
    before["stem.conv.weight"] = before["stem.conv.weight"].to(memory_format=torch.channels_last)
    modelfile.write(path, before, description)
    read, after = modelfile.read(path)
    assert read == description == modelfile.read_description(path)
    assert read.prepared() == Preprocessing(size=(32, 48))
    assert after.keys() == before.keys()
    for key, tensor in after.items():
        assert tensor.dtype == before[key].dtype
        assert torch.equal(tensor, before[key])
        assert tensor.is_contiguous()
    assert os.listdir(tmp_path) == ["best.safetensors"]


def test_written_bytes_are_the_same_every_time(tmp_path, description):
    for name in "ab":
        modelfile.write(tmp_path / name, tensors(), description)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def golden(version):
    """Written once, by the first release with that format: every later one must read it."""
    path = GOLDEN / f"model_v{version}.safetensors"
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["retinue"])["format_version"] == version
    description, read = modelfile.read(path)
    assert description.format_version == modelfile.FORMAT_VERSION
    return description, read


def test_golden_file_of_format_1():
    description, read = golden(1)
    assert description.task == "classification"
    assert description.task_options == {"label_smoothing": 0.1}
    assert description.task_state == {}
    assert description.teacher is None
    assert description.classes == ["böse", "gut", "猫"]
    assert description.arguments == {"num_classes": 3, "width": 1.0}
    assert description.prepared().size == (32, 48)
    for key, tensor in tensors().items():
        assert torch.equal(read[key], tensor)


def test_golden_file_of_format_2():
    description, read = golden(2)
    assert description.classes == ["böse", "gut", "猫"]
    assert description.task_state == {"anchors": [[10, 13], [16, 30]], "temperature": 1.25}
    assert description.teacher == "0123456789abcdef" * 4
    assert description.prepared().size == (32, 48)
    assert read.keys() == tensors().keys()
    for key, tensor in tensors().items():
        assert torch.equal(read[key], tensor)


@pytest.mark.parametrize(
    ("anchors", "state"), [(None, {}), ([[1.5, 2]], {"anchors": [[1.5, 2]]}), ([], {"anchors": []})]
)
def test_anchors_of_format_1_become_the_tasks_state(tmp_path, description, anchors, state):
    values = {**description.model_dump(), "format_version": 1, "anchors": anchors}
    del values["task_state"], values["teacher"]  # which format 1 knew nothing of
    path = tmp_path / "old.safetensors"
    save_file(tensors(), path, {"retinue": json.dumps(values)})
    expected = description.model_copy(update={"task_state": state})
    assert modelfile.read_description(path) == expected


def test_a_teacher_is_named_by_its_hash(description):
    with pytest.raises(ValidationError, match="teacher"):
        ModelDescription(**{**description.model_dump(), "teacher": "/home/me/best.safetensors"})


def test_the_model_of_a_folder_is_its_best_one(tmp_path, description):
    modelfile.write(tmp_path / "run" / modelfile.MODEL_FILE, tensors(), description)
    best = tmp_path / "run" / "best.safetensors"
    assert modelfile.find_model(tmp_path / "run") == modelfile.find_model(best) == best
    with pytest.raises(UsageError, match=r"no best\.safetensors in the folder.*did you mean.*run"):
        modelfile.find_model(tmp_path)
    best.rename(tmp_path / "run" / "other.safetensors")
    with pytest.raises(UsageError, match=r"did you mean.*other\.safetensors"):
        modelfile.find_model(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").touch()
    with pytest.raises(UsageError, match=r"has not come that far.*--resume"):
        modelfile.find_model(tmp_path / "run")
    with pytest.raises(UsageError, match=r"no such model.*runs"):
        modelfile.find_model(tmp_path / "runs")


def test_older_format_is_brought_up(tmp_path, description, monkeypatch):
    values = description.model_dump()
    values["format_version"] = 0
    values["labels"] = values.pop("classes")
    path = tmp_path / "old.safetensors"
    save_file(tensors(), path, {"retinue": json.dumps(values)})

    def upgrade(old):
        return {("classes" if key == "labels" else key): value for key, value in old.items()}

    with pytest.raises(RetinueError, match="unknown format 0"):
        modelfile.read_description(path)
    monkeypatch.setitem(modelfile.UPGRADES, 0, upgrade)
    assert modelfile.read_description(path) == description


def test_newer_format_is_refused(tmp_path, description):
    values = {**description.model_dump(), "format_version": 99, "something": "new"}
    path = tmp_path / "new.safetensors"
    save_file(tensors(), path, {"retinue": json.dumps(values)})
    with pytest.raises(RetinueError, match=r"format 99.*new\.safetensors.*newer retinue"):
        modelfile.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a safetensors file"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{'a': 1}", "not a safetensors file"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "some.safetensors"
    path.write_bytes(content)
    with pytest.raises(RetinueError, match=rf"{message}.*some\.safetensors"):
        modelfile.read(path)


def test_truncated_file_is_refused(tmp_path, description):
    path = tmp_path / "cut.safetensors"
    modelfile.write(path, tensors(), description)
    whole = path.read_bytes()
    for length in (7, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(RetinueError, match=r"damaged.*cut\.safetensors"):
            modelfile.read(path)


def test_safetensors_without_description(tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file(tensors(), path)
    with pytest.raises(RetinueError, match=r"not a model that retinue wrote, .*plain"):
        modelfile.read_description(path)


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "{}", "null", "1", "[" * 100_000,
        '{"format_version": 1, "task": 3}',
        '{"format_version": true}',
        '{"format_version": "2"}',
        '{"format_version": Infinity}',
        '{"format_version": 1e999}',
        '{"format_version": ' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_damaged_description(tmp_path, text):
    path = tmp_path / "odd.safetensors"
    save_file(tensors(), path, {"retinue": text})
    with pytest.raises(RetinueError, match=r"description is damaged.*odd\.safetensors"):
        modelfile.read_description(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": None}, "mean"),
        ({"size": "big"}, "size"),
        ({"colour": "grey"}, "colour is unknown"),
        ({"size": [0, 8]}, r"size\.0"),
        ({"size": [-1, 8]}, r"size\.0"),
        ({"size": [8, 99999999999]}, r"size\.1"),
        ({"size": [8, True]}, r"size\.1"),
        ({"size": [8, 8, 8]}, "size"),
        ({"size": ["8", 8]}, r"size\.0"),
        ({"std": [0.2, 0.0, 0.2]}, r"std\.1"),
        ({"mean": [0.5, 0.5]}, r"mean\.2 is missing"),
        ({"mean": ["0", 0.0, 0.0]}, r"mean\.0"),
        ({"mean": [1e38, 0.0, 0.0]}, r"mean\.0"),
        ({"crop_fraction": 0}, "crop_fraction"),
        ({"pad_value": 114.5}, "pad_value"),
        ({"interpolation": "sinc"}, "interpolation"),
        (None, "size is missing"),
    ],
)
def test_preprocessing_is_never_guessed(tmp_path, description, change, said):
    values = description.model_dump()
    values["preprocessing"] = {} if change is None else values["preprocessing"] | change
    path = tmp_path / "odd.safetensors"
    save_file(tensors(), path, {"retinue": json.dumps(values)})
    told = rf"damaged: preprocessing: {said}.*odd\.safetensors"
    with pytest.raises(RetinueError, match=told) as caught:
        modelfile.read_description(path)
    assert "Value error" not in str(caught.value)


def test_what_is_no_number_is_no_description(tmp_path, description):
    values = description.model_dump()
    values["preprocessing"]["mean"] = [float("nan"), 0.0, 0.0]
    path = tmp_path / "odd.safetensors"
    save_file(tensors(), path, {"retinue": json.dumps(values)})
    with pytest.raises(RetinueError, match=r"damaged: NaN is no number.*odd\.safetensors"):
        modelfile.read_description(path)


def test_there_is_a_most_of_classes(tmp_path, description, monkeypatch):
    path = tmp_path / "many.safetensors"
    modelfile.write(path, tensors(), description)
    monkeypatch.setattr(modelfile, "MOST_CHARACTERS", 100)
    with pytest.raises(RetinueError, match=r"damaged: it has \d+ characters.*many\.safetensors"):
        modelfile.read_description(path)
    with pytest.raises(ValidationError, match="classes"):
        modelfile.ModelDescription.model_validate(description.model_dump() | {"classes": []})


def test_missing_file_is_a_usage_mistake(tmp_path):
    with pytest.raises(UsageError, match=r"no such model file.*none\.safetensors.*nearest"):
        modelfile.read_description(tmp_path / "none.safetensors")


def test_shared_memory_is_refused(tmp_path, description):
    weight = torch.zeros(4, 4)
    with pytest.raises(RetinueError, match="'a' and 'b' share memory"):
        modelfile.write(tmp_path / "m", {"a": weight, "b": weight.t()}, description)
    assert not os.listdir(tmp_path)


def test_failed_write_leaves_the_old_file(tmp_path, description, monkeypatch):
    path = tmp_path / "best.safetensors"
    modelfile.write(path, tensors(), description)
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(RetinueError, match=r"No space left.*best\.safetensors"):
                modelfile.write(path, {"a": torch.ones(3)}, description)
        assert path.read_bytes() == old
        assert os.listdir(tmp_path) == ["best.safetensors"]


def test_folders_are_made(tmp_path, description):
    modelfile.write(tmp_path / "new" / "best.safetensors", tensors(), description)
    assert os.listdir(tmp_path / "new") == ["best.safetensors"]
    (tmp_path / "file").touch()
    with pytest.raises(RetinueError, match=r"cannot be written.*Not a directory.*file/best"):
        modelfile.write(tmp_path / "file" / "best.safetensors", tensors(), description)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_in_the_middle_of_writing(tmp_path, description):
    """A process that is killed while it writes leaves a whole file: the old or the new one."""
    path = tmp_path / "best.safetensors"
    modelfile.write(path, tensors(), description)
    script = textwrap.dedent(
        """
        import sys, torch
        from retinue import modelfile
        path = sys.argv[1]
        description = modelfile.read_description(path)
        print("ready", flush=True)
        while True:
            modelfile.write(path, {"a": torch.ones(500_000)}, description)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.kill()
    process.wait()
    read, after = modelfile.read(path)
    assert read == description
    assert torch.equal(after["a"], torch.ones(500_000))
