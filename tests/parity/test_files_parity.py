"""Files and folders that the libraries themselves write, through `create_model(weights=PATH)`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinue.errors import RetinueError
from retinue.models.registry import create_model
from retinue.weights import files

CLASSES = 5


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="retinue")
    return caplog


# --- Keras


@pytest.fixture(scope="module")
def keras_model(references: Any) -> Any:
    return references.keras.applications.MobileNetV2(
        weights=None, input_shape=(64, 64, 3), alpha=0.35, classes=CLASSES,
        classifier_activation=None,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_keras(suffix: str, keras_model: Any, parity: Any, tmp_path: Path, said: Any) -> None:
    model = parity.randomise(keras_model)
    path = tmp_path / f"flowers{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    network = create_model("mobilenet_v2_035", num_classes=CLASSES, weights=str(path)).eval()
    error = parity.relative_error(network, parity.from_keras(model), (64, 64))
    assert error <= parity.tolerance
    assert network.arguments["same_padding"] is True
    assert network.preprocessing.mean == (0.5, 0.5, 0.5)
    assert f"flowers{suffix} (keras mobilenet_v2)" in said.text
    assert "classifier kept, too" in said.text


@pytest.mark.parity
def test_keras_model_inside_another(keras_model: Any, references: Any, tmp_path: Path) -> None:
    """A fine-tuned model, as the tutorials make it: the base as one layer among others."""
    keras = references.keras
    base = keras.applications.MobileNetV2(
        weights=None, input_shape=(64, 64, 3), alpha=0.35, include_top=False, pooling="avg"
    )
    model = keras.Sequential([keras.layers.Input((64, 64, 3)), base, keras.layers.Dense(3)])
    for suffix in (".keras", ".h5", ".weights.h5"):
        path = tmp_path / f"m{suffix}"
        model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
        network = create_model("mobilenet_v2_035", weights=str(path), partial_weights=True)
        kernel = base.get_layer("Conv_1").kernel.value.detach()
        assert torch.equal(network.top.conv.weight, kernel.permute(3, 2, 0, 1)), suffix


def test_a_classifier_of_other_classes_is_drawn_anew(
    keras_model: Any, tmp_path: Path, said: Any
) -> None:
    keras_model.save(tmp_path / "m.keras")
    create_model("mobilenet_v2_035", num_classes=7, weights=str(tmp_path / "m.keras"))
    assert "re-initialised: head.fc.weight, head.fc.bias" in said.text


def test_another_network_is_refused(keras_model: Any, tmp_path: Path) -> None:
    keras_model.save(tmp_path / "m.keras")
    with pytest.raises(RetinueError, match=r"keras mobilenet_v2.*m\.keras"):
        create_model("resnet50", weights=str(tmp_path / "m.keras"))
    with pytest.raises(RetinueError, match="belong to another network"):
        create_model("mobilenet_v2", weights=str(tmp_path / "m.keras"))


# --- transformers


def resnet18(transformers: Any, **changes: Any) -> Any:
    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic",
        id2label={k: f"flower {k}" for k in range(CLASSES)}, **changes,
    )  # fmt: skip
    return transformers.ResNetForImageClassification(config)


def vit(transformers: Any, **changes: Any) -> Any:
    config = transformers.ViTConfig(
        patch_size=32, image_size=64, num_hidden_layers=2, num_labels=CLASSES, **changes
    )
    return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize("shard", [pytest.param("1GB", marks=pytest.mark.parity), "10MB"])
def test_transformers(shard: str, references: Any, parity: Any, tmp_path: Path, said: Any) -> None:
    model = parity.randomise(resnet18(references.transformers))
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() is (shard == "10MB")
    processor = references.transformers.ConvNextImageProcessor(
        size={"shortest_edge": 224}, crop_pct=0.95, resample=3
    )
    processor.save_pretrained(tmp_path)
    network = create_model("resnet18", num_classes=CLASSES, weights=f"{tmp_path}/").eval()
    assert parity.relative_error(network, parity.from_transformers(model)) <= parity.tolerance
    assert network.preprocessing.crop_fraction == 0.95
    assert network.preprocessing.interpolation == "bicubic"
    assert "transformers resnet; 5 classes: flower 0, flower 1, flower 2 …" in said.text


@pytest.mark.parity
def test_what_the_configuration_says_is_heeded(
    references: Any, parity: Any, tmp_path: Path
) -> None:
    """Epsilon and heads, which no tensor shows."""
    model = parity.randomise(
        vit(references.transformers, layer_norm_eps=1e-3, num_attention_heads=8)
    )
    model.save_pretrained(tmp_path)
    arguments = {"num_classes": CLASSES, "image_size": 64, "depth": 2}
    network = create_model("vit_base_patch32", weights=f"{tmp_path}/", **arguments).eval()
    assert network.arguments["heads"] == 8
    assert network.arguments["norm_eps"] == 1e-3
    reference = parity.from_transformers(model)
    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance
    wrong = create_model("vit_base_patch32", weights=f"{tmp_path}/", heads=12, **arguments).eval()
    assert parity.relative_error(wrong, reference, (64, 64)) > 100 * parity.tolerance


def test_what_no_network_of_ours_computes_is_refused(references: Any, tmp_path: Path) -> None:
    resnet18(references.transformers, hidden_act="gelu").save_pretrained(tmp_path)
    with pytest.raises(RetinueError, match=r"hidden_act is 'gelu'.*always 'relu'.*config\.json"):
        create_model("resnet18", weights=f"{tmp_path}/")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ViTImageProcessor", {"image_std": [0.2, 0.3, 0.4]}),
        ("ViTImageProcessor", {"do_normalize": False}),
        ("EfficientNetImageProcessor", {}),
        ("EfficientNetImageProcessor", {"rescale_factor": 1 / 127.5, "rescale_offset": True}),
        ("EfficientNetImageProcessor", {"include_top": False}),
    ],
)
def test_pixels_are_those_of_the_processor(
    name: str, options: Any, references: Any, tmp_path: Path
) -> None:
    """On noise of the very size, so that nothing is resized."""
    processor = getattr(references.transformers, name)(size={"height": 96, "width": 96}, **options)
    processor.save_pretrained(tmp_path)
    resnet18(references.transformers).save_pretrained(tmp_path)
    ours = files.read(tmp_path).preprocessing
    assert ours is not None
    assert ours.size == (96, 96)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    theirs = np.asarray(processor(pixels, return_tensors="pt")["pixel_values"])[0]
    expected = (pixels / 255 - np.array(ours.mean)) / np.array(ours.std)
    assert np.allclose(theirs.transpose(1, 2, 0), expected, atol=1e-4)


# --- timm


@pytest.mark.parametrize("architecture", ["mobilenetv3_small_050", "tf_mobilenetv3_small_075"])
def test_timm_folder(architecture: str, references: Any, parity: Any, tmp_path: Path) -> None:
    """The prefix tf_ means another padding and epsilon, which no tensor shows."""
    timm = references.timm
    model = parity.randomise(timm.create_model(architecture, num_classes=CLASSES))
    timm.models._hub.save_for_hf(model, tmp_path, model_config={"label_names": list("abcde")})
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == architecture
    name = f"mobilenet_v3_small_{architecture[-3:]}"
    network = create_model(name, num_classes=CLASSES, weights=f"{tmp_path}/").eval()
    assert parity.relative_error(network, model) <= parity.tolerance
    assert network.arguments["same_padding"] is architecture.startswith("tf_")
    expected = timm.data.resolve_data_config({}, model=model)
    assert network.preprocessing.crop_fraction == expected["crop_pct"]
    assert network.preprocessing.mean == pytest.approx(expected["mean"])
    assert network.preprocessing.interpolation == expected["interpolation"]


# --- TensorFlow.js, and the same by Keras' names


def test_real_weights_of_a_browser(shared: Any) -> None:
    folder = shared("weights/mobilenet_v1_0.25_224")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = [
        create_model("mobilenet_v1_025", weights=str(path)).eval()(images)
        for path in (folder / "tfjs", folder / "mobilenet_v1_0.25_224_imagenet_keras.npz")
    ]
    assert torch.equal(*logits)
