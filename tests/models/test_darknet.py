"""Networks that a `.cfg` describes, and descriptions that are wrong."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retinue import modelfile
from retinue.errors import RetinueError, UsageError
from retinue.modelfile import ModelDescription
from retinue.models.darknet import EXAMPLE, read_darknet
from retinue.models.darknet_cfg import MOST_SECTIONS, parse
from retinue.models.darknet_layers import Pool
from retinue.models.registry import create_model
from retinue.training.stage import first_to_learn


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


NET = "[net]\nwidth=64\nheight=64\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
LAST = "[convolutional]\nfilters=18\nsize=1\nactivation=linear\n"
YOLO = "[yolo]\nmask=0,1,2\nanchors=1,2,3,4,5,6\nclasses=1\nnum=3\n"


def build(*sections, **arguments):
    return create_model("darknet", cfg=NET + "".join(sections), **arguments)


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


@pytest.mark.parametrize("size", [2, 3, 5, 13])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [7, 8, 13])
def test_pooling_as_darknet_does_it(size, stride, side):
    """Its loops: windows begin at −⌊(size − 1) / 2⌋, and what lies outside is never the maximum."""
    x = torch.randn(1, 2, side, side)
    padding = size - 1
    out = (side + padding - size) // stride + 1
    expected = torch.empty(1, 2, out, out)
    for i in range(out):
        for j in range(out):
            top, left = i * stride - padding // 2, j * stride - padding // 2
            window = x[:, :, max(top, 0) : top + size, max(left, 0) : left + size]
            expected[:, :, i, j] = window.amax((2, 3))
    assert torch.equal(Pool(size, stride, padding).compute(x), expected)


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


def test_as_people_write_them():
    text = "\ufeff" + (NET + "[conv]\nfilters = 18 # all\n\n; old\nactivation=linear\n" + YOLO)
    text = text.replace("\n", "\r\n").replace("1,2,3", "1, 2,  3")
    network = create_model("darknet", cfg=text)
    assert network.anchors == (((1, 2), (3, 4), (5, 6)),)
    assert network.strides == (1,)


WRONG = {
    "no layers": ((), "there are no layers"),
    "no yolo": ((CONV,), "no \\[yolo\\] layer"),
    "a layer that nobody knows": (("[convolution]\n",), "line 4, .convolution., did you mean"),
    "a key that nobody knows": ((CONV + "stirde=2\n",), "no key 'stirde'.*line 11.*did you mean"),
    "net twice": ((NET,), "stands first.*line 4"),
    "no number": ((CONV + "groups=two\n",), "groups is a whole number from 1 on, not 'two'"),
    "a number out of bounds": ((CONV.replace("=4", "=999999999"),), "filters is .* line 6"),
    "said twice": ((CONV + "size=5\n",), "size is 3 in line 7, and 5 here.*line 11"),
    "no key=value": ((CONV + "what is this\n",), "neither a section nor key=value: 'what is this'"),
    "another activation": ((CONV.replace("leaky", "leeky"),), "'leeky'.*line 10.*mean 'leaky'"),
    "groups that do not divide": ((CONV + "groups=3\n",), "3 groups of 3 channels to 4 filters"),
    "a route to nowhere": ((CONV, "[route]\nlayers=-2\n"), "no layer -1 before layer 1"),
    "a route ahead": ((CONV, "[route]\nlayers=5\n"), "no layer 5 before layer 1"),
    "a route without layers": ((CONV, "[route]\n"), "there is no layers"),
    "maps of two sizes": ((CONV, CONV, "[route]\nlayers=0,1\n"), "32 × 32 and layer 1 16 × 16"),
    "a group too many": ((CONV, "[route]\nlayers=0\ngroups=2\ngroup_id=2\n"), "of 2 groups"),
    "groups of a route": ((CONV, "[route]\nlayers=0\ngroups=3\n"), "4 channels are not 3 equal"),
    "a sum of two widths": (
        (CONV, CONV.replace("=4", "=8").replace("stride=2", "stride=1"), "[shortcut]\nfrom=-2\n"),
        "maps of 8 and 4 channels",
    ),
    "weighted sums": ((CONV, "[shortcut]\nfrom=-1\nweights_type=per_feature\n"), "not supported"),
    "upsampled beyond the image": ((CONV, "[upsample]\nstride=4\n"), "stride 2 is not upsampled"),
    "filters of a yolo": ((LAST.replace("18", "20"), YOLO), "it is 3 · \\(1 \\+ 5\\) = 18"),
    "a normalised answer": (("[conv]\nfilters=18\nbatch_normalize=1\nactivation=linear\n", YOLO),
                            "a linear layer with a bias"),
    "a bent answer": (("[conv]\nfilters=18\n", YOLO), "a linear layer with a bias"),
    "a yolo after a pool": ((LAST, "[maxpool]\n", YOLO), "in front of .yolo. stands"),
    "anchors in halves": ((LAST, YOLO.replace(",5,6", ",5")), "5 numbers are not the anchors"),
    "an anchor of no width": (
        (LAST, YOLO.replace("=1,2,3,4", "=0,2,3,4")),
        "anchors is a number from 0.001 to 65536, not '0'",
    ),
    "more anchors than there are": ((LAST, YOLO.replace("num=3", "num=9")), "not the anchors"),
    "an anchor that is none": ((LAST, YOLO.replace("0,1,2", "0,1,3")), "no anchor 3"),
    "two kinds of classes": (
        (LAST, YOLO, LAST.replace("18", "21"), YOLO.replace("classes=1", "classes=2")),
        "other classes",
    ),
    "another decoding": ((LAST, YOLO + "new_coords=1\n"), "new_coords=1 is not supported"),
    "a window too large": ((CONV.replace("size=3", "size=99").replace("pad=1", "pad=0"),), "of 99"),
    "dropout of everything": (("[dropout]\nprobability=1\n",), "probability is a number from 0 to"),
    "more than memory": (
        (CONV.replace("=4", "=9999"), CONV.replace("=4", "=9999").replace("size=3", "size=5")),
        "line 11, .convolutional.|more than 1,000,000,000 parameters",
    ),
    "NaN": ((LAST, YOLO + "scale_x_y=nan\n"), "scale_x_y is a number"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_its_line(case):
    sections, said = WRONG[case]
    with pytest.raises(RetinueError, match=said) as caught:
        build(*sections)
    assert re.search(r"cfg line \d+", str(caught.value))


def test_what_is_no_description(tmp_path):
    for text, said in (
        ("\n", "no sections"),
        ("hello\nworld\n", "line 1"),
        ("x\n" * 10**6, "long"),
    ):
        with pytest.raises(RetinueError, match=said):
            create_model("darknet", cfg=text)
    with pytest.raises(RetinueError, match=r"65536 × 64 pixels are larger.*line 2, \[net\]"):
        create_model("darknet", cfg=NET.replace("width=64", "width=65536") + CONV)
    with pytest.raises(RetinueError, match="more than 2,000 layers"):
        parse(NET + "[dropout]\n" * (MOST_SECTIONS + 1))
    with pytest.raises(UsageError, match=r"no such file, .*nothing\.cfg"):
        create_model("darknet", cfg=str(tmp_path / "nothing.cfg"))
    with pytest.raises(UsageError, match="no such file"):
        create_model("darknet", cfg="")
    with pytest.raises(UsageError, match="no such file"):
        create_model("darknet", cfg=str(tmp_path))
    (tmp_path / "w.cfg").write_bytes(bytes(range(256)))
    with pytest.raises(RetinueError, match=r"w\.cfg"):
        create_model("darknet", cfg=str(tmp_path / "w.cfg"))
    (tmp_path / "bad.cfg").write_text(NET + "[what]\n")
    with pytest.raises(RetinueError, match=r"bad\.cfg line 4, \[what\]"):
        create_model("darknet", cfg=str(tmp_path / "bad.cfg"))


LINES = st.sampled_from([*EXAMPLE.splitlines(), "[", "=", "[net]", "stride=0", "mask=",
                         "layers=,", "anchors=,,", "size=-1", "from=0,0", "filters=70000",
                         "groups=0"])  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_but_our_errors(data):
    """Whatever lines are changed, left out or put in: it is built, or refused in words."""
    lines = EXAMPLE.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.lists(LINES, max_size=2))
        lines[at : at + data.draw(st.integers(0, 2))] = change
    said = ""
    try:
        with torch.device("meta"):
            network = create_model("darknet", cfg="\n".join(lines) + "\n").eval()
    except RetinueError as error:
        said = str(error)
    assert "Error" not in said  # of Python's, in other words
    if not said:
        levels = network(torch.empty(1, 3, *network.native_size, device="meta"))["levels"]
        assert len(levels) == len(network.strides)


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
    with pytest.raises(RetinueError, match=r"1 names, and the network has 4 classes, .*c\.names"):
        read_darknet(tmp_path / "n.cfg", names=tmp_path / "c.names")
