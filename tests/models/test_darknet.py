"""Networks that a `.cfg` describes, and descriptions that are wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from darknet_texts import LAST, YOLO, build
from torch import nn

from retinue import modelfile
from retinue.errors import RetinueError, UsageError
from retinue.modelfile import ModelDescription
from retinue.models.darknet import EXAMPLE, read_darknet
from retinue.models.registry import create_model
from retinue.training.stage import first_to_learn


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


def with_statistics(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


@torch.no_grad()
def test_the_example_by_hand():
    """Every kind of layer, computed plainly from the tensors by their names."""
    network = with_statistics(create_model("darknet"))
    state = network.state_dict()

    def conv(x, i, act, stride=1, groups=1):
        x = F.conv2d(x, state[f"layers.{i}.conv.weight"], None, stride, 1, 1, groups)
        mean, var = (state[f"layers.{i}.norm.running_{key}"] for key in ("mean", "var"))
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-6).sqrt()
        x = x * state[f"layers.{i}.norm.weight"][:, None, None]
        return act(x + state[f"layers.{i}.norm.bias"][:, None, None])

    def leaky(x):
        return torch.where(x < 0, 0.1 * x, x)

    x = torch.randn(2, 3, 96, 64)
    a0 = conv(x, 0, leaky, 2)
    a1 = conv(a0, 1, lambda v: v.clamp(0, 6), groups=8)
    a2 = a1 + a0
    a3 = conv(a2, 3, lambda v: v * (1 + v.exp()).log().tanh(), 2)
    a4 = F.max_pool2d(a3, 2)
    a5 = conv(a4, 5, lambda v: v / (1 + (-v).exp()), 2)
    a6 = F.max_pool2d(a5, 5, 1, 2)
    a7 = torch.cat([a6, a5], 1)
    coarse = F.conv2d(a7, state["layers.9.out.weight"], state["layers.9.out.bias"])
    # layer 11 goes back over yolo and its convolution, to the dropout
    a12 = a7.repeat_interleave(2, 2).repeat_interleave(2, 3)
    a14 = torch.cat([a4[:, 8:], a12], 1)
    fine = F.conv2d(a14, state["layers.15.out.weight"], state["layers.15.out.bias"])
    actual = network(x)["levels"]
    for ours, expected in zip(actual, (fine, coarse), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert network.strides == (8, 16)
    assert network.scale_xy == (1.05, 1.0)
    assert network.anchors[0] == ((10, 14), (23, 27), (37, 58))
    assert network.anchors[1] == ((45, 50), (60, 40), (80, 80))
    assert network.preprocessing.size == (96, 96)


@torch.no_grad()
def test_cut_anywhere():
    network = with_statistics(create_model("darknet"))
    x = torch.randn(1, 3, 96, 96)
    whole = network(x)["levels"]
    state = x
    for cut in network.cuts():
        again = network(state, start=cut)["levels"]
        assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
        if cut < len(network.units()):
            state = network.run(state, start=cut, stop=cut + 1)
    assert [m.shape[2] for m in state] == [12, 6]  # nothing but the answer is left


def test_gradient_reaches_every_parameter():
    network = create_model("darknet").train()
    levels = network(torch.randn(4, 3, 96, 96))["levels"]
    sum((m * torch.randn_like(m)).sum() for m in levels).backward()
    assert not [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_classes_as_wanted():
    network = create_model("darknet", num_classes=7)
    assert [network.get_submodule(name).out_channels for name in network.classifiers] == [36, 36]
    assert network.arguments["num_classes"] == 7
    assert create_model("darknet").arguments["num_classes"] == 4
    network.reset_head(1)
    assert network.eval()(torch.randn(1, 3, 96, 96))["levels"][0].shape[1] == 18
    again = create_model("darknet", **network.arguments)
    assert str(again) == str(network)


def test_one_file_is_the_model(tmp_path):
    """The description is within it: no path."""
    cfg = tmp_path / "my net.cfg"
    cfg.write_text(EXAMPLE, encoding="utf-16")
    network = with_statistics(create_model("darknet", cfg=str(cfg)))
    cfg.unlink()
    path = tmp_path / "m.safetensors"
    modelfile.write(
        path,
        network.state_dict(),
        ModelDescription(
            task="detection",
            classes=["a", "b", "c", "d"],
            network="darknet",
            arguments=dict(network.arguments),
            preprocessing=network.preprocessing.as_dict(),
        ),
    )
    description, tensors = modelfile.read(path)
    assert str(tmp_path) not in str(description.arguments)
    again = create_model("darknet", **description.arguments).eval()
    again.load_state_dict(tensors)
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        pairs = zip(again(x)["levels"], network(x)["levels"], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    other = create_model("darknet", weights=path, classes=["d", "e"])
    theirs = network.get_parameter("layers.9.out.weight").reshape(3, 9, -1)
    ours = other.get_parameter("layers.9.out.weight").reshape(3, 7, -1)
    assert torch.equal(ours[:, :5], theirs[:, :5])
    assert torch.equal(ours[:, 5], theirs[:, 8])


def original():
    """yolov3.cfg up to its first answer: DarkNet-53, five convolutions, the head."""

    def conv(filters, size, stride=1):
        return (f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\n"
                f"stride={stride}\npad=1\nactivation=leaky\n")  # fmt: skip

    sections = [conv(32, 3)]
    for width, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        sections.append(conv(width, 3, 2))
        sections += [conv(width // 2, 1), conv(width, 3), "[shortcut]\nfrom=-3\n"] * blocks
    sections += [conv(512, 1), conv(1024, 3)] * 3
    return [*sections, LAST, YOLO]


def test_where_the_neck_begins():
    """For `trainable: neck`; the trunk below it is computed once."""
    with torch.device("meta"):
        assert build(*original()).landmarks == {"neck": 75}
        assert create_model("darknet").landmarks == {"neck": 7}  # behind the pool at stride 1
        assert build(LAST, YOLO).landmarks == {"neck": 0}
        network = create_model("darknet")
    assert first_to_learn(network, "neck", "") == 7
    assert first_to_learn(network, "layers.9", "") == 9
    with pytest.raises(UsageError, match="no unit 'nek'"):
        first_to_learn(network, "nek", "")


def test_read_with_names(tmp_path):
    (tmp_path / "n.cfg").write_text(EXAMPLE)
    (tmp_path / "c.names").write_text("ant\nbee\n\n sea cow \ndog\n")
    network, classes = read_darknet(tmp_path / "n.cfg", names=tmp_path / "c.names")
    assert classes == ("ant", "bee", "sea cow", "dog")
    assert network.arguments["num_classes"] == 4
    assert read_darknet(tmp_path / "n.cfg").classes == ("class 0", "class 1", "class 2", "class 3")
    (tmp_path / "c.names").write_text("ant\n")
    with pytest.raises(RetinueError, match=r"1 name, and the network has 4 classes, .*c\.names"):
        read_darknet(tmp_path / "n.cfg", names=tmp_path / "c.names")
