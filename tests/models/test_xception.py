"""What is peculiar to Xception: its poolings, and the smallest image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retinue.errors import UsageError
from retinue.models.blocks import SameMaxPool2d
from retinue.models.registry import create_model


def test_same_max_pooling_by_hand():
    pool = SameMaxPool2d(3, stride=2)
    rising = torch.arange(1.0, 7.0)
    rows = torch.stack([rising, -rising])[None, :, None].expand(1, 2, 2, 6)
    # windows begin at 0, 2, 4; the last reaches a pixel beyond the border, which never wins
    assert pool(rows)[0, 0, 0].tolist() == [3, 5, 6]
    assert pool(rows)[0, 1, 0].tolist() == [-1, -3, -5]
    assert pool(rows[..., :5])[0, 0, 0].tolist() == [2, 4, 5]  # odd: one pixel on both sides
    assert pool(rows[..., :1]).shape == (1, 2, 1, 1)


@pytest.mark.parametrize(("side", "equal"), [(147, True), (74, False), (37, True), (19, True)])
def test_which_poolings_differ_at_the_native_size(side, equal):
    x = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    same, symmetric = SameMaxPool2d(3, stride=2)(x), nn.MaxPool2d(3, stride=2, padding=1)(x)
    assert same.shape == symmetric.shape
    assert torch.equal(same, symmetric) is equal


def test_the_native_size_has_these_sides():
    with torch.device("meta"):
        network = create_model("xception").eval()
        sides = [level.shape[-1] for level in network.features(torch.empty(1, 3, 299, 299))]
        assert network.stem(torch.empty(1, 3, 299, 299)).shape == (1, 64, 147, 147)
    assert sides == [74, 37, 19, 10]


@pytest.mark.parametrize("same_padding", [True, False])
def test_smallest_image(same_padding):
    network = create_model("xception", num_classes=2, same_padding=same_padding).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 7, 8)).shape == (1, 2)
    with pytest.raises(UsageError, match=r"6 × 9 pixels are too small.*7 × 7 or more"):
        network(torch.zeros(1, 3, 6, 9))
