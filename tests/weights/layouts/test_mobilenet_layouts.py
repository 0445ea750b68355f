"""Key names of the mobile families' public checkpoints and ours, by known answers."""

from __future__ import annotations

import logging

import pytest
import torch

from retinue.models.registry import create_model
from retinue.weights.layout import layouts, recognise, translate, untranslate

KNOWN = {
    ("mobilenet_v1", "timm"): {
        "conv_stem.weight": "stem.conv.weight",
        "bn1.running_var": "stem.norm.running_var",
        "blocks.0.0.conv_dw.weight": "stages.0.0.depthwise.conv.weight",
        "blocks.3.5.bn1.weight": "stages.3.5.depthwise.norm.weight",
        "blocks.4.1.conv_pw.weight": "stages.4.1.pointwise.conv.weight",
        "blocks.4.1.bn2.bias": "stages.4.1.pointwise.norm.bias",
        "classifier.weight": "head.fc.weight",
    },
    ("mobilenet_v1", "keras"): {
        "conv1/kernel": "stem.conv.weight",
        "conv1_bn/gamma": "stem.norm.weight",
        "conv_dw_1/depthwise_kernel": "stages.0.0.depthwise.conv.weight",
        "conv_dw_4_bn/moving_mean": "stages.2.0.depthwise.norm.running_mean",
        "conv_pw_11/kernel": "stages.3.5.pointwise.conv.weight",
        "conv_pw_13_bn/moving_variance": "stages.4.1.pointwise.norm.running_var",
        "conv_preds/bias": "head.fc.bias",
    },
    ("mobilenet_v1", "transformers"): {
        "mobilenet_v1.conv_stem.convolution.weight": "stem.conv.weight",
        "mobilenet_v1.conv_stem.normalization.bias": "stem.norm.bias",
        "mobilenet_v1.layer.0.convolution.weight": "stages.0.0.depthwise.conv.weight",
        "mobilenet_v1.layer.1.normalization.weight": "stages.0.0.pointwise.norm.weight",
        "mobilenet_v1.layer.24.convolution.weight": "stages.4.1.depthwise.conv.weight",
        "classifier.bias": "head.fc.bias",
    },
    ("mobilenet_v2", "keras"): {
        "Conv1/kernel": "stem.conv.weight",
        "bn_Conv1/beta": "stem.norm.bias",
        "expanded_conv_depthwise/depthwise_kernel": "stages.0.0.depthwise.conv.weight",
        "expanded_conv_project_BN/gamma": "stages.0.0.project.norm.weight",
        "block_1_expand/kernel": "stages.1.0.expand.conv.weight",
        "block_12_depthwise_BN/moving_mean": "stages.4.2.depthwise.norm.running_mean",
        "block_16_project/kernel": "stages.6.0.project.conv.weight",
        "Conv_1/kernel": "top.conv.weight",
        "Conv_1_bn/gamma": "top.norm.weight",
        "predictions/kernel": "head.fc.weight",
    },
    ("mobilenet_v2", "tf-keras"): {
        "Conv1/kernel": "stem.conv.weight",
        "block_16_project_BN/beta": "stages.6.0.project.norm.bias",
        "Logits/bias": "head.fc.bias",
    },
    ("mobilenet_v2", "transformers"): {
        "mobilenet_v2.conv_stem.first_conv.convolution.weight": "stem.conv.weight",
        "mobilenet_v2.conv_stem.conv_3x3.normalization.bias": "stages.0.0.depthwise.norm.bias",
        "mobilenet_v2.conv_stem.reduce_1x1.convolution.weight": "stages.0.0.project.conv.weight",
        "mobilenet_v2.layer.0.expand_1x1.convolution.weight": "stages.1.0.expand.conv.weight",
        "mobilenet_v2.layer.15.conv_3x3.convolution.weight": "stages.6.0.depthwise.conv.weight",
        "mobilenet_v2.conv_1x1.normalization.running_mean": "top.norm.running_mean",
        "classifier.weight": "head.fc.weight",
    },
    ("mobilenet_v3_large", "torchvision"): {
        "features.0.0.weight": "stem.conv.weight",
        "features.1.block.0.0.weight": "stages.0.0.depthwise.conv.weight",
        "features.1.block.1.1.weight": "stages.0.0.project.norm.weight",
        "features.4.block.0.0.weight": "stages.2.0.expand.conv.weight",
        "features.4.block.2.fc1.weight": "stages.2.0.squeeze.reduce.weight",
        "features.4.block.3.0.weight": "stages.2.0.project.conv.weight",
        "features.7.block.2.0.weight": "stages.3.0.project.conv.weight",
        "features.15.block.2.fc2.bias": "stages.5.2.squeeze.expand.bias",
        "features.16.1.running_var": "top.norm.running_var",
        "classifier.0.bias": "head.hidden.bias",
        "classifier.3.weight": "head.fc.weight",
    },
    ("mobilenet_v3_small", "torchvision"): {
        "features.1.block.1.fc2.weight": "stages.0.0.squeeze.expand.weight",
        "features.1.block.2.0.weight": "stages.0.0.project.conv.weight",
        "features.12.0.weight": "top.conv.weight",
    },
    ("mobilenet_v3_large", "timm"): {
        "conv_stem.weight": "stem.conv.weight",
        "blocks.0.0.conv_pw.weight": "stages.0.0.project.conv.weight",
        "blocks.5.2.conv_pwl.weight": "stages.5.2.project.conv.weight",
        "blocks.5.2.se.conv_expand.bias": "stages.5.2.squeeze.expand.bias",
        "blocks.6.0.conv.weight": "top.conv.weight",
        "blocks.6.0.bn1.bias": "top.norm.bias",
        "conv_head.weight": "head.hidden.weight",
        "conv_head.bias": "head.hidden.bias",
        "classifier.weight": "head.fc.weight",
    },
    ("mobilenet_v3_small", "keras"): {
        "conv/kernel": "stem.conv.weight",
        "conv_bn/gamma": "stem.norm.weight",
        "expanded_conv_depthwise/depthwise_kernel": "stages.0.0.depthwise.conv.weight",
        "expanded_conv_squeeze_excite_conv/kernel": "stages.0.0.squeeze.reduce.weight",
        "expanded_conv_3_squeeze_excite_conv_1/bias": "stages.2.0.squeeze.expand.bias",
        "expanded_conv_10_expand_bn/moving_mean": "stages.4.2.expand.norm.running_mean",
        "expanded_conv_10_project/kernel": "stages.4.2.project.conv.weight",
        "conv_1_bn/beta": "top.norm.bias",
        "conv_2/bias": "head.hidden.bias",
        "logits/kernel": "head.fc.weight",
    },
    ("mobilenet_v3_small", "tf-keras"): {
        "Conv/kernel": "stem.conv.weight",
        "Conv/BatchNorm/gamma": "stem.norm.weight",
        "expanded_conv/depthwise/depthwise_kernel": "stages.0.0.depthwise.conv.weight",
        "expanded_conv/squeeze_excite/Conv/kernel": "stages.0.0.squeeze.reduce.weight",
        "expanded_conv_3/squeeze_excite/Conv_1/bias": "stages.2.0.squeeze.expand.bias",
        "expanded_conv_10/project/BatchNorm/moving_variance": (
            "stages.4.2.project.norm.running_var"
        ),
        "Conv_1/BatchNorm/beta": "top.norm.bias",
        "Conv_2/kernel": "head.hidden.weight",
        "Logits/bias": "head.fc.bias",
    },
}
CASES = [*KNOWN, ("mobilenet_v2", "torchvision"), ("mobilenet_v2", "timm")]


def family_of(name):
    return name.removesuffix("_small").removesuffix("_large")


def layout_of(name, source):
    return next(x for x in layouts(family_of(name)) if x.source == source)


def drawn(name, **arguments):
    """A network's tensors, each with values of its own."""
    with torch.device("meta"):
        state = create_model(name, **arguments).state_dict()
    generator = torch.Generator().manual_seed(0)
    return {k: torch.rand(t.shape, generator=generator) for k, t in state.items()}


def shapes_of(tensors):
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


@pytest.mark.parametrize(("name", "source"), list(KNOWN))
def test_known_names(name, source):
    origins = layout_of(name, source).origins(shapes_of(drawn(name, num_classes=3)))
    for theirs, ours in KNOWN[name, source].items():
        assert origins[ours].keys == (theirs,)


@pytest.mark.parametrize(("name", "source"), CASES)
def test_there_and_back(name, source):
    tensors = drawn(name, num_classes=3)
    layout = layout_of(name, source)
    theirs = untranslate(layout, tensors)
    assert recognise(theirs, family_of(name)) is layout
    again = translate(layout, theirs, shapes_of(tensors))
    counters = {key for key in tensors if key.endswith("num_batches_tracked")}
    assert set(tensors) - counters <= set(again) <= set(tensors)  # Keras has no counters
    for key in again:
        assert torch.equal(again[key], tensors[key])


def test_keras_shapes():
    """Height, width, channels in, channels out; a dense kernel is in, out."""
    theirs = untranslate(layout_of("mobilenet_v3_small", "keras"), drawn("mobilenet_v3_small"))
    assert theirs["conv/kernel"].shape == (3, 3, 3, 16)
    assert theirs["expanded_conv_3_depthwise/depthwise_kernel"].shape == (5, 5, 96, 1)
    assert theirs["expanded_conv_3_project/kernel"].shape == (1, 1, 96, 40)
    timm = untranslate(layout_of("mobilenet_v3_small", "timm"), drawn("mobilenet_v3_small"))
    assert timm["conv_head.weight"].shape == (1024, 576, 1, 1)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_background_is_left_out(name, caplog):
    layout = layout_of(name, "transformers")
    published = drawn(name, num_classes=1001)
    theirs = untranslate(layout, published)
    assert theirs["classifier.weight"].shape[0] == 1001
    with caplog.at_level(logging.INFO, logger="retinue"):
        ours = translate(layout, theirs, shapes_of(drawn(name)))
    assert torch.equal(ours["head.fc.weight"], published["head.fc.weight"][1:])
    assert torch.equal(ours["head.fc.bias"], published["head.fc.bias"][1:])
    assert [record.message for record in caplog.records] == [
        "the first of the checkpoint's 1,001 classes, a background, is left out"
    ]
    # but not where 1,001 classes are asked for
    whole = translate(layout, theirs, shapes_of(published))
    assert torch.equal(whole["head.fc.weight"], published["head.fc.weight"])
