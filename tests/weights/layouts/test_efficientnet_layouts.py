"""EfficientNet's tensors by the names of Keras and transformers."""

from __future__ import annotations

import pytest
import torch

from retinue.models.registry import create_model
from retinue.weights.layout import layouts, recognise, translate, untranslate
from retinue.weights.loading import load_into

# B1 repeats its stages 2-3-3-4-4-5-2 times.
KNOWN = {
    "keras": {
        "stem_conv/kernel": "stem.conv.weight",
        "stem_bn/moving_variance": "stem.norm.running_var",
        "block1a_dwconv/depthwise_kernel": "stages.0.0.depthwise.conv.weight",
        "block1a_bn/gamma": "stages.0.0.depthwise.norm.weight",
        "block1b_se_reduce/bias": "stages.0.1.squeeze.reduce.bias",
        "block2a_expand_conv/kernel": "stages.1.0.expand.conv.weight",
        "block2a_expand_bn/beta": "stages.1.0.expand.norm.bias",
        "block6e_se_expand/kernel": "stages.5.4.squeeze.expand.weight",
        "block7b_project_conv/kernel": "stages.6.1.project.conv.weight",
        "block7b_project_bn/moving_mean": "stages.6.1.project.norm.running_mean",
        "top_conv/kernel": "top.conv.weight",
        "top_bn/gamma": "top.norm.weight",
        "predictions/kernel": "head.fc.weight",
    },
    "transformers": {
        "efficientnet.embeddings.convolution.weight": "stem.conv.weight",
        "efficientnet.embeddings.batchnorm.running_var": "stem.norm.running_var",
        "efficientnet.encoder.blocks.0.depthwise_conv.depthwise_conv.weight": (
            "stages.0.0.depthwise.conv.weight"
        ),
        "efficientnet.encoder.blocks.1.depthwise_conv.depthwise_norm.bias": (
            "stages.0.1.depthwise.norm.bias"
        ),
        "efficientnet.encoder.blocks.2.expansion.expand_conv.weight": (
            "stages.1.0.expand.conv.weight"
        ),
        "efficientnet.encoder.blocks.2.expansion.expand_bn.bias": "stages.1.0.expand.norm.bias",
        "efficientnet.encoder.blocks.20.squeeze_excite.reduce.bias": (
            "stages.5.4.squeeze.reduce.bias"
        ),
        "efficientnet.encoder.blocks.22.projection.project_conv.weight": (
            "stages.6.1.project.conv.weight"
        ),
        "efficientnet.encoder.blocks.22.projection.project_bn.num_batches_tracked": (
            "stages.6.1.project.norm.num_batches_tracked"
        ),
        "efficientnet.encoder.top_bn.weight": "top.norm.weight",
        "classifier.bias": "head.fc.bias",
    },
}


def shapes_of(state):
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def layout_of(source):
    return next(layout for layout in layouts("efficientnet") if layout.source == source)


@pytest.mark.parametrize("source", list(KNOWN))
def test_known_names(source):
    with torch.device("meta"):
        shapes = shapes_of(create_model("efficientnet_b1").state_dict())
    origins = layout_of(source).origins(shapes)
    for theirs, ours in KNOWN[source].items():
        assert origins[ours].keys == (theirs,)


@pytest.mark.parametrize("source", list(KNOWN))
def test_round_trip(source):
    network = create_model("efficientnet_b0", num_classes=7)
    tensors = network.state_dict()
    layout = layout_of(source)
    theirs = untranslate(layout, tensors)
    assert recognise(theirs, "efficientnet") is layout
    back = translate(layout, theirs, shapes_of(tensors))
    assert all(torch.equal(back[key], tensors[key]) for key in back)
    assert load_into(network, back).complete


@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnet_b7"])
def test_every_tensor_has_a_name_of_its_own(name):
    with torch.device("meta"):
        shapes = shapes_of(create_model(name).state_dict())
    for source in KNOWN:
        found = [
            key for origin in layout_of(source).origins(shapes).values() for key in origin.keys
        ]
        assert len(found) == len(set(found))


def test_keras_shapes():
    theirs = untranslate(layout_of("keras"), create_model("efficientnet_b0").state_dict())
    assert theirs["stem_conv/kernel"].shape == (3, 3, 3, 32)
    assert theirs["block2a_dwconv/depthwise_kernel"].shape == (3, 3, 96, 1)
    assert theirs["block1a_se_reduce/kernel"].shape == (1, 1, 32, 8)
    assert theirs["predictions/kernel"].shape == (1280, 1000)


def test_kerass_own_normalisation_is_left_out_silently():
    network = create_model("efficientnet_b0", num_classes=7)
    layout = layout_of("keras")
    state = untranslate(layout, network.state_dict())
    for variable in ("mean", "variance", "count"):
        state[f"normalization_3/{variable}"] = torch.zeros(3)
    assert load_into(network, translate(layout, state, shapes_of(network.state_dict()))).complete


@pytest.mark.parametrize("source", ["keras", "transformers", "efficientnet-pytorch"])
def test_ports_of_googles_networks_compute_as_tensorflow_does(source):
    assert dict(layout_of(source).arguments) == {"same_padding": True, "norm_eps": 1e-3}
