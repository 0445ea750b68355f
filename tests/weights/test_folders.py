"""Folders of weights: transformers', timm's, TensorFlow.js', runs; whole, sharded, damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from retinue.errors import RetinueError, UsageError
from retinue.models.registry import create_model
from retinue.sample import Preprocessing
from retinue.weights import files
from retinue.weights.layout import layouts, untranslate

TENSORS = {"vit.a": torch.arange(6.0), "vit.b": torch.ones(2, 2), "classifier.bias": torch.ones(2)}


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def folder(
    path: Path, config: Any, preprocessor: Any = None, tensors: dict[str, torch.Tensor] = TENSORS
) -> Path:
    path.mkdir(exist_ok=True)
    write(path / "config.json", config)
    if preprocessor is not None:
        write(path / "preprocessor_config.json", preprocessor)
    save_file(tensors, path / "model.safetensors")
    return path


# --- transformers

VIT = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "do_normalize": True,
    "do_rescale": True, "rescale_factor": 1 / 255, "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.5, 0.5], "resample": 2, "size": {"height": 224, "width": 224},
}  # fmt: skip
CONVNEXT = {
    "image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875, "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3,
    "size": {"shortest_edge": 224},
}  # fmt: skip
MOBILENET = {
    "image_processor_type": "MobileNetV2ImageProcessor", "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256}, "resample": 2,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
EFFICIENTNET = {
    "image_processor_type": "EfficientNetImageProcessor", "do_center_crop": False,
    "size": {"height": 346, "width": 346}, "crop_size": {"height": 289, "width": 289},
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.5, 0.5, 0.5], "include_top": True,
    "resample": 0, "rescale_factor": 1 / 255, "rescale_offset": False,
}  # fmt: skip
HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (VIT, Preprocessing((224, 224), HALF, (0.25, 0.5, 0.5), "bilinear", "squash", 1.0)),
        (
            {**VIT, "size": 384},
            Preprocessing((384, 384), HALF, (0.25, 0.5, 0.5), "bilinear", "squash", 1.0),
        ),
        (
            {**VIT, "do_normalize": False},
            Preprocessing((224, 224), (0, 0, 0), (1, 1, 1), "bilinear", "squash", 1.0),
        ),
        (CONVNEXT, Preprocessing()),
        ({**CONVNEXT, "size": 224}, Preprocessing()),
        (
            {**CONVNEXT, "size": {"shortest_edge": 384}},
            Preprocessing((384, 384), fit="squash", crop_fraction=1.0),
        ),
        (MOBILENET, Preprocessing((224, 224), HALF, HALF, "bilinear", "crop", 0.875)),
        (
            EFFICIENTNET,
            Preprocessing(
                (346, 346),
                std=(0.25, 0.25, 0.25),
                interpolation="nearest",
                fit="squash",
                crop_fraction=1.0,
            ),
        ),
        # Pixels from −1 to 1, then no mean: the same as a mean of ½.
        (
            {
                **VIT,
                "rescale_factor": 1 / 127.5,
                "rescale_offset": True,
                "image_mean": [0, 0, 0],
                "image_std": [1, 1, 1],
            },
            Preprocessing((224, 224), HALF, HALF, "bilinear", "squash", 1.0),
        ),
    ],
)
def test_preprocessing(tmp_path: Path, given: Any, expected: Preprocessing) -> None:
    contents = files.read(folder(tmp_path, {"model_type": "vit"}, given))
    found = contents.preprocessing
    assert found is not None
    for name in ("size", "interpolation", "fit"):
        assert getattr(found, name) == getattr(expected, name), name
    for name in ("mean", "std", "crop_fraction"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name)), name
    assert not contents.remark


@pytest.mark.parametrize(
    "change",
    [
        {"resample": 5},
        {"size": {"shortest_edge": 256}},
        {"do_center_crop": True, "crop_size": 200},
    ],
)
def test_preprocessing_without_an_equal_is_said(tmp_path: Path, change: Any) -> None:
    contents = files.read(folder(tmp_path, {"model_type": "vit"}, {**VIT, **change}))
    assert contents.preprocessing is None
    assert "has no equal here" in contents.remark


def test_names_of_classes(tmp_path: Path) -> None:
    config = {"model_type": "vit", "id2label": {"1": "rose", "0": "daisy", "10": "tulip"}}
    assert files.read(folder(tmp_path, config)).classes == ("daisy", "rose", "tulip")
    config = {"model_type": "vit", "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    assert files.read(folder(tmp_path, config)).classes == ()


def test_a_trunk_alone_gets_the_names_it_has_in_a_classifier(tmp_path: Path) -> None:
    trunk = {"a": torch.ones(2), "b": torch.ones(3)}
    contents = files.read(folder(tmp_path, {"model_type": "vit"}, tensors=trunk))
    assert set(contents.tensors) == {"vit.a", "vit.b"}
    assert set(files.read(folder(tmp_path, {"model_type": "vit"})).tensors) == set(TENSORS)


def test_pickles(tmp_path: Path) -> None:
    folder(tmp_path, {"model_type": "vit"})
    (tmp_path / "model.safetensors").unlink()
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    contents = files.read(tmp_path)
    assert set(contents.tensors) == set(TENSORS)
    assert contents.paths == (tmp_path / "pytorch_model.bin",)


# --- shards


def shards(path: Path, **places: str) -> Path:
    folder(path, {"model_type": "vit"})
    (path / "model.safetensors").unlink()
    placed = {}
    for k, keys in enumerate([["vit.a"], ["vit.b", "classifier.bias"]], start=1):
        name = f"model-0000{k}-of-00002.safetensors"
        save_file({key: TENSORS[key] for key in keys}, path / name)
        placed |= dict.fromkeys(keys, name)
    placed |= {key.replace("_", "."): value for key, value in places.items()}
    write(path / "model.safetensors.index.json", {"metadata": {}, "weight_map": placed})
    return path


def test_shards(tmp_path: Path) -> None:
    contents = files.read(shards(tmp_path))
    assert set(contents.tensors) == set(TENSORS)
    for key, tensor in TENSORS.items():
        assert torch.equal(contents.tensors[key], tensor)
    assert len(contents.paths) == 2


@pytest.mark.parametrize(
    "place", ["../outside.safetensors", "/outside.safetensors", "C:\\outside.safetensors",
              "a/../../outside.safetensors", "..\\outside.safetensors", ""]
)  # fmt: skip
def test_shards_outside_of_the_folder(tmp_path: Path, place: str) -> None:
    save_file(TENSORS, tmp_path / "outside.safetensors")
    with pytest.raises(RetinueError, match=r"no file of this folder.*index\.json"):
        files.read(shards(tmp_path / "model", vit_a=place))


def test_shards_that_are_missing_or_incomplete(tmp_path: Path) -> None:
    path = shards(tmp_path)
    with pytest.raises(RetinueError, match=r"lacks vit\.c"):
        files.read(shards(tmp_path, vit_c="model-00001-of-00002.safetensors"))
    shards(tmp_path)
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(RetinueError, match=r"'model-00002-of-00002\.safetensors' is missing"):
        files.read(path)
    write(path / "model.safetensors.index.json", {"weight_map": ["a"]})
    with pytest.raises(RetinueError, match="no weight_map"):
        files.read(path)


# --- timm


def test_timm(tmp_path: Path) -> None:
    config = {
        "architecture": "resnet50",
        "num_classes": 2,
        "label_names": ["daisy", "rose"],
        "pretrained_cfg": {
            "input_size": [3, 240, 320], "interpolation": "bicubic", "crop_pct": 0.95,
            "crop_mode": "center", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
        },
    }  # fmt: skip
    contents = files.read(folder(tmp_path, config))
    assert contents.preprocessing == Preprocessing(
        (240, 320), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", "crop", 0.95
    )
    assert contents.classes == ("daisy", "rose")
    config["pretrained_cfg"]["crop_mode"] = "squash"
    squashed = files.read(folder(tmp_path, config)).preprocessing
    assert squashed is not None
    assert squashed.fit == "squash"


@pytest.mark.parametrize(
    ("source", "config"),
    [
        (
            "timm",
            {
                "architecture": "vit_base_patch32_224",
                "pretrained_cfg": {"input_size": [3, 64, 64], "mean": HALF, "std": HALF},
            },
        ),
        ("transformers", {"model_type": "vit", "image_size": 64}),
        ("transformers", {"model_type": "vit", "image_size": [64, 64]}),
    ],
)
def test_positions_keep_the_size_that_the_folder_states(
    tmp_path: Path, source: str, config: Any
) -> None:
    small = {"width": 32, "heads": 4, "depth": 1, "num_classes": 2}
    network = create_model("vit_base_patch32", image_size=64, **small)
    plain = [
        x for x in layouts("vit") if x.source == source and "representation_size" not in x.arguments
    ]
    theirs = untranslate(plain[0], network.state_dict())
    made = create_model(
        "vit_base_patch32", weights=str(folder(tmp_path, config, None, theirs)), **small
    )
    assert made.preprocessing.size == (64, 64)
    assert torch.equal(made.state_dict()["stem.position"], network.state_dict()["stem.position"])
    given = create_model("vit_base_patch32", weights=str(tmp_path), image_size=96, **small)
    assert given.preprocessing.size == (96, 96)


# --- TensorFlow.js


def test_quantised_arrays_are_scaled_back(tmp_path: Path) -> None:
    weights = [
        {"name": "a/kernel", "shape": [2], "dtype": "float32",
         "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0}},
        {"name": "a/bias", "shape": [1], "dtype": "float32"},
    ]  # fmt: skip
    (tmp_path / "s").write_bytes(bytes([0, 4]) + np.float32(7).tobytes())
    write(tmp_path / "model.json", {"weightsManifest": [{"paths": ["s"], "weights": weights}]})
    tensors = files.read(tmp_path).tensors
    assert tensors["a/kernel"].tolist() == [-1.0, 1.0]
    assert tensors["a/bias"].tolist() == [7.0]
    (tmp_path / "s").write_bytes(bytes(3))
    with pytest.raises(RetinueError, match="damaged weights"):
        files.read(tmp_path)
    (tmp_path / "s").write_bytes(bytes(99))
    with pytest.raises(RetinueError, match="99 bytes, not 6"):
        files.read(tmp_path)


@pytest.mark.parametrize(
    "group",
    [
        {"paths": [], "weights": ["a"]},
        {"paths": [], "weights": [{"name": "a", "shape": [float("inf")], "dtype": "float32"}]},
        {"paths": [], "weights": [{"name": "a", "shape": [10**12] * 2, "dtype": "float32"}]},
        {"paths": ["s", "s"], "weights": [{"name": "a", "shape": [8], "dtype": "uint8"}]},
    ],
)
def test_damaged_manifest(tmp_path: Path, group: Any) -> None:
    (tmp_path / "s").write_bytes(bytes(4))
    write(tmp_path / "model.json", {"weightsManifest": [group]})
    with pytest.raises(RetinueError, match="damaged weights"):
        files.read(tmp_path)


# --- other folders


def test_a_run_folder_gives_its_best(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "best.safetensors")
    assert files.read(tmp_path).paths == (tmp_path / "best.safetensors",)


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither config\.json.*nor best\.safetensors"):
        files.read(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(UsageError, match=r"save\('model\.h5'\)"):
        files.read(tmp_path)
    write(tmp_path / "config.json", {})
    with pytest.raises(RetinueError, match="no weights beside it"):
        files.read(tmp_path)
    for damaged in ("{", "[1]", "[" * 10**5):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(RetinueError, match="damaged description"):
            files.read(tmp_path)


def test_damaged_configuration(tmp_path: Path) -> None:
    for config in (
        {"id2label": [1]},
        {"pretrained_cfg": {"input_size": 3, "mean": 1, "std": 2}},
        {"model_type": "vit", "num_attention_heads": "twelve"},
    ):
        with pytest.raises(RetinueError, match="damaged configuration"):
            files.read(folder(tmp_path, config))
    for change in ({"rescale_factor": 0}, {"size": {"height": float("inf"), "width": 1}}):
        with pytest.raises(RetinueError, match="damaged configuration"):
            files.read(folder(tmp_path, {"model_type": "vit"}, {**VIT, **change}))
