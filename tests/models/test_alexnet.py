"""AlexNet's forms, by figures worked out by hand: the older ones have no reference to run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retinue.errors import UsageError
from retinue.models.alexnet import response_norm
from retinue.models.registry import create_model, find


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


def conv(inputs, outputs, kernel, groups=1):
    return outputs * (inputs // groups) * kernel * kernel + outputs


def linear(inputs, outputs):
    return outputs * inputs + outputs


def count(*, channels, groups, hidden):
    """Parameters of the five convolutions and the three linear layers."""
    a, b, c, d, e = channels
    convolutions = (
        conv(3, a, 11, groups[0])
        + conv(a, b, 5, groups[1])
        + conv(b, c, 3, groups[2])
        + conv(c, d, 3, groups[3])
        + conv(d, e, 3, groups[4])
    )
    wide, narrow = hidden
    return convolutions + linear(e * 36, wide) + linear(wide, narrow) + linear(narrow, 1000)


ONE_TOWER = (1, 1, 1, 1, 1)
BY_HAND = {
    "alexnet": (
        count(channels=(64, 192, 384, 256, 256), groups=ONE_TOWER, hidden=(4096, 4096)),
        61_100_840,
    ),
    "alexnet_original": (
        count(channels=(96, 256, 384, 384, 256), groups=(1, 2, 1, 2, 2), hidden=(4096, 4096)),
        60_965_224,
    ),
    "alexnet_half": (
        count(channels=(48, 128, 192, 192, 128), groups=ONE_TOWER, hidden=(2048, 2048)),
        17_472 + 153_728 + 221_376 + 331_968 + 221_312 + 9_439_232 + 4_196_352 + 2_049_000,
    ),
    "alexnet_half_1024_128": (
        count(channels=(48, 128, 192, 192, 128), groups=ONE_TOWER, hidden=(1024, 128)),
        17_472 + 153_728 + 221_376 + 331_968 + 221_312 + 4_719_616 + 131_200 + 129_000,
    ),
}


@pytest.mark.parametrize("name", list(BY_HAND))
def test_parameters(name, meta):
    by_formula, published = BY_HAND[name]
    built = sum(p.numel() for p in meta(name).parameters())
    assert built == by_formula == published == find(name).parameters


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [
        ("alexnet", 224, (64, 192, 384, 256, 256)),
        ("alexnet_original", 227, (96, 256, 384, 384, 256)),
        ("alexnet_half", 224, (48, 128, 192, 192, 128)),
    ],
)
def test_the_papers_maps(name, size, channels, meta):
    """55 × 55 before the first pooling, then 27, 13, 13, 13 and 6."""
    network = meta(name)
    assert find(name).preprocessing.size == (size, size)
    x = torch.empty(1, 3, size, size, device="meta")
    stem = network.stem
    assert stem.conv(stem.pad(x)).shape[2:] == (55, 55)
    for unit, width, side in zip(network.units(), channels, (27, 13, 13, 13, 6), strict=True):
        x = unit.module(x)
        assert x.shape[1:] == (width, side, side)


def test_response_norm_is_the_papers_formula():
    """Section 3.3, step by step: the sum (not the mean) over five neighbouring channels."""
    a = 30 * torch.randn(2, 7, 3, 4, dtype=torch.float64)
    expected = torch.empty_like(a)
    for i in range(7):
        total = torch.zeros_like(a[:, 0])
        for j in range(max(0, i - 2), min(6, i + 2) + 1):
            total += a[:, j] ** 2
        expected[:, i] = a[:, i] / (2 + 1e-4 * total) ** 0.75
    torch.testing.assert_close(response_norm()(a), expected)
    as_torch_means_it = torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)
    assert not torch.allclose(as_torch_means_it(a), expected, rtol=1e-2)


@torch.no_grad()
def test_original_is_two_towers_that_meet_at_the_third_convolution():
    """Figure 2, tower by tower, each with its own half of the channels, functions alone."""
    with torch.device("meta"):  # whose classifiers are large, and not needed
        network = create_model("alexnet_original").double().eval()
    for part in (network.stem, network.stages):
        part.to_empty(device="cpu")
        for parameter in part.parameters():  # no bias stays zero
            parameter.normal_(std=(2 / max(parameter[0].numel(), 2)) ** 0.5)
    x = torch.randn(2, 3, 131, 99, dtype=torch.float64)

    def half(tensor, tower):
        return tensor.chunk(2)[tower]

    def layer(maps, module, tower, **options):
        conv = module.conv
        return F.relu(F.conv2d(maps, half(conv.weight, tower), half(conv.bias, tower), **options))

    def normalised(both):
        squares = F.pad(torch.cat(both, 1) ** 2, (0, 0, 0, 0, 2, 2))
        total = sum(squares[:, k : k + both[0].shape[1] * 2] for k in range(5))
        whole = torch.cat(both, 1) / (2 + 1e-4 * total) ** 0.75
        return whole.chunk(2, 1)

    def pooled(both):
        return [F.max_pool2d(maps, 3, 2) for maps in both]

    conv2, (conv3, conv4, conv5) = network.stages[0][0], network.stages[1]
    both = pooled(normalised([layer(x, network.stem, t, stride=4) for t in (0, 1)]))
    both = pooled(normalised([layer(both[t], conv2, t, padding=2) for t in (0, 1)]))
    joined = torch.cat(both, 1)
    both = [layer(joined, conv3, t, padding=1) for t in (0, 1)]
    both = [layer(both[t], conv4, t, padding=1) for t in (0, 1)]
    both = pooled([layer(both[t], conv5, t, padding=1) for t in (0, 1)])
    torch.testing.assert_close(network.run(x), torch.cat(both, 1))


@torch.no_grad()
@pytest.mark.parametrize("name", ["alexnet_half", "alexnet_half_1024_128"])
def test_half_pads_one_at_the_top_and_left_two_at_the_bottom_and_right(name):
    """A single bright pixel is seen through the one tap of the kernel that lies over it."""
    with torch.device("meta"):
        stem = create_model(name).stem
    stem = stem.to_empty(device="cpu")
    kernel = torch.arange(1.0, 122.0).reshape(11, 11)
    stem.conv.weight.copy_(kernel.expand(48, 3, 11, 11))
    stem.conv.bias.zero_()

    def response(y, x):
        image = torch.zeros(1, 3, 224, 224)
        image[0, 1, y, x] = 1.0
        maps = stem.conv(stem.pad(image))
        assert maps.shape == (1, 48, 55, 55)
        return maps[0, 7]

    corner = response(0, 0)  # (1, 1) after padding, in the first window alone
    assert corner[0, 0] == kernel[1, 1]
    assert corner.count_nonzero() == 1
    inner = response(3, 10)  # (4, 11): in windows 0 and 1 down, 1 and 2 across
    assert inner[0, 1] == kernel[4, 7]
    assert inner[1, 2] == kernel[0, 3]
    assert inner.count_nonzero() == 4
    last = response(223, 223)  # (224, 224), with two zeros after it: the window that begins at 216
    assert last[54, 54] == kernel[8, 8]
    assert last.count_nonzero() == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", (0.5, 0.5, 0.0)),
        ("alexnet_original", (0.0, 0.5, 0.5)),
        ("alexnet_half", (0.2, 0.2, 0.0)),
        ("alexnet_half_1024_128", (0.2, 0.2, 0.0)),
    ],
)
def test_where_dropout_is(name, expected, meta):
    head = meta(name).head
    assert (head.drop6.p, head.drop7.p, head.dropout.p) == expected


@pytest.mark.parametrize(
    ("name", "least"), [("alexnet", 63), ("alexnet_original", 67), ("alexnet_half", 64)]
)
def test_smallest_images(name, least, meta):
    network = meta(name)
    assert network(torch.empty(1, 3, least, 200, device="meta")).shape == (1, 1000)
    with pytest.raises(UsageError, match=f"images of {least - 1} × 200 .* {least} × {least}"):
        network(torch.empty(1, 3, least - 1, 200, device="meta"))


@torch.no_grad()
def test_fresh_logits_depend_on_the_image():
    network = create_model("alexnet_half_1024_128", num_classes=10).eval()
    logits = network(torch.randn(8, 3, 128, 128))
    assert (logits - logits.mean(0)).std() > 1e-4
