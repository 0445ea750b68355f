"""GoogLeNet's key names in torchvision's checkpoints, by known answers."""

from __future__ import annotations

import pytest
import torch

from retinue.models.registry import create_model
from retinue.weights.layout import layouts, recognise, translate, untranslate

KNOWN = {
    "conv1.conv.weight": "stem.conv.weight",
    "conv1.bn.running_mean": "stem.norm.running_mean",
    "conv2.conv.weight": "stages.0.0.conv.weight",
    "conv3.bn.bias": "stages.0.1.norm.bias",
    "inception3a.branch1.conv.weight": "stages.1.0.conv1.conv.weight",
    "inception3b.branch2.0.conv.weight": "stages.1.1.conv3_reduce.conv.weight",
    "inception4a.branch2.1.bn.weight": "stages.2.0.conv3.norm.weight",
    "inception4d.branch3.0.conv.weight": "stages.2.3.conv5_reduce.conv.weight",
    "inception4e.branch3.1.bn.running_var": "stages.2.4.conv5.norm.running_var",
    "inception5b.branch4.1.conv.weight": "stages.3.1.pool_proj.conv.weight",
    "aux1.conv.conv.weight": "head.auxiliary.0.conv.conv.weight",
    "aux1.fc2.bias": "head.auxiliary.0.fc2.bias",
    "aux2.conv.bn.weight": "head.auxiliary.1.conv.norm.weight",
    "aux2.fc1.weight": "head.auxiliary.1.fc1.weight",
    "fc.weight": "head.fc.weight",
}


@pytest.mark.parametrize("auxiliary", [False, True])
def test_known_names_and_round_trip(auxiliary):
    (layout,) = layouts("googlenet")
    tensors = create_model("googlenet", num_classes=5, auxiliary=auxiliary).state_dict()
    theirs = untranslate(layout, tensors)
    assert len(theirs) == len(tensors)
    known = {t: o for t, o in KNOWN.items() if auxiliary or not t.startswith("aux")}
    assert all(torch.equal(theirs[name], tensors[ours]) for name, ours in known.items())
    assert any(name.startswith("aux") for name in theirs) == auxiliary
    assert recognise(theirs, "googlenet") is layout
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    back = translate(layout, theirs, shapes)
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in back)


def test_a_file_with_auxiliaries_for_a_network_without():
    (layout,) = layouts("googlenet")
    theirs = untranslate(layout, create_model("googlenet", auxiliary=True).state_dict())
    plain = create_model("googlenet").state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in plain.items()}
    assert set(translate(layout, theirs, shapes)) == set(plain)
