"""ResNet's and ResNeXt's key names in other libraries' checkpoints, by known answers."""

from __future__ import annotations

import pytest
import torch

from retinue.errors import RetinueError
from retinue.models.registry import create_model
from retinue.weights.layout import layouts, recognise, translate, untranslate


def layout(source, number=0):
    return [x for x in layouts("resnet") if x.source == source][number]


def shapes_of(tensors):
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


TRANSFORMERS_50 = {
    "resnet.embedder.embedder.convolution.weight": "stem.conv.weight",
    "resnet.embedder.embedder.normalization.running_var": "stem.norm.running_var",
    "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight": "stages.0.0.conv1.conv.weight",
    "resnet.encoder.stages.2.layers.5.layer.1.normalization.bias": "stages.2.5.conv2.norm.bias",
    "resnet.encoder.stages.3.layers.0.layer.2.convolution.weight": "stages.3.0.conv3.conv.weight",
    "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight": (
        "stages.1.0.shortcut.conv.weight"
    ),
    "resnet.encoder.stages.1.layers.0.shortcut.normalization.num_batches_tracked": (
        "stages.1.0.shortcut.norm.num_batches_tracked"
    ),
    "classifier.1.bias": "head.fc.bias",
}
TRANSFORMERS_18 = {
    "resnet.encoder.stages.3.layers.1.layer.1.convolution.weight": "stages.3.1.conv2.conv.weight",
}
TORCHVISION = {
    "layer1.0.conv2.weight": "stages.0.0.conv2.conv.weight",
    "layer3.5.bn3.running_mean": "stages.2.5.conv3.norm.running_mean",
    "layer4.0.downsample.1.bias": "stages.3.0.shortcut.norm.bias",
    "fc.weight": "head.fc.weight",
}


@pytest.mark.parametrize(
    ("name", "source", "known"),
    [
        ("resnet50", "transformers", TRANSFORMERS_50),
        ("resnet18", "transformers", TRANSFORMERS_18),
        ("resnext50_32x4d", "torchvision", TORCHVISION),
        ("resnext50_32x4d", "timm", TORCHVISION),
    ],
)
def test_known_names_and_round_trip(name, source, known):
    tensors = create_model(name, num_classes=5).state_dict()
    theirs = untranslate(layout(source), tensors)
    assert len(theirs) == len(tensors)
    assert all(torch.equal(theirs[key], tensors[ours]) for key, ours in known.items())
    back = translate(layout(source), theirs, shapes_of(tensors))
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in back)


def test_a_backbone_of_transformers():
    tensors = create_model("resnet18", num_classes=5).state_dict()
    theirs = untranslate(layout("transformers"), tensors)
    bare = {k.removeprefix("resnet."): v for k, v in theirs.items() if "classifier" not in k}
    assert recognise(theirs, "resnet") is layout("transformers")
    assert recognise(bare, "resnet") is layout("transformers", 1)
    back = translate(layout("transformers", 1), bare, shapes_of(tensors))
    assert set(tensors) - set(back) == {"head.fc.weight", "head.fc.bias"}


KERAS = {
    "stem.conv.weight": "conv1_conv/kernel",
    "stem.norm.weight": "conv1_bn/gamma",
    "stages.0.0.shortcut.conv.weight": "conv2_block1_0_conv/kernel",
    "stages.0.0.shortcut.norm.running_var": "conv2_block1_0_bn/moving_variance",
    "stages.1.3.conv1.conv.weight": "conv3_block4_1_conv/kernel",
    "stages.3.2.conv3.norm.bias": "conv5_block3_3_bn/beta",
    "head.fc.weight": "predictions/kernel",
    "head.fc.bias": "predictions/bias",
}


def test_keras():
    """Names; biases folded into means; blue first in the first convolution; no way back."""
    with torch.device("meta"):
        shapes = shapes_of(create_model("resnet50", num_classes=5).state_dict())
    origins = layout("keras").origins(shapes)
    assert set(shapes) - set(origins) == {k for k in shapes if k.endswith("num_batches_tracked")}
    assert {ours: origins[ours].keys[0] for ours in KERAS} == KERAS
    mean = origins["stages.2.0.conv2.norm.running_mean"]
    assert mean.keys == ("conv4_block1_2_bn/moving_mean", "conv4_block1_2_conv/bias")
    assert mean.join(torch.tensor([5.0]), torch.tensor([2.0])) == 3
    kernel = torch.randn(7, 7, 3, 64)
    ours = origins["stem.conv.weight"].join(kernel)
    assert ours.shape == (64, 3, 7, 7)
    assert torch.equal(ours[5, 0], kernel[:, :, 2, 5])  # red is our first and their last channel
    inner = origins["stages.0.0.conv2.conv.weight"].join(kernel)
    assert torch.equal(inner[5, 0], kernel[:, :, 0, 5])
    with pytest.raises(RetinueError, match="not written"):
        untranslate(layout("keras"), create_model("resnet50", num_classes=5).state_dict())


def test_keras_preprocessing():
    """(x / 255 − mean) / std is what Keras calls "caffe": x minus ImageNet's means."""
    fields = layout("keras").preprocessing
    for mean, std, subtracted in zip(
        fields["mean"], fields["std"], (123.68, 116.779, 103.939), strict=True
    ):
        assert (200 / 255 - mean) / std == pytest.approx(200 - subtracted)
    assert layout("keras").arguments == {"stride_on": "1x1", "norm_eps": 1.001e-5}
