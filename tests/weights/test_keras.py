"""Keras' HDF5 files and archives: read as they were written, executing nothing."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from keras_files import (
    BETA,
    CONFIG,
    DEPTHWISE,
    EXPECTED,
    GAMMA,
    GROUPS,
    KERNEL,
    MEAN,
    NAMES,
    NORM,
    VARIANCE,
    archive,
    layer,
    legacy,
    numbered,
    same,
)

from retinue.errors import RetinueError
from retinue.weights import files


@pytest.mark.parametrize("group", ["", "model_weights"])
def test_keras_2(tmp_path: Path, group: str) -> None:
    layers = {
        "input_1": {},
        "conv1": {"conv1/kernel:0": KERNEL},
        "conv1_bn": {f"conv1_bn_1/{name}:0": array for name, array in NORM.items()},
        "dw": {"dw/depthwise_kernel:0": DEPTHWISE},
    }
    same(legacy(tmp_path / "w.h5", layers, group=group), EXPECTED)


def test_a_sequential_of_early_keras_2(tmp_path: Path) -> None:
    path = legacy(tmp_path / "w.h5", {"conv1": {"conv1/kernel:0": KERNEL}})
    layer = {"class_name": "Conv2D", "config": {"name": "conv1"}}
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": [layer]})
    same(path, {"conv1/kernel": KERNEL})


def test_keras_1(tmp_path: Path) -> None:
    layers = {
        "block1_conv1": {"block1_conv1_W_1:0": KERNEL, "block1_conv1_b_1:0": BETA},
        "bn2a": {"bn2a_gamma_1:0": GAMMA, "bn2a_running_std_1:0": VARIANCE},
    }
    expected = {
        "block1_conv1/kernel": KERNEL, "block1_conv1/bias": BETA,
        "bn2a/gamma": GAMMA, "bn2a/moving_variance": VARIANCE,
    }  # fmt: skip
    same(legacy(tmp_path / "w.h5", layers), expected)


def test_a_nested_model_gives_its_layers(tmp_path: Path) -> None:
    layers = {
        "mobilenet": {"conv1/kernel:0": KERNEL, "mobilenet/dw/kernel:0": DEPTHWISE},
        "top": {"top/bias:0": BETA},
    }
    expected = {"conv1/kernel": KERNEL, "dw/depthwise_kernel": DEPTHWISE, "top/bias": BETA}
    same(legacy(tmp_path / "w.h5", layers), expected)


def test_layers_without_a_name_are_numbered_from_0(tmp_path: Path) -> None:
    """As text, conv2d_10 is before conv2d_9; the number decides, not the place in the file."""
    names = ("conv2d_10", "conv2d_9", "my_conv2d_4", "conv2d_x", "dense_3")
    layers = {name: {f"{name}/bias:0": np.full(2, k)} for k, name in enumerate(names)}
    read = files.read(legacy(tmp_path / "w.h5", layers)).tensors
    assert {key: int(tensor[0]) for key, tensor in read.items()} == {
        "conv2d/bias": 1,
        "conv2d_1/bias": 0,
        "my_conv2d_4/bias": 2,
        "conv2d_x/bias": 3,
        "dense/bias": 4,
    }


def test_attributes_in_pieces(tmp_path: Path) -> None:
    """Keras cuts lists of names that HDF5 has no room for."""
    path = legacy(tmp_path / "w.h5", {"a": {"a/bias:0": BETA}, "b": {"b/bias:0": GAMMA}})
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"a"], [b"b"]
    same(path, {"a/bias": BETA, "b/bias": GAMMA})


def test_two_layers_of_one_name(tmp_path: Path) -> None:
    layers = {
        "one": {"conv/bias:0": BETA, "other/bias:0": BETA},
        "two": {"conv/bias:0": BETA, "more/bias:0": BETA},
    }
    with pytest.raises(RetinueError, match="two layers of the name 'conv'"):
        files.read(legacy(tmp_path / "w.h5", layers))


def test_keras_3_weights(tmp_path: Path) -> None:
    same(numbered(tmp_path / "m.weights.h5", GROUPS, NAMES), EXPECTED)


def test_keras_3_weights_without_names(tmp_path: Path) -> None:
    path = numbered(tmp_path / "m.weights.h5", GROUPS, {})
    with pytest.raises(RetinueError, match=r"does not say their names.*model\.save"):
        files.read(path)


@pytest.mark.parametrize("names", [NAMES, {}], ids=["named", "by position"])
def test_keras_archive(tmp_path: Path, names: dict[str, str]) -> None:
    """Earlier releases of Keras 3 leave the names to the configuration."""
    groups = {**GROUPS, "layers/conv2d_1": [KERNEL, BETA]}
    names = {**names, "layers/conv2d_1": "second"} if names else {}
    weights = numbered(tmp_path / "w.h5", groups, names)
    expected = {**EXPECTED, "second/kernel": KERNEL, "second/bias": BETA}
    same(archive(tmp_path / "m.keras", weights), expected)


def test_the_configuration_says_which_variables_a_norm_lacks(tmp_path: Path) -> None:
    weights = numbered(
        tmp_path / "w.h5", {"layers/batch_normalization": [BETA, MEAN, VARIANCE]}, {}
    )
    config = {"config": {"layers": [layer("BatchNormalization", "bn", scale=False)]}}
    expected = {"bn/beta": BETA, "bn/moving_mean": MEAN, "bn/moving_variance": VARIANCE}
    same(archive(tmp_path / "m.keras", weights, config), expected)


def test_links_out_of_the_file_are_refused(tmp_path: Path) -> None:
    secret = legacy(tmp_path / "secret.h5", {"conv1": {"conv1/kernel:0": KERNEL}})
    path = legacy(tmp_path / "w.h5", {"a": {"a/bias:0": BETA}})
    with h5py.File(path, "a") as file:
        file["a/a/kernel:0"] = h5py.ExternalLink(secret.name, "/conv1/conv1/kernel:0")
        file["a"].attrs["weight_names"] = [b"a/bias:0", b"a/kernel:0"]
    with pytest.raises(RetinueError, match="links elsewhere"):
        files.read(path)


def test_data_outside_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"x" * 400)
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"a"]
        file.create_group("a").attrs["weight_names"] = [b"a/bias:0"]
        raw = [(str(tmp_path / "raw"), 0, 400)]
        file["a"].create_dataset("a/bias:0", (100,), "f4", external=raw)
    with pytest.raises(RetinueError, match="data elsewhere"):
        files.read(path)


def test_a_group_in_itself_ends(tmp_path: Path) -> None:
    path = legacy(tmp_path / "w.h5", {"a": {"a/bias:0": BETA}})
    with h5py.File(path, "a") as file:
        file["a/again"] = file["a"]
    with pytest.raises(RetinueError, match="hold themselves"):
        files.read(path)


def test_implausible_sizes_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"a"]
        file.create_group("a").attrs["weight_names"] = [b"a/bias:0"]
        file["a"].create_dataset("a/bias:0", (10**12,), "f4", chunks=(1024,))
    with pytest.raises(RetinueError, match=r"implausible.*unpacks to 4,000,000,000,000"):
        files.read(path)
    bomb = tmp_path / "m.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("config.json", json.dumps(CONFIG))
        made.writestr("model.weights.h5", b"\0" * 2**26)
    with pytest.raises(RetinueError, match="implausible"):
        files.read(bomb)
    arrays = tmp_path / "w.npz"
    np.savez_compressed(arrays, a=np.zeros(2**24))
    with pytest.raises(RetinueError, match="implausible"):
        files.read(arrays)


@pytest.mark.parametrize("config", ["[]", "{}", '{"config": {"layers": [1]}}'])
def test_misshapen_configuration(tmp_path: Path, config: str) -> None:
    weights = numbered(tmp_path / "w.h5", GROUPS, NAMES)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as packed:
        packed.writestr("config.json", config)
        packed.write(weights, "model.weights.h5")
    with pytest.raises(RetinueError, match=r"damaged one.*m\.keras"):
        files.read(tmp_path / "m.keras")


def test_keras_names_are_made_uniform(tmp_path: Path) -> None:
    arrays = {
        "conv1/conv1/kernel:0": KERNEL,
        "dw/kernel": DEPTHWISE,
        **{f"conv1_bn/{name}:0": array for name, array in NORM.items()},
    }
    np.savez(tmp_path / "w.npz", **arrays)
    same(tmp_path / "w.npz", EXPECTED)


def test_real_keras_weights(shared: Any) -> None:
    folder = shared("weights/mobilenet_v1_0.25_224")
    arrays = files.read(folder / "mobilenet_v1_0.25_224_imagenet_keras.npz")
    browser = files.read(folder / "tfjs")
    assert set(arrays.tensors) == set(browser.tensors)
    assert len(arrays.tensors) == 137
    for key, tensor in arrays.tensors.items():
        assert torch.equal(tensor, browser.tensors[key])
    assert len(browser.paths) == 55
