"""GoogLeNet against torchvision's, in eval mode and, for the auxiliary classifiers, in training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from retinue.models.registry import find
from retinue.weights.layout import layouts, untranslate


def torchvision_googlenet(references, **arguments):
    return references.torchvision.models.GoogLeNet(init_weights=False, **arguments)


class Picked(nn.Module):
    """One of a network's outputs."""

    def __init__(self, network, pick):
        super().__init__()
        self.network = network
        self.pick = pick

    def forward(self, x):
        return self.pick(self.network(x))


def as_they_were(network):
    """Training mode, in which dropout and BatchNorm do what they do in eval mode."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.BatchNorm2d):
            module.eval()
    return network


@pytest.mark.parametrize(
    "size", [(65, 98), *(pytest.param(s, marks=pytest.mark.parity) for s in ((33, 15), (224, 224)))]
)
def test_torchvision(size, references, parity):
    """Its file has auxiliary classifiers, which a network without them leaves out."""
    reference = parity.randomise(torchvision_googlenet(references))
    network = parity.carry_over("googlenet", reference.state_dict())
    assert parity.relative_error(network, reference, size) <= parity.tolerance


@pytest.mark.parametrize(
    "size", [(65, 98), *(pytest.param(s, marks=pytest.mark.parity) for s in ((40, 33), (224, 224)))]
)
def test_auxiliary_logits(size, references, parity):
    reference = as_they_were(parity.randomise(torchvision_googlenet(references)))
    network = parity.carry_over("googlenet", reference.state_dict(), auxiliary=True)
    as_they_were(network)
    pairs = {
        "first": (lambda y: y["auxiliary"][0], lambda x: reference(x).aux_logits1),
        "second": (lambda y: y["auxiliary"][1], lambda x: reference(x).aux_logits2),
        "main": (lambda y: y["logits"], lambda x: reference(x).logits),
    }
    for pick, theirs in pairs.values():
        assert parity.relative_error(Picked(network, pick), theirs, size) <= parity.tolerance
    # The two heads swapped are caught.
    swapped = Picked(network, pairs["second"][0])
    assert parity.relative_error(swapped, pairs["first"][1], size) > 0.1


def test_preprocessing_of_the_published_file(references, parity):
    """torchvision's network takes images normalised the usual way and shifts them; ours takes them
    as they are then."""
    reference = parity.randomise(torchvision_googlenet(references))
    reference.transform_input = True
    network = parity.carry_over("googlenet", reference.state_dict())
    ours = find("googlenet").preprocessing

    def column(values):
        return torch.tensor(values)[:, None, None]

    def shifted(x):
        pixels = x * column(ours.std) + column(ours.mean)
        usual = (column((0.485, 0.456, 0.406)), column((0.229, 0.224, 0.225)))
        return reference((pixels - usual[0]) / usual[1])

    assert parity.relative_error(network, shifted) <= parity.tolerance


@pytest.mark.parametrize("auxiliary", [False, True])
def test_torchvision_reads_what_is_written(auxiliary, references, parity):
    source = parity.randomise(torchvision_googlenet(references, aux_logits=auxiliary))
    network = parity.carry_over("googlenet", source.state_dict(), auxiliary=auxiliary)
    again = torchvision_googlenet(references, aux_logits=auxiliary).eval()
    again.load_state_dict(untranslate(layouts("googlenet")[0], network.state_dict()))
    assert parity.relative_error(network, again) <= parity.tolerance


def _swap_order(network):
    """The branches' outputs joined in another order."""
    block = network.stages[2][1]
    block.register_forward_hook(lambda m, i, y: y.roll(64, dims=1))


def _swap_blocks(network):
    """4b and 4c, which are as wide as one another, trade places."""
    stage = network.stages[2]
    stage[1], stage[2] = stage[2], stage[1]


def _round_down(network):
    """Poolings that leave out a row at the edge rather than reach over it."""
    network.stages[2][0].pool.ceil_mode = False


def _wider_last_pool(network):
    network.stages[3][0].pool.kernel_size = 3


def _other_epsilon(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5


def _forget_a_projection(network):
    network.stages[3][1].pool_proj.norm.running_mean.data.zero_()


def _average_in_the_fourth_branch(network):
    network.stages[1][1].branch_pool = nn.AvgPool2d(3, stride=1, padding=1)


def test_sabotage_is_caught(references, parity):
    reference = parity.randomise(torchvision_googlenet(references, aux_logits=False))
    network = parity.carry_over("googlenet", reference.state_dict())
    for sabotage in (
        _swap_order,
        _swap_blocks,
        _round_down,
        _wider_last_pool,
        _other_epsilon,
        _forget_a_projection,
        _average_in_the_fourth_branch,
    ):
        broken = copy.deepcopy(network)
        sabotage(broken)
        error = parity.relative_error(broken, reference)
        assert error > 3 * parity.tolerance, sabotage.__name__
