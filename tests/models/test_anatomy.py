"""Multiply-adds and receptive fields, read off the forward pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from retinue.errors import RetinueError
from retinue.models.anatomy import FieldTracer, anatomy, count_macs, on_meta
from retinue.models.blocks import SameConv2d, SqueezeExcite
from retinue.models.registry import create_model, find, list_models
from retinue.models.sizes import receptive_field

# network: receptive field and stride of the last unit before the head. Araujo et al., 2019, table
# 1, has AlexNet, VGG-16, MobileNetV1 and the ResNets (those with the stride on the 1×1
# convolution); the others follow by hand from the papers' tables.
LAST_STAGE = {
    "alexnet": (195, 32),
    "vgg16": (212, 32),
    "mobilenet_v1": (315, 32),
    "resnet50_v1": (483, 32),
    "resnet101_v1": (1027, 32),
    "resnet152_v1": (1507, 32),
    "resnet50": (427, 32),  # the stride on the 3×3: three of them a stage of finer stride
    "resnet18": (435, 32),
    "mobilenet_v2": (491, 32),
    "darknet53": (725, 32),
}


@pytest.mark.parametrize("name", LAST_STAGE)
def test_receptive_fields_of_the_literature(name, meta):
    row = anatomy(meta(name), find(name).preprocessing.size)[-2]
    assert (row.receptive_field, row.stride) == LAST_STAGE[name]


def test_googlenets_widest_branch():
    """Table 1 of the paper: of each Inception block the 5×5 branch."""
    stem = [(7, 2), (3, 2), (1, 1), (3, 1), (3, 2)]
    blocks = [(5, 1)] * 2 + [(3, 2)] + [(5, 1)] * 5 + [(3, 2)] + [(5, 1)] * 2
    with torch.device("meta"):
        network = create_model("googlenet_original")
    row = anatomy(network, (224, 224))[-2]
    assert (row.receptive_field, row.stride) == receptive_field(stem + blocks)


def test_stages_of_resnet50(meta):
    rows = anatomy(meta("resnet50"), (224, 224))
    assert [(r.name, r.units, r.output, r.receptive_field, r.stride) for r in rows] == [
        ("stem", 1, (64, 56, 56), 11, 4),
        ("stages.0", 3, (256, 56, 56), 35, 4),
        ("stages.1", 4, (512, 28, 28), 91, 8),
        ("stages.2", 6, (1024, 14, 14), 267, 16),
        ("stages.3", 3, (2048, 7, 7), 427, 32),
        ("head", 1, (1000,), None, None),
    ]
    assert rows[0].parameters == 64 * 3 * 49 + 2 * 64
    assert rows[0].macs == 112 * 112 * 64 * 3 * 49
    assert rows[-1].parameters == 2_049_000
    assert rows[-1].macs == 2_048_000


# the first of each family; all are counted in test_registry.py
FIRST = {find(n).family: n for n in reversed(list_models(kind="classifier"))}.values()


@pytest.mark.parametrize("name", FIRST)
def test_rows_add_up(name, meta):
    entry, network = find(name), meta(name)
    rows = anatomy(network, entry.preprocessing.size)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in network.parameters())
    assert sum(row.macs for row in rows) == entry.macs
    assert sum(row.units for row in rows) == len(network.units()) + 1
    assert rows[0].name == "stem"
    assert (rows[-1].name, rows[-1].output) == ("head", (1000,))
    strides = [row.stride for row in rows[:-1]]
    assert strides == sorted(strides)
    fields = [row.receptive_field or 10**9 for row in rows[:-1]]
    assert fields == sorted(fields)
    for level in network.feature_levels:
        assert level.stride in strides


def test_attention_sees_everything(meta):
    rows = {row.name: row for row in anatomy(meta("vit_base_patch16"), (224, 224))}
    assert (rows["stem"].receptive_field, rows["stem"].stride) == (16, 16)
    assert (rows["blocks"].receptive_field, rows["blocks"].stride) == (None, 16)
    assert rows["blocks"].output == (197, 768)
    assert rows["blocks"].units == 12
    # 12 blocks: q, k, v and the projection, 197 × 197 products twice, the two-layer perceptron
    macs = 197 * 768 * 768 * 4 + 2 * 197 * 197 * 768 + 197 * 768 * 3072 * 2
    assert rows["blocks"].macs == 12 * macs


# ------------------------------------------------------------------------------------ the tracer


def traced(function, *shape):
    with FieldTracer() as tracer, torch.no_grad():
        out = function(tracer.begin(torch.zeros(*(shape or (1, 3, 64, 64)), device="meta")))
        field = tracer.field(out)
    return field.height, field.width, *field.strides


def conv(kernel, stride=1, channels=3, **arguments):
    return nn.Conv2d(channels, channels, kernel, stride, device="meta", **arguments)


class Fork(nn.Module):
    """Branches of different reach, added, joined, and cut again."""

    def __init__(self):
        super().__init__()
        self.narrow, self.wide = conv(1, 2), conv(7, 2, padding=3)
        self.down = nn.MaxPool2d(3, 2, 1)

    def forward(self, x):
        joined = torch.cat([self.narrow(x), self.down(x)], 1)
        return joined.chunk(2, 1)[0] + self.wide(x)


ALL = float("inf")
KNOWN = {
    "kernel and stride": (conv(5, 2), (5, 5, 2, 2)),
    "dilation": (conv(3, dilation=4), (9, 9, 1, 1)),
    "not square": (conv((1, 7), (1, 2)), (1, 7, 1, 2)),
    "same padding": (SameConv2d(3, 3, 4, stride=2, device="meta"), (4, 4, 2, 2)),
    "average pooling": (nn.AvgPool2d(3), (3, 3, 3, 3)),
    "average pooling, ceil": (lambda x: F.avg_pool2d(x, 3, 2, 0, True), (3, 3, 2, 2)),
    "pooling with dilation": (nn.MaxPool2d(3, 2, dilation=2), (5, 5, 2, 2)),
    "branches": (Fork(), (7, 7, 2, 2)),
    "transposed": (nn.ConvTranspose2d(3, 3, 4, stride=2, device="meta"), (2, 2, 0.5, 0.5)),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), (1, 1, 0.5, 0.5)),
    "bilinear": (lambda x: F.interpolate(x, size=32, mode="bilinear"), (2, 2, 2, 2)),
    "every second": (lambda x: conv(3)(x)[:, :, 1:9], (3, 3, 1, 1)),
    "adaptive to windows": (nn.AdaptiveAvgPool2d(16), (4, 4, 4, 4)),
    "adaptive to one": (nn.AdaptiveAvgPool2d(1), (ALL, ALL, ALL, ALL)),
    "mean": (lambda x: x.mean((2, 3)), (ALL, ALL, ALL, ALL)),
    "mean of channels": (lambda x: x.mean(1, keepdim=True), (1, 1, 1, 1)),
    "flattened": (lambda x: x.flatten(1), (ALL, ALL, ALL, ALL)),
    "tokens": (lambda x: conv(8, 8)(x).flatten(2).transpose(1, 2), (8, 8, 8, 8)),
    "local response": (lambda x: F.local_response_norm(x, 5), (1, 1, 1, 1)),
    "after pooling": (lambda x: conv(1)(x.mean((2, 3), keepdim=True)), (ALL, ALL, ALL, ALL)),
    "in place": (lambda x: F.relu(conv(3)(x), inplace=True).add_(1), (3, 3, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize("case", KNOWN)
def test_known_layers(case):
    function, expected = KNOWN[case]
    assert traced(function) == expected


def test_the_gate_of_squeeze_excitation_is_not_counted():
    gate = SqueezeExcite(3, 2).to("meta")
    assert traced(lambda x: gate(conv(3)(x))) == (3, 3, 1, 1)


def test_what_is_unknown_is_said():
    with pytest.raises(RetinueError, match="how the function 'unfold' looks at its input"):
        traced(lambda x: F.unfold(x, 3))


def test_measured_by_derivatives():
    """All weights positive: a unit of MobileNetV1 changes with every pixel of its window."""
    network = create_model("mobilenet_v1", num_classes=2).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.05)
    image = torch.rand(1, 3, 96, 96, requires_grad=True)
    stop = 1 + next(i for i, unit in enumerate(network.units()) if unit.level == 3)
    out = network.run(image, stop=stop)
    (gradient,) = torch.autograd.grad(out[0, 0, 6, 6], image)
    seen = gradient[0].sum(0).nonzero()
    sides = (seen.max(0).values - seen.min(0).values + 1).tolist()
    rows = {row.stride: row for row in anatomy(network, (96, 96))}
    assert sides == [rows[8].receptive_field] * 2


# --------------------------------------------------------------------------------------- counting


def test_macs_of_single_layers():
    assert count_macs(nn.Conv2d(3, 8, 3, stride=2, bias=True), (9, 9)) == 16 * 8 * 27
    assert count_macs(nn.Conv2d(3, 6, 3, groups=3), (3, 3)) == 6 * 9
    assert count_macs(nn.ConvTranspose2d(3, 5, 4, stride=2), (6, 6)) == 36 * 3 * 5 * 16
    assert count_macs(nn.Sequential(nn.Flatten(), nn.Linear(48, 7)), (4, 4)) == 48 * 7
    assert count_macs(nn.BatchNorm2d(3), (4, 4)) == 0


class Queried(nn.Module):
    """A module that is called with a parameter, as the pooling by attention of SigLIP is."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(2, 12))
        self.inner = nn.Linear(12, 5)

    def forward(self, x):
        return self.inner(self.query) + x.mean()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_macs_where_a_module_is_called_with_a_parameter(device):
    network = Queried().to(device).eval()
    assert count_macs(network, (4, 4)) == 2 * 12 * 5
    assert network.query.requires_grad


def test_a_network_with_weights_is_left_alone():
    network = create_model("mobilenet_v2_035", num_classes=3, in_channels=1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    assert anatomy(network, (64, 64))[-1].output == (3,)
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    copied = on_meta(network)
    assert all(t.is_meta for t in copied.state_dict().values())
    assert not copied.training
    assert on_meta(copied) is copied
