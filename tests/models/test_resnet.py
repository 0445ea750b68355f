"""ResNet's two places for the stride, and the three forms of the ResNeXt block."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from retinue.errors import UsageError
from retinue.models.registry import create_model
from retinue.models.resnet import Bottleneck

GROUPS, D = 32, 4  # the paper's 32×4d


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


@torch.no_grad()
def random_block(*, stride, in_channels):
    block = Bottleneck(
        in_channels,
        64,
        stride=stride,
        drop_path=0.0,
        norm_eps=1e-5,
        groups=GROUPS,
        group_width=D,
    ).double()
    for parameter in block.parameters():
        parameter.uniform_(-0.5, 1.0)
    for name, buffer in block.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-1, 1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return block


def norm(x, layer, part=slice(None)):
    """Batch normalisation with some of a layer's channels."""
    statistics = layer.running_mean[part].clone(), layer.running_var[part].clone()
    return F.batch_norm(
        x, *statistics, layer.weight[part], layer.bias[part], training=layer.training
    )


def path(block, x, i, stride):
    """1×1 and 3×3 of the i-th path, `D` channels wide."""
    part = slice(i * D, (i + 1) * D)
    y = F.conv2d(x, block.conv1.conv.weight[part])
    y = norm(y, block.conv1.norm, part).relu()
    y = F.conv2d(y, block.conv2.conv.weight[part], stride=stride, padding=1)
    return norm(y, block.conv2.norm, part).relu(), part


def split_transform_add(block, x, stride):
    """Figure 3a: each path goes up to 256 channels by itself, and these are summed."""
    total = 0
    for i in range(GROUPS):
        y, part = path(block, x, i, stride)
        total = total + F.conv2d(y, block.conv3.conv.weight[:, part])
    return total


def split_concat(block, x, stride):
    """Figure 3b: the paths' outputs are joined, and one convolution leads up."""
    joined = torch.cat([path(block, x, i, stride)[0] for i in range(GROUPS)], dim=1)
    return F.conv2d(joined, block.conv3.conv.weight)


def beside_shortcut(block, x, branch, stride):
    shortcut = x
    if not isinstance(block.shortcut, nn.Identity):
        y = F.conv2d(x, block.shortcut.conv.weight, stride=stride)
        shortcut = norm(y, block.shortcut.norm)
    return (shortcut + norm(branch(block, x, stride), block.conv3.norm)).relu()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("stride", "in_channels"), [(1, 256), (2, 128)])
@torch.no_grad()
def test_three_forms_of_the_block_are_equal(stride, in_channels, training):
    block = random_block(stride=stride, in_channels=in_channels).train(training)
    x = torch.randn(3, in_channels, 9, 8, dtype=torch.float64)
    form_a = beside_shortcut(block, x, split_transform_add, stride)
    form_b = beside_shortcut(block, x, split_concat, stride)
    form_c = block(x)  # the grouped convolution
    assert form_c.shape == (3, 256, -(-9 // stride), 8 // stride)
    assert form_c.std() > 0.1
    torch.testing.assert_close(form_a, form_c, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(form_b, form_c, rtol=1e-10, atol=1e-10)
    # and the comparison sees a path that is taken for another
    weight = block.conv2.conv.weight
    weight[:D], weight[D : 2 * D] = weight[D : 2 * D].clone(), weight[:D].clone()
    assert (form_c - block(x)).abs().max() > 1e-3


def strides(block):
    return [getattr(block, f"conv{k}").conv.stride[0] for k in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("resnet50", {}, [1, 2, 1]),
        ("resnet50", {"stride_on": "1x1"}, [2, 1, 1]),
        ("resnet50_v1", {}, [2, 1, 1]),
        ("resnext50_32x4d", {}, [1, 2, 1]),
    ],
)
def test_place_of_the_stride(name, arguments, expected):
    with torch.device("meta"):
        stages = create_model(name, **arguments).stages
    for stage in stages[1:]:
        assert strides(stage[0]) == expected
        assert stage[0].shortcut.conv.stride == (2, 2)
        assert all(strides(block) == [1, 1, 1] for block in stage[1:])
    assert all(strides(block) == [1, 1, 1] for block in stages[0])


def test_epsilon_reaches_every_norm():
    with torch.device("meta"):
        for name in ("resnet18", "resnet50"):
            network = create_model(name, norm_eps=1.001e-5)
            norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
            assert {m.eps for m in norms} == {1.001e-5}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"stride_on": "1x1"}),
        ("resnet34", {"groups": 32, "group_width": 4}),
        ("resnet50", {"stride_on": "5x5"}),
    ],
)
def test_what_means_nothing_is_refused(name, arguments):
    with torch.device("meta"), pytest.raises(UsageError):
        create_model(name, **arguments)
