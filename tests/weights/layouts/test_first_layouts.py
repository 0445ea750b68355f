"""Key names of public checkpoints and ours, by known answers: ResNet, MobileNetV2, EfficientNet."""

from __future__ import annotations

import pytest
import torch

from retinue.models.registry import create_model
from retinue.weights.layout import layouts

KNOWN = {
    ("resnet101", "torchvision"): {
        "conv1.weight": "stem.conv.weight",
        "bn1.running_mean": "stem.norm.running_mean",
        "layer1.0.conv1.weight": "stages.0.0.conv1.conv.weight",
        "layer3.22.bn3.bias": "stages.2.22.conv3.norm.bias",
        "layer4.0.downsample.0.weight": "stages.3.0.shortcut.conv.weight",
        "layer4.0.downsample.1.num_batches_tracked": "stages.3.0.shortcut.norm.num_batches_tracked",
        "fc.bias": "head.fc.bias",
    },
    ("mobilenet_v2", "torchvision"): {
        "features.0.0.weight": "stem.conv.weight",
        "features.1.conv.0.0.weight": "stages.0.0.depthwise.conv.weight",
        "features.1.conv.0.1.bias": "stages.0.0.depthwise.norm.bias",
        "features.1.conv.1.weight": "stages.0.0.project.conv.weight",
        "features.1.conv.2.weight": "stages.0.0.project.norm.weight",
        "features.3.conv.0.0.weight": "stages.1.1.expand.conv.weight",
        "features.3.conv.1.1.bias": "stages.1.1.depthwise.norm.bias",
        "features.3.conv.2.weight": "stages.1.1.project.conv.weight",
        "features.3.conv.3.weight": "stages.1.1.project.norm.weight",
        "features.18.1.running_var": "top.norm.running_var",
        "classifier.1.weight": "head.fc.weight",
    },
    ("efficientnet_b3", "torchvision"): {
        "features.0.1.weight": "stem.norm.weight",
        "features.1.0.block.0.0.weight": "stages.0.0.depthwise.conv.weight",
        "features.1.0.block.1.fc1.weight": "stages.0.0.squeeze.reduce.weight",
        "features.1.0.block.2.1.bias": "stages.0.0.project.norm.bias",
        "features.6.3.block.0.0.weight": "stages.5.3.expand.conv.weight",
        "features.6.3.block.2.fc2.bias": "stages.5.3.squeeze.expand.bias",
        "features.6.3.block.3.0.weight": "stages.5.3.project.conv.weight",
        "features.8.0.weight": "top.conv.weight",
        "classifier.1.bias": "head.fc.bias",
    },
    ("efficientnet_b3", "timm"): {
        "conv_stem.weight": "stem.conv.weight",
        "bn1.weight": "stem.norm.weight",
        "blocks.0.1.conv_dw.weight": "stages.0.1.depthwise.conv.weight",
        "blocks.0.1.bn1.weight": "stages.0.1.depthwise.norm.weight",
        "blocks.0.1.conv_pw.weight": "stages.0.1.project.conv.weight",
        "blocks.0.1.bn2.weight": "stages.0.1.project.norm.weight",
        "blocks.2.0.conv_pw.weight": "stages.2.0.expand.conv.weight",
        "blocks.2.0.bn2.bias": "stages.2.0.depthwise.norm.bias",
        "blocks.2.0.se.conv_reduce.weight": "stages.2.0.squeeze.reduce.weight",
        "blocks.2.0.conv_pwl.weight": "stages.2.0.project.conv.weight",
        "blocks.2.0.bn3.bias": "stages.2.0.project.norm.bias",
        "conv_head.weight": "top.conv.weight",
        "bn2.running_var": "top.norm.running_var",
        "classifier.weight": "head.fc.weight",
    },
    ("efficientnet_b0", "efficientnet-pytorch"): {
        "_conv_stem.weight": "stem.conv.weight",
        "_blocks.0._bn1.weight": "stages.0.0.depthwise.norm.weight",
        "_blocks.2._project_conv.weight": "stages.1.1.project.conv.weight",
        "_blocks.3._se_reduce.bias": "stages.2.0.squeeze.reduce.bias",
        "_blocks.15._bn0.running_mean": "stages.6.0.expand.norm.running_mean",
        "_bn1.weight": "top.norm.weight",
        "_fc.bias": "head.fc.bias",
    },
}


@pytest.mark.parametrize(("name", "source"), list(KNOWN))
def test_known_names(name, source):
    with torch.device("meta"):
        network = create_model(name)
    family = type(network).__module__.rsplit(".", 1)[1]
    layout = next(x for x in layouts(family) if x.source == source)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    origins = layout.origins(shapes)
    for theirs, ours in KNOWN[name, source].items():
        assert origins[ours].keys == (theirs,)
