"""Class activation maps against the papers' formulas, written down again, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from predictors import randomise
from squares import predictor

from retinue.explaining.activation import activation, gradcam_plus_plus, scorecam
from retinue.explaining.looking import Look
from retinue.models.network import Network

CLASSES = ("a", "b", "c")


@pytest.fixture(params=range(3))
def look(request: pytest.FixtureRequest) -> Look:
    network: Network = tiny.Tiny(num_classes=3).eval()
    randomise(network)
    member = predictor(network=network, classes=CLASSES).members[0]
    generator = torch.Generator().manual_seed(request.param)
    inputs = torch.randn(1, 3, 40, 32, generator=generator)
    return Look(network, member.task, inputs, request.param)


def test_gradcam_plus_plus_by_derivatives_of_the_exponential(look: Look) -> None:
    """Equation 10 with Y = exp(S): the second and third derivative by each place of a map alone are
    those of the exponential, since S is linear in the map behind the last convolution."""
    value, gradient = (x.double().numpy() for x in activation(look))
    y = 1.7  # any value of exp(S) scales the weights, and not the map
    channels, rows, columns = value.shape
    weights = np.zeros(channels)
    for k in range(channels):
        for i in range(rows):
            for j in range(columns):
                first = y * gradient[k, i, j]
                second = y * gradient[k, i, j] ** 2
                third = y * gradient[k, i, j] ** 3
                below = 2 * second + sum(
                    value[k, a, b] * third for a in range(rows) for b in range(columns)
                )
                alpha = second / below if below else 0.0
                weights[k] += alpha * max(first, 0.0)
    wanted = np.maximum(np.tensordot(weights, value, 1), 0)
    found = gradcam_plus_plus(look)
    assert wanted.max() > 0
    np.testing.assert_allclose(found / found.max(), wanted / wanted.max(), rtol=1e-4, atol=1e-6)


def test_scorecam_channel_by_channel(look: Look) -> None:
    """Algorithm 1."""
    with torch.no_grad():
        value = look.network.features(look.inputs)[-1]
        bare = look.network(torch.zeros_like(look.inputs))[0, look.of]
        rises, kept = [], []
        for k in range(value.shape[1]):
            one = F.interpolate(value[:, k : k + 1], look.size, mode="bilinear")
            low, high = value[0, k].min(), value[0, k].max()
            if low == high:
                continue
            mask = (one - low) / (high - low)
            rises.append(look.network(look.inputs * mask)[0, look.of] - bare)
            kept.append(k)
        shares = torch.stack(rises).double().softmax(0)
        wanted = sum(share * value[0, k] for share, k in zip(shares, kept, strict=True))
    assert isinstance(wanted, torch.Tensor)
    np.testing.assert_allclose(scorecam(look), wanted.clamp(min=0).numpy(), rtol=1e-3, atol=1e-5)
