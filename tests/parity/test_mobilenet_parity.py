"""MobileNetV1, V2 and V3 against torchvision, timm, Keras and transformers."""

from __future__ import annotations

import pytest
from torch import nn

from retinue.errors import RetinueError
from retinue.models.blocks import SameConv2d, make_divisible

TENSORFLOW = {"same_padding": True, "norm_eps": 1e-3}
EVEN = (64, 96)
"""Keras' networks pad for maps with even sides; the other references pad for any."""


def cases(table, quick):
    """(ours, what theirs is built with); those of `quick` run in every `make test`."""
    return [
        pytest.param(ours, theirs, marks=[] if ours in quick else pytest.mark.parity, id=ours)
        for ours, theirs in table.items()
    ]


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", pytest.param("mobilenet_v3_large", marks=pytest.mark.parity)]
)
def test_torchvision(name, references, parity):
    reference = parity.randomise(getattr(references.torchvision.models, name)())
    network = parity.carry_over(name, reference.state_dict())
    assert parity.relative_error(network, reference) <= parity.tolerance


TIMM = {
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_small_050": "mobilenetv3_small_050",
    "mobilenet_v3_small_075": "mobilenetv3_small_075",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_large_075": "mobilenetv3_large_075",
}


@pytest.mark.parametrize(
    ("ours", "theirs"), cases(TIMM, ("mobilenet_v1", "mobilenet_v3_small_050"))
)
def test_timm(ours, theirs, references, parity):
    reference = parity.randomise(references.timm.create_model(theirs))
    network = parity.carry_over(ours, reference.state_dict())
    assert parity.relative_error(network, reference) <= parity.tolerance


TIMM_TENSORFLOW = {
    "mobilenet_v3_small": "tf_mobilenetv3_small_100",
    "mobilenet_v3_small_075": "tf_mobilenetv3_small_075",
    "mobilenet_v3_large": "tf_mobilenetv3_large_100",
    "mobilenet_v3_large_075": "tf_mobilenetv3_large_075",
}


@pytest.mark.parametrize(("ours", "theirs"), cases(TIMM_TENSORFLOW, ("mobilenet_v3_small",)))
def test_timm_tensorflow(ours, theirs, references, parity):
    """The keys do not tell these from the others, so the keywords are given."""
    reference = parity.randomise(references.timm.create_model(theirs))
    network = parity.carry_over(ours, reference.state_dict(), **TENSORFLOW)
    assert parity.relative_error(network, reference) <= parity.tolerance


KERAS = {
    "mobilenet_v1": ("MobileNet", {"alpha": 1.0}),
    "mobilenet_v1_025": ("MobileNet", {"alpha": 0.25}),
    "mobilenet_v1_050": ("MobileNet", {"alpha": 0.5}),
    "mobilenet_v1_075": ("MobileNet", {"alpha": 0.75}),
    "mobilenet_v2": ("MobileNetV2", {"alpha": 1.0}),
    "mobilenet_v2_035": ("MobileNetV2", {"alpha": 0.35}),
    "mobilenet_v2_140": ("MobileNetV2", {"alpha": 1.4}),
    "mobilenet_v3_small": ("MobileNetV3Small", {}),
    "mobilenet_v3_small_075": ("MobileNetV3Small", {"alpha": 0.75}),
    "mobilenet_v3_large": ("MobileNetV3Large", {}),
    "mobilenet_v3_large_075": ("MobileNetV3Large", {"alpha": 0.75}),
}


def keras_model(references, theirs):
    name, arguments = theirs
    build = getattr(references.keras.applications, name)
    return build(weights=None, classifier_activation=None, input_shape=(*EVEN, 3), **arguments)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    cases(KERAS, ("mobilenet_v1_025", "mobilenet_v2_035", "mobilenet_v3_small")),
)
def test_keras(ours, theirs, references, parity):
    model = parity.randomise(keras_model(references, theirs))
    network = parity.carry_over(ours, parity.keras_state(model))
    assert parity.relative_error(network, parity.from_keras(model), EVEN) <= parity.tolerance


TRANSFORMERS = {
    "mobilenet_v1": ("MobileNetV1", {}),
    "mobilenet_v1_025": ("MobileNetV1", {"depth_multiplier": 0.25}),
    "mobilenet_v1_075": ("MobileNetV1", {"depth_multiplier": 0.75}),
    "mobilenet_v2": ("MobileNetV2", {}),
    "mobilenet_v2_035": ("MobileNetV2", {"depth_multiplier": 0.35}),
    "mobilenet_v2_140": ("MobileNetV2", {"depth_multiplier": 1.4}),
}


def transformers_model(references, theirs, **options):
    name, arguments = theirs
    config = getattr(references.transformers, f"{name}Config")
    build = getattr(references.transformers, f"{name}ForImageClassification")
    return build(config(**{"num_labels": 1001, **arguments, **options}))


@pytest.mark.parametrize(
    ("ours", "theirs"), cases(TRANSFORMERS, ("mobilenet_v1_025", "mobilenet_v2_035"))
)
def test_transformers(ours, theirs, references, parity):
    """Of their 1,001 classes, ours are those after the background."""
    model = parity.randomise(transformers_model(references, theirs))
    reference = parity.from_transformers(model)
    network = parity.carry_over(ours, model.state_dict())
    assert parity.relative_error(network, lambda x: reference(x)[:, 1:]) <= parity.tolerance


def test_transformers_without_tensorflow_padding(references, parity):
    """Their `tf_padding` is our `same_padding`; a classifier of other classes is taken whole."""
    theirs = TRANSFORMERS["mobilenet_v2_035"]
    model = parity.randomise(transformers_model(references, theirs, tf_padding=False, num_labels=7))
    network = parity.carry_over(
        "mobilenet_v2_035", model.state_dict(), num_classes=7, same_padding=False
    )
    assert parity.relative_error(network, parity.from_transformers(model)) <= parity.tolerance


@pytest.mark.parametrize("size", [(32, 32), (33, 64), (96, 71)])
def test_same_padding_of_5x5_kernels_at_every_kind_of_size(size, references, parity):
    reference = parity.randomise(references.timm.create_model("tf_mobilenetv3_small_100"))
    network = parity.carry_over("mobilenet_v3_small", reference.state_dict(), **TENSORFLOW)
    assert parity.relative_error(network, reference, size) <= parity.tolerance


# Sabotage: what each of these changes must be seen.


def _sigmoid_gate(network):
    network.stages[2][1].squeeze.gate = nn.Sigmoid()


def _swish_in_the_squeeze(network):
    network.stages[2][1].squeeze.act = nn.Hardswish()


def _smooth_swish(network):
    network.stages[3][0].depthwise.act = nn.SiLU()


def _relu_where_swish_belongs(network):
    network.stages[3][1].expand.act = nn.ReLU()


def _squeeze_before_the_activation(network):
    """SE between the norm and the activation."""
    block = network.stages[2][0]
    block.depthwise.act, act = nn.Identity(), block.depthwise.act
    block.squeeze = nn.Sequential(block.squeeze, act)


def _activate_before_the_norm(network):
    layer = network.stages[4][0].depthwise
    layer.norm = nn.Sequential(layer.act, layer.norm)
    layer.act = nn.Identity()


def _activate_the_projection(network):
    network.stages[2][0].project.act = nn.Hardswish()


def _no_activation_in_the_head(network):
    network.head.act = nn.Identity()


def _other_epsilon(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5


def _symmetric_padding(network):
    """Of one stride of 2 only."""
    conv = network.stages[2][0].depthwise.conv
    assert isinstance(conv, SameConv2d)
    conv.__class__ = nn.Conv2d
    conv.padding = (2, 2)


def _drop_a_residual(network):
    network.stages[4][1].residual = False


@pytest.mark.parametrize(
    "sabotage",
    [
        _sigmoid_gate,
        _swish_in_the_squeeze,
        _smooth_swish,
        _relu_where_swish_belongs,
        _squeeze_before_the_activation,
        _activate_before_the_norm,
        _activate_the_projection,
        _no_activation_in_the_head,
        _other_epsilon,
        _symmetric_padding,
        _drop_a_residual,
    ],
)
def test_sabotage_is_caught(sabotage, references, parity):
    reference = parity.randomise(references.timm.create_model("tf_mobilenetv3_small_100"))
    network = parity.carry_over("mobilenet_v3_small", reference.state_dict(), **TENSORFLOW)
    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance
    sabotage(network)
    assert parity.relative_error(network, reference, (64, 64)) > 3 * parity.tolerance


def test_rounding_of_the_squeeze_matters(references, parity, monkeypatch):
    """A squeeze of exactly a quarter, 18 channels of 72, is another network, and is refused."""
    reference = references.torchvision.models.mobilenet_v3_large()
    monkeypatch.setattr(
        "retinue.models.mobilenet_v3.make_divisible",
        lambda x: round(x) if round(x) == 18 else make_divisible(x),
    )
    with pytest.raises(RetinueError, match="another network"):
        parity.carry_over("mobilenet_v3_large", reference.state_dict())


def test_background_and_padding_matter(references, parity):
    """Classes that are one off, and padding on both sides alike, would be seen."""
    model = parity.randomise(transformers_model(references, TRANSFORMERS["mobilenet_v1_025"]))
    reference = parity.from_transformers(model)
    network = parity.carry_over("mobilenet_v1_025", model.state_dict())
    assert parity.relative_error(network, lambda x: reference(x)[:, :-1]) > 100 * parity.tolerance
    symmetric = parity.carry_over("mobilenet_v1_025", model.state_dict(), same_padding=False)
    assert parity.relative_error(symmetric, lambda x: reference(x)[:, 1:]) > 100 * parity.tolerance


def test_relu_instead_of_relu6_would_be_seen(references, parity):
    reference = parity.randomise(references.timm.create_model("mobilenetv1_100"))
    network = parity.carry_over("mobilenet_v1", reference.state_dict())
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.ReLU6):
            owner, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(owner), attribute, nn.ReLU())
    assert parity.relative_error(network, reference) > 3 * parity.tolerance
