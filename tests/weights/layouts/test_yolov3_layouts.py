"""EfficientNet-YOLOv3 in Keras' files: written here with h5py as Keras lays them out."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from retinue.errors import RetinueError
from retinue.models.network import as_backbone
from retinue.models.registry import create_model
from retinue.weights import keras as keras_files
from retinue.weights.layouts.yolov3 import backbone

CLASSES = 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def named(network, first):
    """The layers in the order in which the published code builds them: (name, its variables), from
    the write-up alone. `first`: the number from which unnamed layers are counted."""
    state = network.state_dict()
    yield "stem_conv", {"kernel": state["backbone.stem.conv.weight"]}
    yield "stem_bn", norm(state, "backbone.stem.norm")
    for i, stage in enumerate(network.backbone.stages):
        for j, block in enumerate(stage):
            ours, theirs = f"backbone.stages.{i}.{j}.", f"block{i + 1}{chr(97 + j)}_"
            if len(list(block.expand.parameters())):
                yield theirs + "expand_conv", {"kernel": state[ours + "expand.conv.weight"]}
                yield theirs + "expand_bn", norm(state, ours + "expand.norm")
            yield theirs + "dwconv", {"depthwise_kernel": state[ours + "depthwise.conv.weight"]}
            yield theirs + "bn", norm(state, ours + "depthwise.norm")
            for part in ("reduce", "expand"):
                squeeze = {"kernel": state[f"{ours}squeeze.{part}.weight"],
                           "bias": state[f"{ours}squeeze.{part}.bias"]}  # fmt: skip
                yield f"{theirs}se_{part}", squeeze
            yield theirs + "project_conv", {"kernel": state[ours + "project.conv.weight"]}
            yield theirs + "project_bn", norm(state, ours + "project.norm")
    convs = norms = first
    # make_five_conv(feat3), make_yolo_head, the convolution before UpSampling2D; and so on
    for level in (2, 1, 0):
        modules = [f"neck.narrow.{level}"] * (level < 2)
        modules += [f"neck.blocks.{level}.{k}" for k in range(5)]
        for module in [*modules, f"head.convs.{level}"]:
            yield unnamed("conv2d", convs), {"kernel": state[f"{module}.conv.weight"]}
            yield unnamed("batch_normalization", norms), norm(state, f"{module}.norm")
            convs, norms = convs + 1, norms + 1
        out = {"kernel": state[f"head.outs.{level}.weight"],
               "bias": state[f"head.outs.{level}.bias"]}  # fmt: skip
        yield unnamed("conv2d", convs), out
        convs += 1


def unnamed(kind, number):
    return f"{kind}_{number}" if number else kind


def norm(state, module):
    return {
        "gamma": state[f"{module}.weight"],
        "beta": state[f"{module}.bias"],
        "moving_mean": state[f"{module}.running_mean"],
        "moving_variance": state[f"{module}.running_var"],
    }


def theirs(variable, tensor):
    """Kernels are height, width, in, out; of depthwise ones height, width, channels, 1."""
    array = tensor.numpy()
    if variable == "depthwise_kernel":
        return array.transpose(2, 3, 0, 1)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def write(path, network, first=0):
    """A file of `model.save_weights("x.h5")`."""
    with h5py.File(path, "w") as file:
        layers = dict(named(network, first))
        file.attrs["layer_names"] = [name.encode() for name in layers]
        file.attrs["backend"] = b"tensorflow"
        for name, variables in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{v}:0".encode() for v in variables]
            for variable, tensor in variables.items():
                group[f"{name}/{variable}:0"] = theirs(variable, tensor)
    return path


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = create_model("yolov3", backbone="tf_efficientnet_b0", num_classes=CLASSES)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    return write(tmp_path_factory.mktemp("keras") / "b0.h5", network)


def test_there_are_as_many_layers_as_published(network):
    layers = [name for name, _ in named(network, 0)]
    assert sum(name.startswith("conv2d") for name in layers) == 23
    assert sum(name.startswith("batch_normalization") for name in layers) == 20
    assert (layers[-1], layers[-2]) == ("conv2d_22", "batch_normalization_19")


@pytest.mark.parametrize("first", [0, 1, 46])
def test_keras_weights(network, first, tmp_path):
    """Wherever the numbers of layers without names begin: Keras 2 counts from 1 in a session, and
    goes on with a second model."""
    path = write(tmp_path / "ep100-loss1.0.h5", network, first)
    again = create_model("yolov3", num_classes=CLASSES, weights=path)
    assert again.arguments["backbone"] == "tf_efficientnet_b0"  # seen from the tensors
    ours, expected = again.state_dict(), network.state_dict()
    assert all(torch.equal(ours[k], expected[k]) for k in expected if "batches" not in k)
    assert again.neck.blocks[0][0].norm.eps == 1e-3
    assert again.arguments["backbone_arguments"]["same_padding"] is True
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        pairs = zip(again.eval()(x)["levels"], network(x)["levels"], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_other_classes(network, file):
    few = create_model("yolov3", backbone="tf_efficientnet_b0", num_classes=1, weights=file)
    kept = network.head.outs[2].weight.reshape(3, 8, -1)[:, :5]
    assert torch.equal(few.head.outs[2].weight.reshape(3, 6, -1)[:, :5], kept)


def test_another_backbone_is_refused(file):
    said = "are for the backbone tf_efficientnet_b0, not tf_efficientnet_b1"
    with pytest.raises(RetinueError, match=said):
        create_model("yolov3", backbone="tf_efficientnet_b1", num_classes=CLASSES, weights=file)


def test_a_depth_that_nobody_published_on_another_backbone(network, tmp_path):
    arguments = {"depth": 1.6, "width": 1.0}
    odd = create_model("yolov3", backbone="tf_efficientnet_b0", num_classes=CLASSES,
                       backbone_arguments=arguments)  # fmt: skip
    path = write(tmp_path / "odd.h5", odd)
    again = create_model("yolov3", backbone="tf_efficientnet_b0", num_classes=CLASSES,
                         backbone_arguments=arguments, weights=path)  # fmt: skip
    assert torch.equal(again.backbone.stem.conv.weight, odd.backbone.stem.conv.weight)
    with pytest.raises(RetinueError, match="takes no argument 'same_padding'"):
        create_model("yolov3", backbone="darknet53", num_classes=CLASSES, weights=path)


@pytest.mark.parametrize("lost", ["conv2d_7", "batch_normalization_3", "block3a_dwconv"])
def test_a_layer_that_is_lost_is_told(file, lost, tmp_path):
    """One fewer of a kind shifts the numbers of the others: their shapes, or their count, tell."""
    path = tmp_path / "lost.h5"
    path.write_bytes(file.read_bytes())
    with h5py.File(path, "a") as content:
        names = [name for name in content.attrs["layer_names"] if name != lost.encode()]
        content.attrs["layer_names"] = names
        del content[lost]
    with pytest.raises(RetinueError):
        create_model("yolov3", backbone="tf_efficientnet_b0", num_classes=CLASSES, weights=path)


def test_a_backbones_file_is_the_backbones(network, tmp_path):
    """`keras.applications`' names without a neck: what trainings of the published version begin
    from."""
    path = tmp_path / "efficientnet-b0.h5"
    classifier = create_model("tf_efficientnet_b0", num_classes=1)
    with h5py.File(path, "w") as file:
        layers = {n: v for n, v in named(network, 0) if n.startswith(("stem", "block"))}
        layers["top_conv"] = {"kernel": classifier.top.conv.weight.detach()}
        layers["top_bn"] = norm(classifier.state_dict(), "top.norm")
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, variables in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{v}:0".encode() for v in variables]
            for variable, tensor in variables.items():
                group[f"{name}/{variable}:0"] = theirs(variable, tensor)
    started = create_model("yolov3", backbone="tf_efficientnet_b0", num_classes=2, weights=path)
    expected = network.backbone.state_dict()
    assert all(
        torch.equal(tensor, expected[key])
        for key, tensor in started.backbone.state_dict().items()
        if "batches" not in key
    )


@pytest.mark.parametrize("k", range(8))
def test_which_efficientnet_it_is(k):
    with torch.device("meta"):
        own = as_backbone(create_model(f"tf_efficientnet_b{k}"), [3, 4, 5])
    state = {
        f"block{i + 1}{chr(97 + j)}_project_conv/kernel": torch.empty(
            1, 1, 1, block.project.conv.out_channels
        )
        for i, stage in enumerate(own.stages)
        for j, block in enumerate(stage)
    }
    assert backbone(state) == {"backbone": f"tf_efficientnet_b{k}"}
    assert backbone({**state, "block8a_project_conv/kernel": torch.empty(1, 1, 1, 9)}) == {}
    assert backbone({}) == {}


def test_the_files_reader_numbers_them_anew(network, tmp_path):
    state = keras_files.read_h5(write(tmp_path / "x.h5", network, first=7))
    assert {"conv2d/kernel", "conv2d_22/bias", "batch_normalization/gamma"} <= set(state)
    assert "conv2d_23/kernel" not in state
    assert np.prod(state["conv2d/kernel"].shape) == 320 * 320
