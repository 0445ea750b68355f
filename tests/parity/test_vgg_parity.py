"""VGG against torchvision, timm and Keras Applications, everything randomised."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

DEPTHS = (11, 13, 16, 19)
NAMES = [f"vgg{depth}{norm}" for depth in DEPTHS for norm in ("", "_bn")]
SMALL = "vgg11_bn"


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Fresh networks hold what the memory held: drawing 130 million weights that are replaced
    anyway takes longer than all else, and what is not carried over cannot be right by chance."""
    for name in ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **options: tensor)


def cases():
    return [pytest.param(name, marks=[] if name == SMALL else pytest.mark.parity) for name in NAMES]


@torch.no_grad()
def alive(reference):
    """Without norms, each ReLU would halve what distinguishes the images, until after 19 layers
    little more than the biases' share of the logits, and its rounding, were left to compare. So
    weights have He's variance, and biases are smaller."""

    def factor(tensor):
        return 2**0.5 if tensor.ndim > 1 else 0.1

    if hasattr(reference, "get_weights"):  # Keras
        reference.set_weights([w * factor(w) for w in reference.get_weights()])
    elif not any(isinstance(module, nn.BatchNorm2d) for module in reference.modules()):
        for parameter in reference.parameters():
            parameter.mul_(factor(parameter))
    return reference


@pytest.mark.parametrize("name", cases())
def test_torchvision(name, references, parity):
    reference = alive(
        parity.randomise(getattr(references.torchvision.models, name)(num_classes=10))
    )
    network = parity.carry_over(name, reference.state_dict(), num_classes=10)
    assert parity.relative_error(network, reference) <= parity.tolerance


@pytest.mark.parity
@pytest.mark.parametrize("size", [(224, 224), (256, 320)])
def test_torchvision_at_native_and_larger_size(size, references, parity):
    """A last map of 7 × 7, where pooling is skipped, and one that does not divide by it."""
    reference = alive(parity.randomise(references.torchvision.models.vgg11(num_classes=10)))
    network = parity.carry_over("vgg11", reference.state_dict(), num_classes=10)
    assert parity.relative_error(network, reference, size) <= parity.tolerance


@pytest.mark.parity
@pytest.mark.parametrize("name", NAMES)
def test_timm(name, references, parity):
    reference = alive(parity.randomise(references.timm.create_model(name, num_classes=10)))
    network = parity.carry_over(name, reference.state_dict(), num_classes=10)
    assert parity.relative_error(network, reference) <= parity.tolerance


class Patches(nn.Module):
    """Noise in patches of 32 pixels: in 224 × 224, finer noise is nearly the same everywhere to a
    deep layer, and rounding would count for more."""

    def forward(self, images):
        return F.interpolate(images[:, :, ::32, ::32], scale_factor=32)


@pytest.mark.parity
@pytest.mark.parametrize("depth", [16, 19])
def test_keras(depth, references, parity):
    """Its images come with blue first: the layout turns the first convolution round."""
    build = getattr(references.keras.applications, f"VGG{depth}")
    model = alive(parity.randomise(build(weights=None, classes=10, classifier_activation=None)))
    network = parity.carry_over(f"vgg{depth}", parity.keras_state(model), num_classes=10)
    reference, patches = parity.from_keras(model), Patches()

    def error(channels=(2, 1, 0)):
        def theirs(images):
            return reference(patches(images)[:, channels])

        return parity.relative_error(nn.Sequential(patches, network), theirs, (224, 224))

    assert error() <= parity.tolerance
    # red first would be seen, and so would another order of the flattened map
    assert error(channels=(0, 1, 2)) > 100 * parity.tolerance
    _swap_places(network)
    assert error() > 100 * parity.tolerance


@torch.no_grad()
def _forget_a_convolution_bias(network):
    network.stages[1][0].conv.bias.zero_()


@torch.no_grad()
def _forget_a_mean(network):
    network.stages[0][0].norm.running_mean.zero_()


def _average_instead_of_max(network):
    network.stages[2][1].pool = nn.AvgPool2d(2)


def _leave_out_a_relu(network):
    network.stages[3][0].act = nn.Identity()


@torch.no_grad()
def _swap_places(network):
    weight = network.head.fc6.weight
    weight.copy_(weight.unflatten(1, (512, 7, 7)).flip(3).flatten(1))


SABOTAGES = (
    _forget_a_convolution_bias,
    _forget_a_mean,
    _average_instead_of_max,
    _leave_out_a_relu,
    _swap_places,
)


@pytest.mark.parity
def test_sabotage_is_caught(references, parity):
    reference = parity.randomise(references.torchvision.models.vgg11_bn(num_classes=10))
    network = parity.carry_over("vgg11_bn", reference.state_dict(), num_classes=10)
    for sabotage in SABOTAGES:
        broken = copy.deepcopy(network)
        sabotage(broken)
        assert parity.relative_error(broken, reference) > 3 * parity.tolerance, sabotage.__name__
