"""DarkNet-53's tensors by timm's names, and in the order of Darknet's own files."""

from __future__ import annotations

import struct

import pytest
import torch
from torch import nn

from retinue.errors import RetinueError
from retinue.models.registry import create_model
from retinue.weights import darknet
from retinue.weights.layout import layouts, recognise, translate, untranslate
from retinue.weights.loading import load_into

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


def layout_of(source):
    return next(layout for layout in layouts("darknet53") if layout.source == source)


def shapes_of(network):
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def test_timms_names_both_ways():
    layout = layout_of("timm")
    network = create_model("darknet53", num_classes=7)
    tensors = network.state_dict()
    origins = layout.origins(shapes_of(network))
    for theirs, ours in KNOWN.items():
        assert origins[ours].keys == (theirs,)
    theirs = untranslate(layout, tensors)
    assert len(theirs) == len(tensors)
    assert recognise(theirs, "darknet53") is layout
    back = translate(layout, theirs, shapes_of(network))
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in back)
    # timm computes with PyTorch's default slope, not the paper's
    assert dict(layout.arguments) == {"slope": 0.01}
    assert network.arguments["slope"] == 0.1


@torch.no_grad()
def write(network, *, version=(0, 2, 5), classifier=True):
    """The file that Darknet would write: modules as the forward pass comes upon them."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    parts = []
    for conv, norm in zip(convs, norms, strict=True):
        parts += [norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.weight]
    if classifier:
        parts += [network.head.fc.bias, network.head.fc.weight]
    header = struct.pack("<3i", *version)
    header += struct.pack("<q" if version[1] >= 2 else "<i", 32_013_312)
    return header + torch.cat([part.flatten() for part in parts]).numpy().tobytes()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = create_model("darknet53", num_classes=7).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.uniform_(0.5, 1.5)
    return network


def test_darknets_own_file(network):
    """Of an old release; of a newer one below."""
    state = darknet.read(write(network, version=(0, 1, 0)))
    layout = recognise(state, "darknet53")
    assert layout is layout_of("darknet")
    again = create_model("darknet53", num_classes=7, **layout.arguments).eval()
    assert load_into(again, translate(layout, state, shapes_of(again))).complete
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(x), network(x))
    with pytest.raises(RetinueError, match="are read, but not written"):
        untranslate(layout, again.state_dict())


def test_darknets_own_file_by_its_name(network, tmp_path):
    path = tmp_path / "darknet53.weights"
    path.write_bytes(write(network))
    again = create_model("darknet53", num_classes=7, weights=str(path)).eval()
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(x), network(x))
    # its images are not normalised
    assert again.preprocessing.mean == (0, 0, 0)
    assert again.preprocessing.std == (1, 1, 1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RetinueError, match=r"cut off.*darknet53\.weights"):
        create_model("darknet53", weights=str(path))


def test_darknets_file_without_the_classifier(network, tmp_path):
    """As `darknet53.conv.74`, which has this name and these bytes."""
    path = tmp_path / "darknet53.conv.74"
    path.write_bytes(write(network, classifier=False))
    assert path.stat().st_size == 162_482_580
    again = create_model("darknet53", num_classes=4, weights=path)
    ours, theirs = again.state_dict(), network.state_dict()
    trunk = [key for key in theirs if not key.startswith("head.fc")]
    assert all(torch.equal(ours[key], theirs[key]) for key in trunk)
    assert ours["head.fc.weight"].shape[0] == 4


def test_darknets_colours_come_to_a_network_of_one_channel(network, tmp_path):
    path = tmp_path / "darknet53.weights"
    path.write_bytes(write(network))
    grey = create_model("darknet53", num_classes=7, in_channels=1, weights=str(path)).eval()
    assert torch.allclose(grey.stem.conv.weight, network.stem.conv.weight.sum(1, keepdim=True))
    x = torch.rand(1, 1, 32, 32)
    assert torch.allclose(grey(x), network(x.expand(-1, 3, -1, -1)), atol=1e-4)


def test_what_is_no_file_of_darknet53_is_refused(network):
    data = write(network)
    for broken, reason in (
        (data[:10], "too short"),
        (data[:20], "cut off"),
        (data[:-3], "cut off"),
        (b"PK\3\4" + data[4:], "unknown version"),
    ):
        with pytest.raises(RetinueError, match=reason):
            darknet.read(broken)
    for other in (data[:-4], data[:10_000]):
        state = darknet.read(other)
        with pytest.raises(RetinueError, match="belong to another network"):
            translate(layout_of("darknet"), state, shapes_of(network))
