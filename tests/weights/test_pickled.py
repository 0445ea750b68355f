"""PyTorch's files: what training scripts put around a state dict, and before its names."""

from __future__ import annotations

import argparse
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from retinue.errors import RetinueError
from retinue.models.registry import create_model, find, list_models
from retinue.weights import files
from retinue.weights.layout import layouts
from retinue.weights.prefixes import without_wrappers

State = dict[str, Tensor]
RESNET: State = {
    "conv1.weight": torch.ones(2),
    "bn1.weight": torch.ones(2),
    "layer1.0.conv1.weight": torch.ones(3),
    "fc.bias": torch.ones(4),
}
"""The names by which torchvision's ResNets are known, and a classifier."""
OTHER: State = {key: -tensor for key, tensor in RESNET.items()}
LOSS: State = {"criterion.weight": torch.ones(4)}
OPTIMISER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}


def prefixed(prefix: str, state: State = RESNET) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize(
    "content",
    [
        {"model_state_dict": RESNET, "optimizer_state_dict": OPTIMISER, "epoch": 3},
        {"net": RESNET, "acc": 91.2},
        {"ema": RESNET, "model": OTHER},
        {"my_classifier": RESNET, "optimizer": OPTIMISER, "rng": torch.get_rng_state()},
        {"my_classifier": RESNET, "epoch": torch.tensor(3)},
        {"my_classifier": RESNET, "loss": {"weight": torch.ones(4)}},
        {"run": {"weights": {"best": RESNET}}},
        {"student_ema": RESNET, "student": OTHER},
    ],
)
def test_wherever_the_state_dict_is(tmp_path: Path, content: dict[str, Any]) -> None:
    same(files.read(saved(tmp_path / "w.pth", content)).tensors, RESNET)


@pytest.mark.parametrize("name", ["w.ckpt", "w.tar", "w.pth.tar", "w.PT"])
def test_names_of_training_scripts(tmp_path: Path, name: str) -> None:
    same(files.read(saved(tmp_path / name, {"state_dict": RESNET})).tensors, RESNET)


@pytest.mark.parametrize(
    "state",
    [
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        prefixed("_orig_mod.module."),
        prefixed("model._orig_mod."),
        prefixed("classifier."),  # nobody's habit; the names without it tell
        {**prefixed("module."), "n_averaged": torch.tensor(5)},
        {**prefixed("model."), **LOSS},
        {**prefixed("classifier."), **LOSS},
        {**prefixed("model.", OTHER), **prefixed("ema_model.module.")},
    ],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_prefixes_of_wrappers(tmp_path: Path, state: State, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    same(files.read(path).tensors, RESNET)


def test_our_own_names_within_a_wrapper(tmp_path: Path) -> None:
    own = {"stem.conv.weight": torch.ones(2), "head.fc.bias": torch.ones(3)}
    for state in (prefixed("model.", own), {**prefixed("mine.", own), **LOSS}):
        same(files.read(saved(tmp_path / "w.ckpt", {"state_dict": state})).tensors, own)


def test_what_is_beside_the_wrapped_network_is_reported(tmp_path: Path) -> None:
    """A classifier of one's own, say, is not lost without a word."""
    state = {**prefixed("backbone."), "fc.bias": torch.zeros(4), "top.weight": torch.zeros(2)}
    tensors = files.read(saved(tmp_path / "w.ckpt", state)).tensors
    assert tensors.keys() - RESNET.keys() == {"fc.bias beside backbone", "top.weight"}
    assert torch.equal(tensors["fc.bias"], RESNET["fc.bias"])


@pytest.mark.parametrize("family", sorted({find(name).family for name in list_models()}))
def test_no_family_loses_a_prefix_of_its_own(family: str) -> None:
    """Neither whole nor without the classifier."""
    name = next(name for name in list_models() if find(name).family == family)
    with torch.device("meta"):
        network = create_model(name)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    trunk = {k: v for k, v in shapes.items() if not k.startswith(network.classifiers)}
    for own in (shapes, trunk):
        assert own.keys() == without_wrappers(dict.fromkeys(own, torch.ones(1)), Path()).keys()
        for layout in layouts(family):
            keys = {key for k, o in layout.origins(shapes).items() if k in own for key in o.keys}
            state = dict.fromkeys(keys, torch.ones(1))
            assert without_wrappers(state, Path()).keys() == keys, layout


@pytest.mark.parametrize("prefix", ["features.", "resnet.", "vit.", "encoder."])
def test_prefixes_that_no_wrapper_has_stay(prefix: str) -> None:
    state = {f"{prefix}0.weight": torch.ones(1), f"{prefix}3.weight": torch.ones(1)}
    assert without_wrappers(state, Path()).keys() == state.keys()


def test_shards_keep_the_names_of_their_index(tmp_path: Path) -> None:
    """Of which one may have what looks like a wrapper's prefix in all its keys."""
    path = saved(tmp_path / "pytorch_model-00001-of-00002.bin", prefixed("model."))
    same(files.read(path).tensors, prefixed("model."))


@pytest.mark.parametrize(
    "content",
    [
        {"student": RESNET, "teacher": OTHER},
        {"generator": {"a.weight": torch.ones(2)}, "critic": {"b.weight": torch.ones(2)}},
        {**prefixed("student."), **prefixed("teacher.", OTHER)},
    ],
)
def test_several_networks_are_listed(tmp_path: Path, content: dict[str, Any]) -> None:
    path = saved(tmp_path / "w.pth", content)
    with pytest.raises(
        RetinueError, match=r"several sets of weights in the file: '\w+', '\w+', .*"
    ):
        files.read(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 3, "optimizer": OPTIMISER}, "whose keys are 'epoch', 'optimizer'"),
        ([torch.ones(2)], "which holds a list"),
        ({}, "which holds nothing"),
    ],
)
def test_what_is_there_instead(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(RetinueError, match=f"no weights in the file, {said}"):
        files.read(saved(tmp_path / "w.pth", content))


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(nn.Linear(1, 1)).save(str(path))


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "script": (scripted, "program in TorchScript"),
    "module": (lambda path: torch.save(nn.Linear(1, 1), path), r"more than tensors \(torch\.nn\."),
    "object": (
        lambda path: torch.save({"model": RESNET, "args": argparse.Namespace()}, path),
        r"more than tensors \(argparse\.Namespace\)",
    ),
    "protocol": (lambda path: path.write_bytes(pickle.dumps([1], 4)), "another protocol than 2"),
    "garbage": (lambda path: path.write_bytes(b"\x80\x02\xff\0rubbish"), "damaged weights: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_of_pytorchs_advice_is_passed_on(tmp_path: Path, case: str) -> None:
    """It is to read with weights_only=False, which executes what is in the file."""
    make, said = REFUSED[case]
    path = tmp_path / "w.pth"
    make(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RetinueError, match=rf"{said}.*w\.pth, \w") as caught:
            files.read(path)
    assert "weights_only" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_number_is_said(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = {
        "fine": torch.ones(2),
        "counts": torch.tensor([2]),
        "spoilt": torch.tensor([1, torch.nan]),
        "half": torch.tensor([torch.inf], dtype=torch.float16),
        "eighth": torch.ones(2).to(torch.float8_e4m3fn),
    }
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert files.read(path).tensors.keys() == state.keys()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    named = record.getMessage().partition("NaN or infinity in ")[2]
    assert set(named.split(", ")) == {"spoilt", "half"}
    assert json.dumps(str(path))[1:-1] in record.getMessage()
