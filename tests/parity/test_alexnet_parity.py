"""AlexNet against torchvision, and its half-width form against Keras' layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

SIZES = [(65, 98), pytest.param((224, 224), marks=pytest.mark.parity)]


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Fresh networks hold what the memory held: drawing 60 million weights that are replaced
    anyway takes longer than all else, and what is not carried over cannot be right by chance."""
    for name in ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **options: tensor)


@pytest.mark.parametrize("size", SIZES)
def test_torchvision(size, references, parity):
    reference = parity.randomise(references.torchvision.models.alexnet(num_classes=10))
    network = parity.carry_over("alexnet", reference.state_dict(), num_classes=10)
    assert parity.relative_error(network, reference, size) <= parity.tolerance


def in_keras(keras, hidden):
    """The half-width network of Keras' own layers, with the names that Keras gives them."""
    layers = keras.layers
    keras.utils.clear_session()  # its numbers begin anew

    def conv(channels, kernel, **options):
        return layers.Conv2D(channels, kernel, activation="relu", **options)

    return keras.Sequential(
        [
            layers.Input((224, 224, 3)),
            layers.ZeroPadding2D(((1, 2), (1, 2))),
            conv(48, 11, strides=4),
            layers.MaxPool2D(3, 2),
            conv(128, 5, padding="same"),
            layers.MaxPool2D(3, 2),
            conv(192, 3, padding="same"),
            conv(192, 3, padding="same"),
            conv(128, 3, padding="same"),
            layers.MaxPool2D(3, 2),
            layers.Flatten(),
            *(layers.Dense(width, activation="relu") for width in hidden),
            layers.Dense(10),
        ]
    )


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "hidden"),
    [("alexnet_half", (2048, 2048)), ("alexnet_half_1024_128", (1024, 128))],
)
def test_keras(name, hidden, references, parity):
    model = parity.randomise(in_keras(references.keras, hidden))
    network = parity.carry_over(name, parity.keras_state(model), num_classes=10)
    reference = parity.from_keras(model)
    assert parity.relative_error(network, reference, (224, 224)) <= parity.tolerance
    network.stem.pad = nn.ZeroPad2d((2, 1, 2, 1))
    assert parity.relative_error(network, reference, (224, 224)) > 100 * parity.tolerance


@torch.no_grad()
def _forget_a_bias(network):
    network.stages[1][2].conv.bias.zero_()


def _pool_without_overlap(network):
    network.stages[0][0].pool = nn.MaxPool2d(2)


@torch.no_grad()
def _swap_channels(network):
    for name in ("weight", "bias"):
        parameter = getattr(network.stages[1][2].conv, name)
        parameter.copy_(parameter.flip(0))


@torch.no_grad()
def _turn_the_first_kernel(network):
    weight = network.stem.conv.weight
    weight.copy_(weight.transpose(2, 3).clone())


SABOTAGES = (_forget_a_bias, _pool_without_overlap, _swap_channels, _turn_the_first_kernel)


def test_sabotage_is_caught(references, parity):
    reference = parity.randomise(references.torchvision.models.alexnet(num_classes=10))
    network = parity.carry_over("alexnet", reference.state_dict(), num_classes=10)
    for sabotage in SABOTAGES:
        broken = copy.deepcopy(network, {id(network.head): network.head})  # which stays as it is
        sabotage(broken)
        assert parity.relative_error(broken, reference) > 3 * parity.tolerance, sabotage.__name__
