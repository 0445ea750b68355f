"""A share of the network's cost as what learns: one recipe means the late blocks of any network."""

from __future__ import annotations

import pytest
import tiny
import torch
from pydantic import ValidationError

from retinue.errors import UsageError
from retinue.models.anatomy import count_macs, unit_macs
from retinue.models.registry import create_model
from retinue.training.options import StageOptions
from retinue.training.stage import first_to_learn


@pytest.mark.parametrize(
    ("name", "share", "unit"),
    [
        ("tf_efficientnet_lite0", "25%", "stages.5.2"),
        ("tf_efficientnet_lite0", "13%", "stages.6.0"),
        ("resnet50", "20 %", "stages.3.0"),
        ("mobilenet_v2", "25%", "stages.5.1"),
    ],
)
def test_the_last_units_within_the_share(name: str, share: str, unit: str) -> None:
    with torch.device("meta"):
        network = create_model(name, num_classes=10)
    first = first_to_learn(network, share, "")
    assert network.units()[first].name == unit
    macs = unit_macs(network, network.preprocessing.size)
    allowed = float(share.strip(" %")) / 100 * sum(macs)
    assert sum(macs[first:]) <= allowed < sum(macs[first - 1 :])
    assert sum(macs) == count_macs(network, network.preprocessing.size)


def test_the_ends_of_the_scale() -> None:
    network = tiny.Tiny(num_classes=3)
    assert first_to_learn(network, "0.1%", "") == 3  # less than any unit: the head alone
    assert first_to_learn(network, "100%", "") == 0


@pytest.mark.parametrize("share", ["0%", "101%", "-5%", "many%", "%"])
def test_no_share(share: str) -> None:
    with pytest.raises(ValidationError, match="more than 0% and at most 100%"):
        StageOptions(trainable=share, epochs=1)


def test_counting_draws_nothing_and_leaves_the_network_alone() -> None:
    network = tiny.Tiny(num_classes=3).train()
    before = torch.get_rng_state()
    tensors = {k: v.clone() for k, v in network.state_dict().items()}
    first_to_learn(network, "50%", "")
    assert torch.equal(before, torch.get_rng_state())
    assert network.training
    assert all(torch.equal(v, tensors[k]) for k, v in network.state_dict().items())


def test_a_network_that_cannot_be_counted_is_named_a_unit_for() -> None:
    class Asks(tiny.Tiny):
        def __init__(self) -> None:
            super().__init__(num_classes=3)
            self.stem.register_forward_hook(lambda *a: float(a[2].sum()) and None)

    with pytest.raises(UsageError, match=r"cannot be counted .* name a unit"):
        first_to_learn(Asks(), "50%", "key stages.0.trainable")
