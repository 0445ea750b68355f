"""EfficientNet against Keras' and transformers'; against torchvision's and timm's it is compared in
`test_classifiers.py`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

SIZE = (64, 97)
"""Even and odd before each stride of 2: 64, 32, 16, 8 and 4 rows; 97, 49, 25, 13 and 7 columns."""
HALVED = (64, 96)
"""Even everywhere: transformers pads its stem for even sides only, and the blocks by a table."""
SCALING = {  # of transformers' configuration: width, depth, width of the top, native size
    "b0": (1.0, 1.0, 1280, 224),
    "b1": (1.0, 1.1, 1280, 240),
}
SQUARE = {"b0": [16], "b1": [16]}
"""Google's `depthwise_padding`: the blocks that see an odd side at the native size."""


def members(names):
    for name in names:
        yield pytest.param(name, marks=[] if name == "b0" else pytest.mark.parity)


@pytest.mark.parametrize("variant", list(members(f"b{k}" for k in range(8))))
def test_keras(variant, references, parity):
    build = getattr(references.keras.applications, f"EfficientNet{variant.upper()}")
    model = build(weights=None, classifier_activation=None, input_shape=(*SIZE, 3))
    reference = parity.from_keras(parity.randomise(model))
    # the layout brings SAME padding and the epsilon: the plain network computes it, too
    network = parity.carry_over(f"efficientnet_{variant}", parity.keras_state(model, ".h5"))
    assert parity.relative_error(network, reference, SIZE) <= parity.tolerance


@pytest.mark.parity
def test_keras_needs_same_padding_and_its_epsilon(references, parity):
    build = references.keras.applications.EfficientNetB0
    model = build(weights=None, classifier_activation=None, input_shape=(*SIZE, 3))
    reference = parity.from_keras(parity.randomise(model))
    state = parity.keras_state(model)
    for argument in ({"same_padding": False}, {"norm_eps": 1e-5}):
        network = parity.carry_over("tf_efficientnet_b0", state, **argument)
        assert parity.relative_error(network, reference, SIZE) > 3 * parity.tolerance


@pytest.mark.parity
def test_kerass_published_preprocessing_is_the_entrys(references, parity):
    """With the statistics that the published files hold, Keras' own layers and the last Rescaling
    that it adds for them make of pixels what our preprocessing does."""
    build = references.keras.applications.EfficientNetB0
    model = build(weights=None, classifier_activation=None, input_shape=(*SIZE, 3))
    parity.randomise(model)
    network = parity.carry_over("tf_efficientnet_b0", parity.keras_state(model))
    mean = torch.tensor(network.preprocessing.mean)
    std = torch.tensor(network.preprocessing.std)
    normalization = next(x for x in model.layers if x.name.startswith("normalization"))
    normalization.mean = mean.reshape(1, 1, 1, 3)
    normalization.variance = std.reshape(1, 1, 1, 3)  # so they are in the files
    convolve = model.get_layer("stem_conv_pad")
    call = convolve.call
    convolve.call = lambda inputs: call(inputs / std.sqrt())
    pixels = torch.randint(256, (4, 3, *SIZE), generator=torch.Generator().manual_seed(0)).float()
    expected = model(pixels.permute(0, 2, 3, 1), training=False)
    images = (pixels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        error = (network(images) - expected).abs().max() / (expected - expected.mean(0)).std()
    assert error <= parity.tolerance


def transformers_efficientnet(references, variant, **options):
    width, depth, top, size = SCALING[variant]
    transformers = references.transformers
    config = transformers.EfficientNetConfig(
        width_coefficient=width,
        depth_coefficient=depth,
        hidden_dim=top,
        image_size=size,
        num_labels=1000,
        **options,
    )
    return transformers.EfficientNetForImageClassification(config)


@pytest.mark.parametrize("variant", list(members(SCALING)))
def test_transformers(variant, references, parity):
    model = parity.randomise(transformers_efficientnet(references, variant), size=HALVED)
    reference = parity.from_transformers(model)
    network = parity.carry_over(f"efficientnet_{variant}", model.state_dict())
    assert parity.relative_error(network, reference, HALVED) <= parity.tolerance
    network.stages[5][2].squeeze = nn.Identity()
    assert parity.relative_error(network, reference, HALVED) > 3 * parity.tolerance


@pytest.mark.parity
@pytest.mark.parametrize("variant", list(SCALING))
def test_transformers_at_the_native_size(variant, references, parity):
    """There, its table of paddings is what SAME padding comes to."""
    model = transformers_efficientnet(references, variant, depthwise_padding=SQUARE[variant])
    parity.randomise(model, size=HALVED)
    network = parity.carry_over(f"tf_efficientnet_{variant}", model.state_dict())
    reference = parity.from_transformers(model)
    size = network.preprocessing.size
    assert parity.relative_error(network, reference, size) <= parity.tolerance
