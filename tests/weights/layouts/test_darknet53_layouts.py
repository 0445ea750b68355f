"""DarkNet-53's tensors by timm's names."""

from __future__ import annotations

import torch

from retinue.models.registry import create_model
from retinue.weights.layout import layouts, recognise, translate, untranslate

KNOWN = {
    "stem.conv1.conv.weight": "stem.conv.weight",
    "stem.conv1.bn.running_mean": "stem.norm.running_mean",
    "stages.0.conv_down.conv.weight": "stages.0.0.conv.weight",
    "stages.0.blocks.0.conv1.conv.weight": "stages.0.1.conv1.conv.weight",
    "stages.2.conv_down.bn.weight": "stages.2.0.norm.weight",
    "stages.2.blocks.7.conv2.bn.bias": "stages.2.8.conv2.norm.bias",
    "stages.4.blocks.3.conv1.bn.running_var": "stages.4.4.conv1.norm.running_var",
    "head.fc.weight": "head.fc.weight",
}


def test_names_both_ways():
    (layout,) = layouts("darknet53")
    network = create_model("darknet53", num_classes=7)
    tensors = network.state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    origins = layout.origins(shapes)
    for theirs, ours in KNOWN.items():
        assert origins[ours].keys == (theirs,)
    theirs = untranslate(layout, tensors)
    assert len(theirs) == len(tensors)
    assert recognise(theirs, "darknet53") is layout
    back = translate(layout, theirs, shapes)
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in back)
    # timm computes with PyTorch's default slope, not the paper's
    assert dict(layout.arguments) == {"slope": 0.01}
    assert network.arguments["slope"] == 0.1
