"""Weights that hold no numbers, or nothing learnt, are refused by the tensor's name, uncopied."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retinue import modelfile
from retinue.errors import RetinueError
from retinue.models.registry import create_model
from retinue.weights import files
from retinue.weights.loading import load_into

KERNELS = ("stem.conv.weight", "head.fc1.weight", "head.fc.weight")


@pytest.fixture(scope="module")
def sound() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create_model("mnist_cnn", num_classes=4).state_dict()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named(sound: dict[str, torch.Tensor], value: float) -> None:
    network = create_model("mnist_cnn", num_classes=4)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    tensors = {key: tensor.clone() for key, tensor in sound.items()}
    tensors["head.fc1.weight"][3, 5] = value
    with pytest.raises(RetinueError, match=r"NaN or infinity: head\.fc1\.weight, take another"):
        load_into(network, tensors)
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key])  # nothing was copied


@pytest.mark.parametrize("value", [0.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_kernels_that_are_all_one_number_are_refused(
    sound: dict[str, torch.Tensor], value: float, dtype: torch.dtype
) -> None:
    tensors = {key: torch.full_like(tensor, value, dtype=dtype) for key, tensor in sound.items()}
    with pytest.raises(RetinueError, match=rf"nothing has been learnt.*{KERNELS[0]} is {value:g}"):
        load_into(create_model("mnist_cnn", num_classes=4), tensors)


def test_one_of_them_is_warned_of(
    sound: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    tensors = dict(sound) | {"head.fc1.weight": torch.zeros_like(sound["head.fc1.weight"])}
    with caplog.at_level(logging.WARNING, "retinue"):
        load_into(create_model("mnist_cnn", num_classes=4), tensors)
    assert "head.fc1.weight is 0 throughout" in caplog.text
    caplog.clear()
    load_into(create_model("mnist_cnn", num_classes=4), sound)
    assert not caplog.text


def test_a_head_that_is_left_out_may_be_anything(sound: dict[str, torch.Tensor]) -> None:
    spoilt = dict(sound) | {"head.fc.weight": torch.full_like(sound["head.fc.weight"], math.nan)}
    report = load_into(create_model("mnist_cnn", num_classes=7), spoilt)
    assert "head.fc.weight" in report.reinitialised


def test_a_file_of_very_many_tensors_is_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.safetensors"
    save_file({f"t{i}": torch.zeros(1) for i in range(12)}, path)
    monkeypatch.setattr(modelfile, "MOST_TENSORS", 11)
    with pytest.raises(RetinueError, match=r"it has 12 tensors.*many\.safetensors"):
        files.read(path)
    with pytest.raises(RetinueError, match=r"damaged one \(it has 12 tensors\), .*many"):
        modelfile.read(path)
