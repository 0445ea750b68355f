"""Layers that Darknet has otherwise than others."""

from __future__ import annotations

import pytest
import torch

from retinue.models.darknet_layers import Pool


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


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
