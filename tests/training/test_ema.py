from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import tiny
import torch
from torch import Tensor, nn

from retinue.errors import RetinueError
from retinue.tasks.learner import Learner
from retinue.tasks.task import Objective
from retinue.training.ema import Ema
from retinue.training.options import StageOptions
from retinue.training.stage import freeze, train_mode


class TensorByTensor:
    """The same, over everything, a tensor at a time."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.shadow = {name: value.clone() for name, value in network.state_dict().items()}

    def update(self, network: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.shadow[name].lerp_(value, 1 - decay)
            else:
                self.shadow[name].copy_(value)


def steps(network: nn.Module, count: int, seed: int = 0) -> Iterator[int]:
    """Forward passes in the present mode, and a change of all that learns."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        network(torch.randn(4, 3, 32, 32, generator=generator))
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        yield number


def mode(network: tiny.Tiny, cut: int, *, batchnorm: bool = False) -> None:
    """Training mode as a stage sets it."""
    stage = StageOptions(epochs=1, frozen_batchnorm=batchnorm)
    train_mode(Learner(network, Objective()), cut, stage)


def frozen(cut: int, *, batchnorm: bool = False) -> tiny.Tiny:
    torch.manual_seed(0)
    network = tiny.Tiny(num_classes=3)
    freeze(network, cut)
    mode(network, cut, batchnorm=batchnorm)
    return network


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_known_values() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    ema = Ema(network, 0.25)
    network.weight.data.fill_(1.0)
    ema.update()  # decay min(0.25, 2/11)
    assert ema.shadow["weight"].item() == pytest.approx(9 / 11)
    ema.update()  # decay min(0.25, 3/12)
    assert ema.shadow["weight"].item() == pytest.approx(1 - 0.25 * 2 / 11)


@pytest.mark.parametrize(
    ("epochs", "of", "expected"),
    [
        (5, 3, [1, 2, 3, 3.5, 4]),  # until the third from the end the weights, then their mean
        (2, 3, [1, 1.5]),  # the start is not among them
        (3, 1, [1, 2, 3]),
    ],
)
def test_the_mean_of_the_last_epochs(epochs: int, of: int, expected: list[float]) -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(100.0)
    ema = Ema(network, 0.5, last_epochs=of)
    found = []
    for epoch in range(1, epochs + 1):
        for value in (50.0, float(epoch)):  # two steps
            network.weight.data.fill_(value)
            ema.update()
        ema.end_epoch(epoch, epochs - epoch)
        other = Ema(network, 0.5, last_epochs=of)  # taken up between
        other.load_state_dict(ema.state_dict())
        ema = other
        found.append(ema.shadow["weight"].item())
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([3, 3, 3, 4, 5], [1, 1.5, 2, 2.5, 3]),  # extended twice at its end: all are in the mean
        ([5, 5, 5, 5, 8, 8, 8, 8], [1, 2, 3, 3.5, 5, 6, 6.5, 7]),  # extended within the last
        ([9, 4, 4, 4], [1, 2, 2.5, 3]),  # shortened
    ],
)
def test_the_mean_is_plain_where_the_stage_gets_another_length(
    lengths: list[int], expected: list[float]
) -> None:
    """At the end of epoch n, of which there are `lengths[n - 1]` by then, the weight is n."""
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(100.0)
    ema = Ema(network, 0.5, last_epochs=3)
    found = []
    for epoch, length in enumerate(lengths, 1):
        other = Ema(network, 0.5, last_epochs=3)
        other.load_state_dict(ema.state_dict())
        ema = other
        network.weight.data.fill_(float(epoch))
        ema.update()
        ema.end_epoch(epoch, length - epoch)
        found.append(ema.shadow["weight"].item())
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("cut", [0, 2, 3])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_it_is_bit_for_bit_the_average_over_every_tensor(cut: int, batchnorm: bool) -> None:
    network = frozen(cut, batchnorm=batchnorm)
    network.eval()  # the mode is set after the average is built
    ema, slow = Ema(network, 0.9), TensorByTensor(network, 0.9)
    mode(network, cut, batchnorm=batchnorm)
    for _ in steps(network, 15):
        ema.update()
        slow.update(network)
    assert same(ema.shadow, slow.shadow)
    assert not same(ema.shadow, network.state_dict())


def test_only_what_changes_is_followed() -> None:
    network = frozen(2)
    ema = Ema(network, 0.9)
    for _ in steps(network, 1):
        ema.update()
    learns = {"last.0.weight", "last.0.bias", "last.1.weight", "last.1.bias"}
    statistics = {f"last.1.{name}" for name in ("running_mean", "running_var")}
    counters = {"last.1.num_batches_tracked"}
    head = {"head.fc.weight", "head.fc.bias"}
    assert set(ema.state_dict()) == learns | statistics | counters | head | {""}
    assert ema.shadow["stem.0.weight"].data_ptr() == network.stem[0].weight.data_ptr()


def test_applied_puts_the_networks_own_weights_back_even_after_an_error() -> None:
    network = nn.BatchNorm1d(2)
    ema = Ema(network, 0.9)
    network.weight.data.fill_(5.0)

    def fail() -> None:
        with ema.applied():
            assert network.weight.tolist() == [1.0, 1.0]
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert network.weight.tolist() == [5.0, 5.0]


def test_applied_is_the_shadow_and_leaves_both_as_they_were() -> None:
    network = frozen(1)
    ema = Ema(network, 0.9)
    for _ in steps(network, 3):
        ema.update()
    own, shadow = copy.deepcopy(network.state_dict()), copy.deepcopy(ema.shadow)
    addresses = [p.data_ptr() for p in network.parameters()]
    with ema.applied():
        assert same(network.state_dict(), shadow)
        assert same(ema.shadow, shadow)
        for buffer in network.last.buffers():  # as where processes take over each other's
            buffer.fill_(7)
    assert same(ema.shadow, shadow)
    assert [p.data_ptr() for p in network.parameters()] == addresses
    assert same(network.state_dict(), own)


def test_learning_goes_on_after_applied() -> None:
    """The optimiser's parameters are the network's, before, within and after."""
    network = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    ema = Ema(network, 0.5)
    with ema.applied():
        pass
    before = network.weight.clone()
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.allclose(network.weight, before - 0.1)
    assert torch.equal(ema.shadow["weight"], before)


def test_a_state_dict_brings_everything_back() -> None:
    network = nn.BatchNorm1d(2)
    ema = Ema(network, 0.9)
    network.weight.data.fill_(5.0)
    ema.update()
    other = Ema(nn.BatchNorm1d(2), 0.9)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    assert torch.equal(other.shadow["weight"], ema.shadow["weight"])


@pytest.mark.parametrize("at", [0, 1, 4])
def test_going_on_from_a_state_is_bit_for_bit_as_if_nothing_had_happened(at: int) -> None:
    network = frozen(2)
    ema = Ema(network, 0.9)
    resumed = frozen(2).eval()
    for number in steps(network, 6):
        if number == at:
            saved = copy.deepcopy(ema.state_dict())
            other = Ema(resumed, 0.9)
            other.load_state_dict(saved)
            # An evaluation may come before the next step.
            with other.applied():
                learnt = {k: v for k, v in resumed.state_dict().items() if k in saved}
                assert all(torch.equal(v, saved[k]) for k, v in learnt.items())
            mode(resumed, 2)
        if number >= at:
            resumed.load_state_dict(network.state_dict())
            other.update()
        ema.update()
    assert same(other.shadow, ema.shadow)
    assert set(other.state_dict()) == set(ema.state_dict())


def test_a_state_of_other_tensors_is_refused() -> None:
    ema = Ema(frozen(2), 0.9)
    with pytest.raises(RetinueError, match="another set of tensors"):
        ema.load_state_dict(Ema(frozen(1), 0.9).state_dict())
    with pytest.raises(RetinueError, match="another set of tensors"):
        ema.load_state_dict(Ema(nn.Linear(2, 1), 0.9).state_dict())


def test_a_tensor_under_two_names_is_averaged_once() -> None:
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    network[1].weight = network[0].weight
    network[0].weight.data.fill_(0.0)
    ema = Ema(network, 0.25)
    network[0].weight.data.fill_(1.0)
    ema.update()
    assert ema.shadow["0.weight"][0, 0].item() == pytest.approx(9 / 11)
    assert torch.equal(ema.shadow["1.weight"], ema.shadow["0.weight"])


def test_a_buffer_that_is_replaced_is_followed() -> None:
    class Centres(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("centres", torch.zeros(2))

        def forward(self) -> None:
            self.centres = self.centres + 1

    network = Centres()
    ema = Ema(network, 0.25)
    network()
    ema.update()
    assert ema.shadow["centres"].tolist() == pytest.approx([9 / 11] * 2)
    with ema.applied():
        assert network.centres.tolist() == pytest.approx([9 / 11] * 2)
    assert network.centres.tolist() == [1, 1]


def test_the_start_has_its_share_in_what_is_kept_and_none_in_the_average() -> None:
    """By hand: from 0, weights 8 and 16 with decays 2/11 and 1/4 average to
    1/4 · 9/11 · 8 + 3/4 · 16; after two updates a start of 0 with a half-life of one leaves three
    quarters of that."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = Ema(network, 0.9, start_half_life=1)
    assert ema.start_share == 1
    for value in (8.0, 16.0):
        nn.init.constant_(network.weight, value)
        ema.update()
    average = 0.25 * (9 / 11) * 8 + 0.75 * 16
    assert ema.state_dict()["weight"].item() == pytest.approx(average)
    assert ema.shadow["weight"].item() == pytest.approx(0.75 * average)
    with ema.applied():
        assert network.weight.item() == pytest.approx(0.75 * average)
    assert network.weight.item() == 16


def test_the_start_is_of_the_stage_and_survives_a_resume() -> None:
    network = frozen(1)
    ema = Ema(network, 0.9, start_half_life=3)
    for _ in steps(network, 3):
        ema.update()
    state = copy.deepcopy(ema.state_dict())
    resumed = copy.deepcopy(network)
    other = Ema(resumed, 0.9, start_half_life=3)  # built of the weights of now
    mode(resumed, 1)
    other.load_state_dict(state)
    assert all(torch.equal(a, other.shadow[name]) for name, a in ema.shadow.items())
    assert other.start_share == ema.start_share == 0.5
    plain = Ema(frozen(1), 0.9)
    assert plain.start_share == 0
    assert not any(name.startswith("start") for name in plain.state_dict())
