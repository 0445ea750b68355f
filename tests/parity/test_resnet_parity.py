"""ResNeXt against torchvision and timm; ResNet against Keras (stride on the 1×1, biases, blue
first) and transformers. The other ResNets are in test_classifiers.py."""

from __future__ import annotations

import copy

import pytest
import torch

from retinue.weights.layout import layouts, untranslate

EVEN = (64, 96)
LARGE = pytest.mark.parity


@pytest.mark.parametrize("name", ["resnext50_32x4d", pytest.param("resnext101_32x8d", marks=LARGE)])
@pytest.mark.parametrize("source", ["torchvision", pytest.param("timm", marks=LARGE)])
def test_resnext(name, source, references, parity):
    def build():
        if source == "timm":
            return references.timm.create_model(name)
        return getattr(references.torchvision.models, name)()

    reference = parity.randomise(build())
    network = parity.carry_over(name, reference.state_dict())
    assert parity.relative_error(network, reference) <= parity.tolerance
    again = build().eval()
    again.load_state_dict(untranslate(layouts("resnet")[0], network.state_dict()))
    assert parity.relative_error(network, again) <= parity.tolerance


def fresh_keras_resnet(references, depth, size=EVEN):
    build = getattr(references.keras.applications, f"ResNet{depth}")
    return build(weights=None, classifier_activation=None, input_shape=(*size, 3))


def keras_resnet(references, parity, depth, size=EVEN):
    return parity.randomise(fresh_keras_resnet(references, depth, size))


def blue_first(parity, model):
    """A Keras model as a reference that takes red first, as ours does."""
    reference = parity.from_keras(model)
    return lambda images: reference(images.flip(1))


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("resnet50", 50),
        pytest.param("resnet50_v1", 50, marks=LARGE),
        pytest.param("resnet101", 101, marks=LARGE),
    ],
)
def test_keras(name, depth, references, parity):
    model = keras_resnet(references, parity, depth)
    network = parity.carry_over(name, parity.keras_state(model))
    assert network.arguments["stride_on"] == "1x1"
    reference = blue_first(parity, model)
    assert parity.relative_error(network, reference, EVEN) <= parity.tolerance


@LARGE
def test_keras_152(references, parity):
    """Against Keras in float64: after 152 layers, the rounding of its own logits in float32 is as
    large as the tolerance. (Its BatchNorm computes in float32 even so.)"""
    model = keras_resnet(references, parity, 152)
    network = parity.carry_over("resnet152", parity.keras_state(model))
    policy = references.keras.config.dtype_policy()
    references.keras.config.set_dtype_policy("float64")
    try:
        exact = fresh_keras_resnet(references, 152)
    finally:
        references.keras.config.set_dtype_policy(policy)
    exact.set_weights(model.get_weights())
    reference = blue_first(parity, exact)
    assert parity.relative_error(network, reference, EVEN) <= parity.tolerance
    assert parity.relative_error(network.double(), reference, EVEN) <= 0.5 * parity.tolerance


@LARGE
def test_what_makes_keras_different_matters(references, parity):
    model = keras_resnet(references, parity, 50)
    state, reference = parity.keras_state(model), blue_first(parity, model)
    other = parity.carry_over("resnet50", state, stride_on="3x3")
    assert parity.relative_error(other, reference, EVEN) > 0.1
    network = parity.carry_over("resnet50", state)
    red_last = parity.from_keras(model)
    assert parity.relative_error(network, red_last, EVEN) > 0.1
    bias = state["conv4_block2_2_conv/bias"]  # as if it had not been folded
    network.stages[2][1].conv2.norm.running_mean += bias
    assert parity.relative_error(network, reference, EVEN) > 3 * parity.tolerance


@LARGE
@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize("size", [(65, 97), (224, 224)])
def test_keras_from_every_file_at_other_sizes(suffix, size, references, parity):
    model = keras_resnet(references, parity, 50, size)
    network = parity.carry_over("resnet50", parity.keras_state(model, suffix))
    assert parity.relative_error(network, blue_first(parity, model), size) <= parity.tolerance


DEPTHS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}


def transformers_resnet(references, parity, depth, **options):
    library = references.transformers
    basic = depth < 50
    config = library.ResNetConfig(
        depths=DEPTHS[depth],
        hidden_sizes=[64, 128, 256, 512] if basic else [256, 512, 1024, 2048],
        layer_type="basic" if basic else "bottleneck",
        num_labels=1000,
        **options,
    )
    model = library.ResNetForImageClassification(config).eval()
    wrapped = _Logits(model)
    parity.randomise(wrapped)
    return model, wrapped


class _Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(pixel_values=images).logits


@pytest.mark.parametrize(
    "depth", [18, *(pytest.param(depth, marks=LARGE) for depth in (34, 50, 101))]
)
def test_transformers(depth, references, parity):
    model, reference = transformers_resnet(references, parity, depth)
    network = parity.carry_over(f"resnet{depth}", model.state_dict())
    assert parity.relative_error(network, reference) <= parity.tolerance
    state = untranslate(
        next(x for x in layouts("resnet") if x.source == "transformers"), network.state_dict()
    )
    model.load_state_dict(state)


@LARGE
def test_transformers_with_the_stride_on_the_1x1(references, parity):
    model, reference = transformers_resnet(references, parity, 50, downsample_in_bottleneck=True)
    network = parity.carry_over("resnet50", model.state_dict(), stride_on="1x1")
    assert parity.relative_error(network, reference) <= parity.tolerance
    wrong = parity.carry_over("resnet50", model.state_dict())
    assert parity.relative_error(wrong, reference) > 0.1


@torch.no_grad()
def _swap_groups(network):
    """Two groups of a grouped convolution trade places."""
    weight = network.stages[1][1].conv2.conv.weight
    weight[:8], weight[8:16] = weight[8:16].clone(), weight[:8].clone()


def _move_the_stride(network):
    block = network.stages[2][0]
    block.conv1.conv.stride, block.conv2.conv.stride = (2, 2), (1, 1)


def _other_epsilon(network):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3


def _turn_the_groups(network):
    """The channels inside each group in the opposite order."""
    conv = network.stages[3][2].conv2.conv
    conv.weight.data = conv.weight.data.flip(1)


def test_sabotage_is_caught(references, parity):
    reference = parity.randomise(references.torchvision.models.resnext50_32x4d())
    network = parity.carry_over("resnext50_32x4d", reference.state_dict())
    for sabotage in (_swap_groups, _move_the_stride, _other_epsilon, _turn_the_groups):
        broken = copy.deepcopy(network)
        sabotage(broken)
        error = parity.relative_error(broken, reference)
        assert error > 3 * parity.tolerance, sabotage.__name__
