"""YOLOv3: the published networks, and what any backbone makes of them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from retinue import modelfile
from retinue.errors import RetinueError, UsageError
from retinue.modelfile import ModelDescription
from retinue.models.blocks import ConvNormAct, DropPath
from retinue.models.network import split
from retinue.models.registry import create_model, list_models
from retinue.models.yolov3 import widths_for
from retinue.weights.layout import layouts, untranslate

# Parameters with 20 classes, as published for Keras and for PyTorch, B0 to B7.
PUBLISHED = (10_605_773, 13_111_409, 15_651_059, 20_206_009,
             30_500_761, 45_087_345, 61_962_649, 90_025_105)  # fmt: skip
# Channels of the taps after stages 3, 5 and 7.
TAPS = ((40, 112, 320), (40, 112, 320), (48, 120, 352), (48, 136, 384),
        (56, 160, 448), (64, 176, 512), (72, 200, 576), (80, 224, 640))  # fmt: skip
SMALL = "mobilenet_v2_035"


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


def small(**arguments):
    return create_model("yolov3", **{"backbone": SMALL, "num_classes": 4, **arguments})


def on_meta(**arguments):
    with torch.device("meta"):
        return create_model("yolov3", **arguments)


def count(module):
    return sum(p.numel() for p in module.parameters())


def shapes(network, side=416):
    """Of what every ConvNormAct and plain convolution of neck and head gives, in forward order."""
    found = []
    names = {module: name for name, module in network.named_modules()}

    def note(module, _, output):
        found.append((names[module], *output.shape[1:]))

    hooks = [
        module.register_forward_hook(note)
        for name, module in network.named_modules()
        if name.startswith(("neck.", "head."))
        and isinstance(module, ConvNormAct | nn.Conv2d)
        and not name.endswith(".conv")
    ]
    network.eval()(torch.empty(1, 3, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("k", range(8))
def test_published_networks(k):
    network = on_meta(backbone=f"tf_efficientnet_b{k}", num_classes=20)
    assert count(network) == PUBLISHED[k]
    assert [(e.channels, e.stride) for e in network.feature_levels] == [
        (channels, stride) for channels, stride in zip(TAPS[k], (8, 16, 32), strict=True)
    ]
    assert network.neck.blocks[0][0].conv.weight.shape[:2] == (TAPS[k][0], 2 * TAPS[k][0])
    assert not any("top" in name for name, _ in network.named_parameters())


def test_the_original():
    """yolov3.cfg: 62,001,757 floats, of which the 52,608 statistics of norms are no parameters."""
    network = on_meta()
    assert count(network) == 61_949_149
    statistics = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert count(network) + statistics == 62_001_757


def test_every_layers_shape():
    """Of B0 at 416 × 416 with 20 classes, as the published versions print it."""
    network = on_meta(backbone="tf_efficientnet_b0", num_classes=20)

    def block(level, width, side):
        return [(f"neck.blocks.{level}.{i}", (width, 2 * width)[i % 2], side, side)
                for i in range(5)]  # fmt: skip

    def head(level, width, side):
        return [(f"head.convs.{level}", 2 * width, side, side),
                (f"head.outs.{level}", 75, side, side)]  # fmt: skip

    assert shapes(network) == [
        *block(2, 320, 13), ("neck.narrow.1", 112, 13, 13),
        *block(1, 112, 26), ("neck.narrow.0", 40, 26, 26),
        *block(0, 40, 52), *head(0, 40, 52), *head(1, 112, 26), *head(2, 320, 13),
    ]  # fmt: skip


@torch.no_grad()
def test_neck_and_head_by_hand():
    """The same computed plainly from the tensors, by their names."""
    network = small().eval()
    for name, tensor in network.state_dict().items():
        if name.startswith(("neck", "head")) and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_(std=0.3)
    state = network.state_dict()

    def layer(x, name):
        weight = state[f"{name}.conv.weight"]
        mean, var = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
        x = F.conv2d(x, weight, padding=weight.shape[2] // 2)
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-3).sqrt()
        x = x * state[f"{name}.norm.weight"][:, None, None]
        x = x + state[f"{name}.norm.bias"][:, None, None]
        return torch.where(x < 0, 0.1 * x, x)

    def block(x, level):
        for i in range(5):
            x = layer(x, f"neck.blocks.{level}.{i}")
        return x

    def out(x, level):
        name = f"head.outs.{level}"
        return F.conv2d(layer(x, f"head.convs.{level}"), state[f"{name}.weight"],
                        state[f"{name}.bias"])  # fmt: skip

    def doubled(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    x = torch.randn(2, 3, 96, 64)
    c3, c4, c5 = network.features(x)
    p5 = block(c5, 2)
    p4 = block(torch.cat([doubled(layer(p5, "neck.narrow.1")), c4], 1), 1)
    p3 = block(torch.cat([doubled(layer(p4, "neck.narrow.0")), c3], 1), 0)
    expected = [out(p, i) for i, p in enumerate((p3, p4, p5))]
    actual = network(x)["levels"]
    assert [tuple(m.shape) for m in actual] == [(2, 27, 12, 8), (2, 27, 6, 4), (2, 27, 3, 2)]
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.std()))


def test_what_it_says_of_itself():
    network = small()
    assert network.strides == (8, 16, 32)
    assert network.anchors[0] == ((10, 13), (16, 30), (33, 23))
    assert network.anchors[2] == ((116, 90), (156, 198), (373, 326))
    prepared = network.preprocessing
    assert (prepared.size, prepared.fit, prepared.pad_value) == ((416, 416), "letterbox", 128)
    assert (prepared.mean, prepared.std) == ((0, 0, 0), (1, 1, 1))
    assert [unit.name for unit in network.units()][-2:] == ["backbone.stages.6.0", "neck"]
    assert network.backbone.preprocessing.mean == (0.485, 0.456, 0.406)  # what its weights want


@torch.no_grad()
def test_both_modes_answer_levels_at_every_cut():
    network = small().eval()
    x = torch.randn(2, 3, 64, 64)
    whole = network(x)
    assert set(whole) == {"levels"}
    state = x
    for cut in network.cuts():
        again = network(state, start=cut)["levels"]
        assert all(torch.equal(a, b) for a, b in zip(again, whole["levels"], strict=True))
        if cut < len(network.units()):
            state = network.run(state, start=cut, stop=cut + 1)
    trunk = network.run(x, stop=len(network.units()) - 1)
    assert [m.shape[2] for m in (trunk[0], *split(trunk)[1])] == [2, 8, 4]  # C5, C3, C4
    network.train()
    assert set(network(x)) == {"levels"}
    assert [m.shape for m in network(x)["levels"]] == [m.shape for m in whole["levels"]]


def test_gradient_reaches_every_parameter():
    network = small(drop_path=0.0).train()
    levels = network(torch.randn(2, 3, 96, 96))["levels"]
    sum((m * torch.randn_like(m)).sum() for m in levels).backward()
    assert not [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]


BACKBONES = ["resnet18", "resnet50", "mobilenet_v1_025", "mobilenet_v3_small_050", "googlenet",
             "efficientnet_lite0", "vgg11", "darknet53", "xception"]  # fmt: skip
PYRAMIDS = "resnet* resnext* mobilenet* *efficientnet_* vgg* googlenet* xception"
OTHERS = {n for p in PYRAMIDS.split() for n in list_models(p, kind="classifier")} - {*BACKBONES}


@pytest.mark.parametrize(
    "name", [*BACKBONES, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(OTHERS))]
)
def test_any_backbone(name):
    network = on_meta(backbone=name, num_classes=3).eval()
    maps = network(torch.empty(2, 3, 128, 96, device="meta"))["levels"]
    assert [m.shape[:2] for m in maps] == [(2, 24)] * 3


def test_networks_that_cannot_be_a_backbone():
    with pytest.raises(UsageError, match="no feature level 3"):
        on_meta(backbone="vit_base_patch32")
    with pytest.raises(UsageError, match="yolov3 is a detector, not a backbone"):
        on_meta(backbone="yolov3")
    with pytest.raises(UsageError, match=r"'resnet81'.*did you mean"):
        on_meta(backbone="resnet81")
    with pytest.raises(UsageError, match=r"no argument 'dpeth'.*did you mean 'depth'"):
        on_meta(backbone="tf_efficientnet_b0", backbone_arguments={"dpeth": 1.0})
    with pytest.raises(UsageError, match="three whole numbers"):
        on_meta(backbone=SMALL, widths=[8, 8])
    with pytest.raises(UsageError, match="yolov3 has a head of its own"):
        on_meta(backbone=SMALL, head="mlp")
    with pytest.raises(UsageError, match="drop_path must be at least 0 and below 1"):
        on_meta(backbone=SMALL, drop_path=1.0)


def test_widths():
    assert widths_for((40, 112, 320)) == [40, 112, 320]
    assert widths_for((80, 224, 640)) == [80, 224, 640]
    assert widths_for((256, 512, 1024)) == [128, 256, 512]  # DarkNet-53: the original
    assert widths_for((512, 1024, 2048)) == [128, 256, 512]  # ResNet-50
    assert small(widths=[8, 16, 24]).head.outs[1].in_channels == 32


def test_drop_connect_in_both_published_ways():
    """By the real number of blocks, or by B0's 16: Keras' maxima."""

    def highest(k, **arguments):
        network = on_meta(backbone=f"tf_efficientnet_b{k}", backbone_arguments=arguments)
        return max(m.rate for m in network.modules() if isinstance(m, DropPath))

    assert [round(highest(k, drop_path_blocks=16), 3) for k in (0, 1, 7)] == [0.188, 0.275, 0.675]
    assert [highest(k) for k in (0, 1, 7)] == pytest.approx(
        [0.2 * n / (n + 1) for n in (15, 22, 54)]
    )
    network = on_meta(backbone="tf_efficientnet_b0", drop_path=0.4)
    assert network.backbone.stages[6][0].drop_path.rate == pytest.approx(0.4 * 15 / 16)
    with pytest.raises(UsageError, match="always drops the 55th"):
        on_meta(
            backbone="tf_efficientnet_b7",
            drop_path=0.3,
            backbone_arguments={"drop_path_blocks": 16},
        )


def test_norms():
    network = on_meta(backbone="tf_efficientnet_b0", norm_eps=1e-5, norm_momentum=0.03)

    def norms(module):
        return {(m.eps, m.momentum) for m in module.modules() if isinstance(m, nn.BatchNorm2d)}

    assert norms(network.backbone) == {(1e-3, 0.01)}
    assert norms(network.neck) == norms(network.head) == {(1e-5, 0.03)}
    assert norms(on_meta(backbone=SMALL).neck) == {(1e-3, 0.1)}
    with torch.device("meta"):  # as a classifier it stays as it was
        assert norms(create_model("tf_efficientnet_b0")) == {(1e-3, 0.1)}


def test_fresh_weights():
    network = small()
    for part in (network.neck, network.head):
        kernels = [m.weight.detach() for m in part.modules() if isinstance(m, nn.Conv2d)]
        for kernel in kernels:
            assert float(kernel.std()) == pytest.approx(0.02, rel=0.1)
            assert abs(float(kernel.mean())) < 0.002
    assert all(not out.bias.any() for out in network.head.outs)


@torch.no_grad()

# --------------------------------------------------------------------------------------- weights


def outs(network):
    """(levels, anchors, 5 + classes, inputs) of the last convolutions, the first level's."""
    weight = network.head.outs[0].weight
    return weight.detach().reshape(3, -1, weight.shape[1])


def save(network, path, classes):
    modelfile.write(
        path,
        network.state_dict(),
        ModelDescription(
            task="detection",
            classes=classes,
            network=network.name,
            arguments=dict(network.arguments),
            preprocessing=network.preprocessing.as_dict(),
        ),
    )
    return path


@pytest.fixture
def saved(tmp_path):
    """A detector of four classes, of which one has to learn to load it: (network, its file)."""
    network = small(backbone_arguments={"norm_eps": 1e-4}, widths=[8, 16, 24])
    return network, save(network, tmp_path / "d.safetensors", ["ant", "bee", "cat", "dog"])


def test_save_and_load(saved):
    network, path = saved
    description, tensors = modelfile.read(path)
    again = create_model(description.network, **description.arguments)
    again.load_state_dict(tensors)
    assert again.arguments == network.arguments
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, actual = network.eval()(x)["levels"], again.eval()(x)["levels"]
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    warm = create_model(
        "yolov3", backbone=SMALL, weights=path, classes=["ant", "bee", "cat", "dog"]
    )
    assert all(torch.equal(t, network.state_dict()[k]) for k, t in warm.state_dict().items())
    assert warm.neck.blocks[0][0].conv.out_channels == 8  # as the file says


def test_classes_are_carried_over_by_name(saved, caplog):
    network, path = saved
    caplog.set_level("INFO", "retinue")
    torch.manual_seed(1)
    warm = create_model("yolov3", backbone=SMALL, weights=path, classes=["dog", "eel", "bee"])
    theirs, ours = outs(network), outs(warm)
    assert torch.equal(ours[:, :5], theirs[:, :5])  # boxes and objectness of every anchor
    assert torch.equal(ours[:, 5], theirs[:, 8])
    assert torch.equal(ours[:, 7], theirs[:, 6])
    assert not any(torch.equal(ours[0, 6], row) for row in theirs[0])
    assert torch.equal(warm.head.convs[0].conv.weight, network.head.convs[0].conv.weight)
    assert "2 of 3 classes carried over by name, new: eel; no longer: ant, cat" in caplog.text


@pytest.mark.parametrize("classes", [["eel"], ["w", "x", "y", "z"]])
def test_other_classes_keep_the_boxes(saved, classes, caplog):
    network, path = saved
    torch.manual_seed(1)
    warm = create_model("yolov3", backbone=SMALL, weights=path, classes=classes)
    assert torch.equal(outs(warm)[:, :5], outs(network)[:, :5])
    assert not torch.equal(outs(warm)[:, 5], outs(network)[:, 5])
    assert warm.first_drawn == len(warm.units())  # but for the head's rows all is known
    assert network.first_drawn == 0
    assert "0 of" in caplog.text
    assert "but for the rows of boxes: head.outs.0.weight" in caplog.text


def test_a_number_alone_keeps_the_boxes(saved, tmp_path):
    network, _ = saved
    path = tmp_path / "d.pth"
    torch.save(network.state_dict(), path)  # no names of classes, and none of the network
    arguments = {"backbone": SMALL, "widths": [8, 16, 24], "weights": path}
    whole = create_model("yolov3", num_classes=4, **arguments)
    assert torch.equal(outs(whole), outs(network))
    fewer = create_model("yolov3", num_classes=2, **arguments)
    assert torch.equal(outs(fewer)[:, :5], outs(network)[:, :5])


def test_weights_of_the_backbone_alone(tmp_path, caplog):
    """By its own keys, a library's, or a model file of a classifier."""
    classifier = create_model(SMALL, num_classes=3)
    caplog.set_level("INFO", "retinue")
    theirs = untranslate(layouts("mobilenet_v2")[0], classifier.state_dict())
    torch.save(classifier.state_dict(), tmp_path / "ours.pth")
    torch.save(theirs, tmp_path / "theirs.pth")
    modelfile.write(
        tmp_path / "c.safetensors",
        classifier.state_dict(),
        ModelDescription(
            task="classification",
            classes=["a", "b", "c"],
            network=SMALL,
            arguments=dict(classifier.arguments),
            preprocessing=classifier.preprocessing.as_dict(),
        ),
    )
    for path in sorted(tmp_path.iterdir()):
        caplog.clear()
        network = small(weights=path)
        for key, tensor in network.backbone.state_dict().items():
            assert torch.equal(tensor, classifier.state_dict()[key])
        assert f"{path}" in caplog.text
        assert "tensors are its backbone's; neck and head are drawn anew" in caplog.text
        assert network.units()[network.first_drawn].name == "neck"
        # its images are prepared as the backbone learnt to see them, but for how they fit
        own = replace(small().preprocessing, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        assert network.preprocessing == own
        assert create_model("yolov3", **network.arguments).arguments == network.arguments


def test_what_a_backbone_lacks_is_freshly_drawn(tmp_path):
    tensors = create_model(SMALL, num_classes=3).state_dict()
    lacking = next(key for key in tensors if key.startswith("stages.2."))
    torch.save({k: v for k, v in tensors.items() if k != lacking}, tmp_path / "part.pth")
    network = small(weights=tmp_path / "part.pth", partial_weights=True)
    assert f"backbone.{lacking}".startswith(f"{network.units()[network.first_drawn].name}.")


def test_what_a_backbones_weights_bring(tmp_path):
    """torchvision's EfficientNet pads as PyTorch does: its file says so, also within a detector."""
    theirs = create_model("efficientnet_b0", num_classes=3)
    layout = next(x for x in layouts("efficientnet") if x.source == "torchvision")
    path = tmp_path / "w.pth"
    torch.save(untranslate(layout, theirs.state_dict()), path)
    network = small(backbone="tf_efficientnet_b0", weights=path)
    assert network.arguments["backbone_arguments"]["same_padding"] is False
    own = small(
        backbone="tf_efficientnet_b0", weights=path, backbone_arguments={"same_padding": True}
    )
    assert own.arguments["backbone_arguments"]["same_padding"] is True


def test_weights_of_another_network(saved, tmp_path):
    _, path = saved
    with pytest.raises(RetinueError, match="model file holds yolov3, not resnet18"):
        create_model("resnet18", weights=path)
    with pytest.raises(
        RetinueError, match=f"the weights are for the backbone {SMALL}, not resnet18"
    ):
        create_model("yolov3", backbone="resnet18", weights=path)
    torch.save(create_model("resnet18", num_classes=3).state_dict(), tmp_path / "r.pth")
    with pytest.raises(RetinueError, match="belong to another network"):
        small(weights=tmp_path / "r.pth")
    with pytest.raises(UsageError, match=r"mobilenet_v2_035 has no weights called 'coconut'"):
        small(weights="coconut")


def test_a_broken_file_of_a_detector_is_refused(saved, tmp_path):
    network, _ = saved
    state = network.state_dict()
    del state["neck.narrow.1.norm.bias"]
    path = tmp_path / "d.pth"
    torch.save(state, path)
    said = r"do not fit yolov3; missing: neck\.narrow\.1\.norm\.bias; (\d+) of (\d+) tensors loaded"
    with pytest.raises(RetinueError, match=said) as caught:
        create_model("yolov3", backbone=SMALL, widths=[8, 16, 24], num_classes=4, weights=path)

    loaded, total = map(int, re.search(said, str(caught.value)).groups())
    assert (loaded + 1, total) == (total, sum("batches" not in key for key in network.state_dict()))


def test_classes_reset():
    network = small()
    network.reset_head(7)
    assert network.arguments["num_classes"] == 7
    assert [m.shape[1] for m in network.eval()(torch.randn(1, 3, 32, 32))["levels"]] == [36] * 3
