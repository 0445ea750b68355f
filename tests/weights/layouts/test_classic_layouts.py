"""Key names of public checkpoints and ours, by known answers: AlexNet, VGG, MNIST's quick-start."""

from __future__ import annotations

import pytest
import torch

from retinue.errors import RetinueError
from retinue.models.registry import create_model, find
from retinue.weights.flattened import flattened
from retinue.weights.layout import Origin, layouts, recognise, translate, untranslate

KNOWN = {
    ("alexnet", "torchvision"): {
        "features.0.weight": "stem.conv.weight",
        "features.3.bias": "stages.0.0.conv.bias",
        "features.8.weight": "stages.1.1.conv.weight",
        "features.10.weight": "stages.1.2.conv.weight",
        "classifier.1.weight": "head.fc6.weight",
        "classifier.4.bias": "head.fc7.bias",
        "classifier.6.weight": "head.fc.weight",
    },
    ("alexnet_half", "keras"): {
        "conv2d/kernel": "stem.conv.weight",
        "conv2d_1/bias": "stages.0.0.conv.bias",
        "conv2d_4/kernel": "stages.1.2.conv.weight",
        "dense/kernel": "head.fc6.weight",
        "dense_1/kernel": "head.fc7.weight",
        "dense_2/bias": "head.fc.bias",
    },
    ("vgg16", "torchvision"): {
        "features.0.weight": "stem.0.conv.weight",
        "features.2.bias": "stem.1.conv.bias",
        "features.14.weight": "stages.1.2.conv.weight",
        "features.28.weight": "stages.3.2.conv.weight",
        "classifier.0.weight": "head.fc6.weight",
        "classifier.3.weight": "head.fc7.weight",
        "classifier.6.bias": "head.fc.bias",
    },
    ("vgg13_bn", "torchvision"): {
        "features.1.running_mean": "stem.0.norm.running_mean",
        "features.3.bias": "stem.1.conv.bias",
        "features.7.weight": "stages.0.0.conv.weight",
        "features.32.num_batches_tracked": "stages.3.1.norm.num_batches_tracked",
    },
    ("vgg19", "timm"): {
        "features.34.weight": "stages.3.3.conv.weight",
        "pre_logits.fc1.weight": "head.fc6.weight",
        "pre_logits.fc2.bias": "head.fc7.bias",
        "head.fc.weight": "head.fc.weight",
    },
    ("vgg19", "keras"): {
        "block1_conv1/kernel": "stem.0.conv.weight",
        "block3_conv4/bias": "stages.1.3.conv.bias",
        "block5_conv4/kernel": "stages.3.3.conv.weight",
        "fc1/kernel": "head.fc6.weight",
        "fc2/bias": "head.fc7.bias",
        "predictions/kernel": "head.fc.weight",
    },
    ("mnist_cnn", "keras"): {
        "conv2d/kernel": "stem.conv.weight",
        "dense/kernel": "head.fc1.weight",
        "dense_1/bias": "head.fc.bias",
    },
}


def layout_of(family, source):
    return next(layout for layout in layouts(family) if layout.source == source)


def shapes_of(name, device="meta"):
    with torch.device(device):
        state = create_model(name).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


@pytest.mark.parametrize(("name", "source"), list(KNOWN))
def test_known_names(name, source):
    origins = layout_of(find(name).family, source).origins(shapes_of(name))
    for theirs, ours in KNOWN[name, source].items():
        assert origins[ours].keys == (theirs,)


@pytest.mark.parametrize("source", ["torchvision", "timm", "keras"])
def test_vgg_there_and_back(source):
    """A VGG of few values: the layouts read the widths off the network."""
    torch.manual_seed(0)
    shapes = {
        key: tuple(2 if side == 4096 else 8 * 49 if side == 25088 else side for side in shape)
        for key, shape in shapes_of("vgg11").items()
    }
    for key in ("weight", "bias"):
        shapes[f"stages.3.1.conv.{key}"] = (8, *shapes[f"stages.3.1.conv.{key}"][1:])
    shapes["stages.3.0.conv.weight"] = (8, 512, 3, 3)
    shapes["stages.3.1.conv.weight"] = (8, 8, 3, 3)
    tensors = {key: torch.randn(shape) for key, shape in shapes.items()}
    layout = layout_of("vgg", source)
    theirs = untranslate(layout, tensors)
    assert recognise(theirs, "vgg") is layout
    back = translate(layout, theirs, shapes)
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)


def test_timm_keeps_vgg_hidden_layers_as_convolutions():
    shapes = shapes_of("vgg11")
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    theirs = untranslate(layout_of("vgg", "timm"), weights)
    assert theirs["pre_logits.fc1.weight"].shape == (4096, 512, 7, 7)
    assert theirs["pre_logits.fc2.weight"].shape == (4096, 4096, 1, 1)


def test_keras_images_have_blue_first():
    shapes = shapes_of("vgg16")
    origin = layout_of("vgg", "keras").origins(shapes)["stem.0.conv.weight"]
    kernel = torch.randn(3, 3, 3, 64)
    ours = origin.join(kernel)
    assert ours[5, 0, 1, 2] == kernel[1, 2, 2, 5]  # red is their last channel
    assert ours[5, 2, 1, 2] == kernel[1, 2, 0, 5]
    assert torch.equal(origin.split(ours)[0], kernel)


def test_flattened_maps_are_read_place_by_place():
    channels, height, width, out = 3, 2, 4, 5
    kernel = torch.randn(height * width * channels, out)
    origin = flattened(Origin(("dense/kernel",)), channels)
    ours = origin.join(kernel)
    x = torch.randn(channels, height, width)
    expected = x.permute(1, 2, 0).flatten() @ kernel
    torch.testing.assert_close(x.flatten() @ ours.T, expected)
    assert torch.equal(origin.split(ours)[0], kernel)


def test_keras_weights_of_another_image_size_do_not_fit():
    shapes = shapes_of("mnist_cnn", device="cpu")
    state = {"conv2d/kernel": torch.zeros(3, 3, 3, 32), "dense/kernel": torch.zeros(30, 128)}
    with pytest.raises(RetinueError, match=r"head\.fc1\.weight is not made of dense/kernel"):
        translate(layout_of("mnist", "keras"), state, shapes)
