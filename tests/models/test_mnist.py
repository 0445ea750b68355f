"""The network of the MNIST quick-starts."""

from __future__ import annotations

import pytest
import torch

from retinue.errors import UsageError
from retinue.models.registry import create_model


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


def test_parameters_of_the_quick_start():
    network = create_model("mnist_cnn", in_channels=1, num_classes=10).eval()
    counts = {name: p.numel() for name, p in network.named_parameters()}
    assert counts == {
        "stem.conv.weight": 32 * 9,
        "stem.conv.bias": 32,
        "head.fc1.weight": 128 * 26 * 26 * 32,
        "head.fc1.bias": 128,
        "head.fc.weight": 10 * 128,
        "head.fc.bias": 10,
    }
    assert sum(counts.values()) == 2_770_634
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@torch.no_grad()
def test_step_by_step():
    network = create_model("mnist_cnn", in_channels=1, num_classes=3, image_size=4).eval()
    image = torch.rand(1, 1, 4, 4)
    conv, head = network.stem.conv, network.head
    features = []
    for channel in range(32):
        for y in (0, 1):
            for x in (0, 1):
                window = image[0, 0, y : y + 3, x : x + 3]
                value = (window * conv.weight[channel, 0]).sum() + conv.bias[channel]
                features.append(max(value.item(), 0.0))
    hidden = (head.fc1.weight @ torch.tensor(features) + head.fc1.bias).clamp(min=0)
    expected = head.fc.weight @ hidden + head.fc.bias
    torch.testing.assert_close(network(image)[0], expected)


def test_other_sizes_are_built_for_and_others_refused():
    network = create_model("mnist_cnn", num_classes=10, image_size=32).eval()
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(UsageError, match=r"takes images of 32 × 32 .* not 28 × 28.*image_size=28"):
        network(torch.rand(2, 3, 28, 28))
    with pytest.raises(UsageError, match=r"not 32 × 31$"):
        network(torch.rand(2, 3, 32, 31))
    with pytest.raises(UsageError, match="image_size must be at least 3, not 2"):
        create_model("mnist_cnn", image_size=2)


def test_it_learns_where_the_bright_corner_is():
    network = create_model("mnist_cnn", in_channels=1, num_classes=4, image_size=8).train()
    corners = [(0, 0), (0, 7), (7, 0), (7, 7)]
    images = 0.2 * torch.rand(4, 1, 8, 8)
    for image, (y, x) in zip(images, corners, strict=True):
        image[0, y, x] = 1.0
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(network(images)["logits"], torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert network.eval()(images).argmax(1).tolist() == [0, 1, 2, 3]
