from __future__ import annotations

import pytest
import torch
from torch import nn

from retinue.training.ema import Ema


def test_known_values() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    ema = Ema(network, 0.25)
    network.weight.data.fill_(1.0)
    ema.update(network)  # decay min(0.25, 2/11)
    assert ema.shadow["weight"].item() == pytest.approx(9 / 11)
    ema.update(network)  # decay min(0.25, 3/12)
    assert ema.shadow["weight"].item() == pytest.approx(1 - 0.25 * 2 / 11)


def test_applied_puts_the_networks_own_weights_back_even_after_an_error() -> None:
    network = nn.BatchNorm1d(2)
    ema = Ema(network, 0.9)
    network.weight.data.fill_(5.0)

    def fail() -> None:
        with ema.applied(network):
            assert network.weight.tolist() == [1.0, 1.0]
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert network.weight.tolist() == [5.0, 5.0]


def test_a_state_dict_brings_everything_back() -> None:
    network = nn.BatchNorm1d(2)
    ema = Ema(network, 0.9)
    network.weight.data.fill_(5.0)
    ema.update(network)
    other = Ema(nn.BatchNorm1d(2), 0.9)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    assert torch.equal(other.shadow["weight"], ema.shadow["weight"])
