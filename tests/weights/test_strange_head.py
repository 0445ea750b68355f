"""The classifier of somebody else's fine-tuning, whatever it is called."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinue.errors import RetinueError
from retinue.models.registry import create_model
from retinue.weights.layout import layouts, untranslate

CLASSES = 3
NAME = "mobilenet_v1_025"


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def _wrapped(keras: Any, how: str, *head: Any) -> Any:
    """A backbone of Keras Applications' with a head of one's own."""
    layers = keras.layers
    backbone = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, include_top=False, weights=None
    )
    tail = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), *head]
    if how == "sequential":
        return keras.Sequential([keras.Input((32, 32, 3)), backbone, *tail])
    start = keras.Input((32, 32, 3))
    x = backbone.output if how == "flat" else backbone(layers.RandomFlip()(start), training=False)
    for layer in tail:
        x = layer(x)
    return keras.Model(backbone.input if how == "flat" else start, x)


@pytest.mark.parametrize("how", ["functional", "sequential", "flat"])
def test_a_fine_tuned_keras_model_is_loaded_whole(
    keras: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    model = _wrapped(keras, how, keras.layers.Dense(CLASSES, activation="softmax", name="flowers"))
    generator = np.random.default_rng(0)
    model.set_weights(
        [
            generator.uniform(0.5, 1.5, w.shape) * (w.ndim < 2)
            + 0.1 * generator.standard_normal(w.shape) * (w.ndim > 1)
            for w in model.get_weights()
        ]
    )
    images = generator.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    theirs = torch.as_tensor(np.asarray(model.predict(images, verbose=0))).log()
    for suffix in (".keras", ".h5", ".weights.h5"):
        path = tmp_path / f"model{suffix}"
        (model.save_weights if suffix == ".weights.h5" else model.save)(path)
        caplog.clear()
        with caplog.at_level(logging.INFO, "retinue"):
            network = create_model(NAME, num_classes=CLASSES, weights=path).eval()
        assert "its layer 'flowers' (256 → 3) is taken for the classifier" in caplog.text
        assert ("'flowers' ends in a softmax" in caplog.text) == (suffix != ".weights.h5")
        with torch.no_grad():
            ours = network(torch.from_numpy(images).permute(0, 3, 1, 2)).log_softmax(1)
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_of_several_layers_none_is_guessed(keras: Any, tmp_path: Path) -> None:
    dense = keras.layers.Dense
    path = tmp_path / "model.keras"
    _wrapped(keras, "functional", dense(16, name="a"), dense(CLASSES, "sigmoid", name="b")).save(
        path
    )
    with pytest.raises(RetinueError) as raised:
        create_model(NAME, num_classes=CLASSES, weights=path)
    message = str(raised.value)
    assert "its own head is of several layers" in message
    assert "'a' (256 → 16)" in message
    assert "'b' (16 → 3)" in message
    assert "'b' ends in a sigmoid: it was trained for classes that do not exclude" in message
    network = create_model(NAME, num_classes=CLASSES, weights=path, partial_weights=True)
    assert network.arguments["num_classes"] == CLASSES


def _torchvision(prefix: str = "") -> dict[str, torch.Tensor]:
    """A state dict of torchvision's resnet18 without its head, every name after `prefix`."""
    layout = next(x for x in layouts("resnet") if x.source == "torchvision")
    theirs = untranslate(layout, create_model("resnet18").state_dict())
    return {f"{prefix}{k}": v for k, v in theirs.items() if not k.startswith("fc.")}


WEIGHT, BIAS = torch.randn(CLASSES, 512), torch.randn(CLASSES)


@pytest.mark.parametrize(
    ("prefix", "key"),
    [("", "classifier"), ("", "fc.1"), ("backbone.", "head"), ("encoder.", "classifier.0"),
     ("model.backbone.", "model.head"), ("0.", "1"), ("trunk.", "trunk.out")],
)  # fmt: skip
def test_so_is_a_linear_layer_of_pytorchs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str, key: str
) -> None:
    state = _torchvision(prefix) | {f"{key}.weight": WEIGHT, f"{key}.bias": BIAS}
    torch.save(state, tmp_path / "model.pth")
    network = create_model("resnet18", num_classes=CLASSES, weights=tmp_path / "model.pth")
    assert torch.equal(network.get_parameter("head.fc.weight"), WEIGHT)
    assert torch.equal(network.get_parameter("head.fc.bias"), BIAS)
    assert "(512 → 3) is taken for the classifier" in caplog.text


def test_one_without_a_bias_adds_nothing(tmp_path: Path) -> None:
    torch.save(_torchvision() | {"head.weight": WEIGHT}, tmp_path / "model.pth")
    network = create_model("resnet18", num_classes=CLASSES, weights=tmp_path / "model.pth")
    assert torch.equal(network.get_parameter("head.fc.weight"), WEIGHT)
    assert torch.count_nonzero(network.get_parameter("head.fc.bias")) == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"a.weight": torch.zeros(9, 512), "b.weight": torch.zeros(3, 9)}, "several layers"),
        ({"a.weight": torch.zeros(3, 100)}, "does not fit ours, which takes 512 inputs"),
        ({"a.weight": WEIGHT, "conv9.weight": torch.zeros(3, 3, 1, 1)}, "unexpected: a.weight"),
        ({"a.weight": WEIGHT, "fc.weight": WEIGHT, "fc.bias": BIAS}, "unexpected: a.weight"),
    ],
)
def test_what_is_not_clear_is_refused_by_name(
    tmp_path: Path, more: dict[str, torch.Tensor], words: str
) -> None:
    torch.save(_torchvision() | more, tmp_path / "model.pth")
    with pytest.raises(RetinueError, match=words):
        create_model("resnet18", num_classes=CLASSES, weights=tmp_path / "model.pth")


def test_another_number_of_classes_is_drawn_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(_torchvision() | {"x.weight": WEIGHT, "x.bias": BIAS}, tmp_path / "model.pth")
    create_model("resnet18", num_classes=7, weights=tmp_path / "model.pth")
    assert "re-initialised: head.fc.weight, head.fc.bias" in caplog.text
    assert "'x' (512 → 3)" in caplog.text
