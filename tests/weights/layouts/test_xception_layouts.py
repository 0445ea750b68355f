"""Xception's tensors by the names of Keras and timm."""

from __future__ import annotations

import pytest
import torch

from retinue.models.registry import create_model
from retinue.weights import keras
from retinue.weights.layout import layouts, recognise, translate, untranslate

KNOWN = {
    "keras": {
        "block1_conv1/kernel": "stem.conv1.conv.weight",
        "block1_conv2_bn/moving_mean": "stem.conv2.norm.running_mean",
        "conv2d/kernel": "stages.0.0.shortcut.conv.weight",
        "batch_normalization_3/gamma": "stages.3.0.shortcut.norm.weight",
        "block2_sepconv2/depthwise_kernel": "stages.0.0.convs.1.depthwise.weight",
        "block4_sepconv1/pointwise_kernel": "stages.2.0.convs.0.pointwise.weight",
        "block5_sepconv3_bn/beta": "stages.2.1.convs.2.norm.bias",
        "block12_sepconv1_bn/moving_variance": "stages.2.8.convs.0.norm.running_var",
        "block13_sepconv2/depthwise_kernel": "stages.3.0.convs.1.depthwise.weight",
        "block14_sepconv1/pointwise_kernel": "top.conv1.pointwise.weight",
        "block14_sepconv2_bn/gamma": "top.conv2.norm.weight",
        "predictions/bias": "head.fc.bias",
    },
    "timm": {
        "conv1.weight": "stem.conv1.conv.weight",
        "bn2.running_var": "stem.conv2.norm.running_var",
        "block1.rep.0.conv1.weight": "stages.0.0.convs.0.depthwise.weight",
        "block1.rep.3.pointwise.weight": "stages.0.0.convs.1.pointwise.weight",
        "block1.rep.4.bias": "stages.0.0.convs.1.norm.bias",
        "block2.rep.1.pointwise.weight": "stages.1.0.convs.0.pointwise.weight",
        "block3.skip.weight": "stages.2.0.shortcut.conv.weight",
        "block11.rep.7.conv1.weight": "stages.2.8.convs.2.depthwise.weight",
        "block11.rep.8.running_mean": "stages.2.8.convs.2.norm.running_mean",
        "block12.skipbn.weight": "stages.3.0.shortcut.norm.weight",
        "conv3.conv1.weight": "top.conv1.depthwise.weight",
        "bn4.num_batches_tracked": "top.conv2.norm.num_batches_tracked",
        "fc.weight": "head.fc.weight",
    },
}


@pytest.fixture(scope="module")
def tensors():
    """Of a network of 7 classes; no two of the same shape are equal."""
    return create_model("xception", num_classes=7).state_dict()


def shapes_of(state):
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def layout_of(source):
    return next(layout for layout in layouts("xception") if layout.source == source)


@pytest.mark.parametrize("source", list(KNOWN))
def test_known_names(source, tensors):
    origins = layout_of(source).origins(shapes_of(tensors))
    for theirs, ours in KNOWN[source].items():
        assert origins[ours].keys == (theirs,)


def test_keras_shapes(tensors):
    theirs = untranslate(layout_of("keras"), tensors)
    assert theirs["block1_conv2/kernel"].shape == (3, 3, 32, 64)
    assert theirs["block4_sepconv1/depthwise_kernel"].shape == (3, 3, 256, 1)
    assert theirs["block4_sepconv1/pointwise_kernel"].shape == (1, 1, 256, 728)
    assert theirs["conv2d_3/kernel"].shape == (1, 1, 728, 1024)
    assert theirs["predictions/kernel"].shape == (2048, 7)


@pytest.mark.parametrize("start", [0, 1, 9, 97])
def test_numbers_may_begin_anywhere(start, tensors):
    """As text, conv2d_10 is before conv2d_9; the number decides, not where it is in the file."""
    layout = layout_of("keras")
    theirs = untranslate(layout, tensors)
    shifted = {}
    for key in reversed(theirs):
        name, slash, variable = key.partition("/")
        for kind in ("conv2d", "batch_normalization"):
            if name == kind or name.startswith(kind + "_"):
                number = int(name.removeprefix(kind).lstrip("_") or 0) + start
                name = f"{kind}_{number}" if number else kind
        shifted[name + slash + variable] = theirs[key]
    read = keras.renumbered(shifted)
    assert recognise(read, "xception") is layout
    ours = translate(layout, read, shapes_of(tensors))
    assert set(ours) == {key for key in tensors if not key.endswith("num_batches_tracked")}
    assert all(torch.equal(ours[key], tensors[key]) for key in ours)


def test_arguments():
    assert dict(layout_of("keras").arguments) == {"same_padding": True, "norm_eps": 1e-3}
    assert dict(layout_of("timm").arguments) == {"same_padding": False, "norm_eps": 1e-5}
