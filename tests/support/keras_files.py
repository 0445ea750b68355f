"""Files of weights as every version of Keras has written them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from retinue.weights import files

RNG = np.random.default_rng(0)

KERNEL = RNG.normal(size=(3, 3, 4, 8)).astype(np.float32)

DEPTHWISE = RNG.normal(size=(3, 3, 4, 1)).astype(np.float32)

GAMMA, BETA, MEAN, VARIANCE = RNG.normal(size=(4, 8)).astype(np.float32)


def same(path: Path, expected: dict[str, np.ndarray]) -> None:
    tensors = files.read(path).tensors
    assert set(tensors) == set(expected)
    for key, array in expected.items():
        assert np.array_equal(tensors[key].numpy(), array), key


def legacy(path: Path, layers: dict[str, dict[str, np.ndarray]], *, group: str = "") -> Path:
    """A file with groups by layer; the keys of `layers` are layers, then weight names."""
    with h5py.File(path, "w") as file:
        top = file.create_group(group) if group else file
        top.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, weights in layers.items():
            made = top.create_group(layer)
            made.attrs["weight_names"] = [name.encode() for name in weights]
            for name, array in weights.items():
                made.create_dataset(name, data=array)
    return path


NORM = {"gamma": GAMMA, "beta": BETA, "moving_mean": MEAN, "moving_variance": VARIANCE}

EXPECTED = {
    "conv1/kernel": KERNEL,
    "dw/depthwise_kernel": DEPTHWISE,
    **{f"conv1_bn/{name}": array for name, array in NORM.items()},
}


def numbered(path: Path, groups: dict[str, list[np.ndarray]], names: dict[str, str]) -> Path:
    with h5py.File(path, "w") as file:
        for group, arrays in groups.items():
            variables = file.create_group(f"{group}/vars")
            if group in names:
                variables.attrs["name"] = names[group]
            for k, array in enumerate(arrays):
                variables.create_dataset(str(k), data=array)
    return path


GROUPS = {
    "layers/conv2d": [KERNEL],
    "layers/batch_normalization": [GAMMA, BETA, MEAN, VARIANCE],
    "layers/functional/layers/depthwise_conv2d": [DEPTHWISE],
    "layers/dropout/seed_generator": [np.arange(2)],
    "optimizer": [BETA],
}

NAMES = {
    "layers/conv2d": "conv1",
    "layers/batch_normalization": "conv1_bn",
    "layers/functional/layers/depthwise_conv2d": "dw",
}


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "name": name, "config": {"name": name, **config}}


CONFIG = {
    "class_name": "Functional",
    "config": {
        "name": "outer",
        "layers": [
            layer("InputLayer", "input"),
            layer("Conv2D", "conv1"),
            layer("BatchNormalization", "conv1_bn"),
            layer("Functional", "inner", layers=[layer("DepthwiseConv2D", "dw")]),
            layer("Conv2D", "second"),
        ],
    },
}


def archive(path: Path, weights: Path, config: Any = CONFIG) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        made.write(weights, "model.weights.h5")
    return path
