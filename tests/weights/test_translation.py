"""Key names of public checkpoints to ours: by known answers, and as a whole by their shapes."""

from __future__ import annotations

import pytest
import torch

from retinue.errors import RetinueError
from retinue.weights import translation
from retinue.weights.translation import SOURCES, recognise, rename


def state(*keys):
    return {key: torch.tensor(float(i)) for i, key in enumerate(keys)}


@pytest.mark.parametrize(
    ("translate", "pairs"),
    [
        (
            translation.from_torchvision_resnet,
            {
                "conv1.weight": "stem.conv.weight",
                "bn1.running_mean": "stem.norm.running_mean",
                "layer1.0.conv1.weight": "stages.0.0.conv1.conv.weight",
                "layer3.22.bn3.bias": "stages.2.22.conv3.norm.bias",
                "layer4.0.downsample.0.weight": "stages.3.0.shortcut.conv.weight",
                "layer4.0.downsample.1.num_batches_tracked": (
                    "stages.3.0.shortcut.norm.num_batches_tracked"
                ),
                "fc.bias": "head.fc.bias",
            },
        ),
        (
            translation.from_torchvision_mobilenet_v2,
            {
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
        ),
        (
            translation.from_torchvision_efficientnet,
            {
                "features.0.1.weight": "stem.norm.weight",
                "features.1.0.block.0.0.weight": "stages.0.0.depthwise.conv.weight",
                "features.1.0.block.1.fc1.weight": "stages.0.0.squeeze.reduce.weight",
                "features.1.0.block.2.1.bias": "stages.0.0.project.norm.bias",
                "features.6.11.block.0.0.weight": "stages.5.11.expand.conv.weight",
                "features.6.11.block.2.fc2.bias": "stages.5.11.squeeze.expand.bias",
                "features.6.11.block.3.0.weight": "stages.5.11.project.conv.weight",
                "features.8.0.weight": "top.conv.weight",
                "classifier.1.bias": "head.fc.bias",
            },
        ),
        (
            translation.from_timm_mobile,
            {
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
        ),
    ],
)
def test_known_names(translate, pairs):
    before = state(*pairs)
    after = translate(before)
    assert after == {ours: before[theirs] for theirs, ours in pairs.items()}


def test_numbered_blocks_find_their_stages():
    """A new width begins a new stage: 16 | 24 24 | 40."""
    names = ["_conv_stem.weight", "_bn0.weight", "_fc.bias"]
    before = state(*names)
    for i, width in enumerate((16, 24, 24, 40)):
        before[f"_blocks.{i}._project_conv.weight"] = torch.zeros(width, 1, 1, 1)
        before[f"_blocks.{i}._bn0.weight"] = torch.tensor(10.0 + i)
        before[f"_blocks.{i}._bn1.weight"] = torch.tensor(20.0 + i)
        before[f"_blocks.{i}._bn2.weight"] = torch.tensor(30.0 + i)
    after = translation.from_efficientnet_pytorch(before)
    for i, place in enumerate(("0.0", "1.0", "1.1", "2.0")):
        assert after[f"stages.{place}.project.conv.weight"].shape[0] == (16, 24, 24, 40)[i]
        for j, layer in enumerate(("expand", "depthwise", "project")):
            assert after[f"stages.{place}.{layer}.norm.weight"] == 10 * (j + 1) + i
    assert after["stem.norm.weight"] == before["_bn0.weight"]


def test_translation_leaves_its_input_alone():
    before = state("conv1.weight", "fc.bias")
    translation.from_torchvision_resnet(before)
    assert list(before) == ["conv1.weight", "fc.bias"]


def test_unmatched_names_stay_and_clashes_are_refused():
    renamed = rename(state("a.x", "b.x"), [(r"^a\.", "c.")])
    assert set(renamed) == {"c.x", "b.x"}
    with pytest.raises(RetinueError, match=r"two tensors of the weights become 'b\.x'"):
        rename(state("a.x", "b.x"), [(r"^a\.", "b.")])


def test_every_source_knows_itself_alone():
    for source in SOURCES:
        assert recognise(state(*source.keys)) is source


def test_unknown_source():
    with pytest.raises(RetinueError, match=r"unknown kind.*begin with what\.is\.this"):
        recognise(state("what.is.this"))
