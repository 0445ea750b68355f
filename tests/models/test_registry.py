"""The registry: names, facts, and what it refuses."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from pydantic import ValidationError

from retinue.errors import RetinueError, UsageError
from retinue.models import registry
from retinue.models.anatomy import count_macs
from retinue.models.mobilenet_v2 import MobileNetV2
from retinue.models.options import ModelOptions
from retinue.models.registry import NetworkEntry, create_model, find, list_models
from retinue.sample import Preprocessing
from retinue.weights import catalogue
from retinue.weights.layout import layouts, untranslate

# Trainable parameters with 1,000 classes, as torchvision, timm, Keras and the papers' authors state
PUBLISHED_PARAMETERS = {
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "googlenet": 6_624_904,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50_v1": 25_557_032,
    "resnet101_v1": 44_549_160,
    "resnet152_v1": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_small": 2_542_856,
    "mobilenet_v3_large": 5_483_032,
    "xception": 22_855_952,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "efficientnet_b8": 87_413_142,
    "efficientnet_l2": 480_309_308,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
    "vit_base_patch16": 86_567_656,
    "vit_base_patch32": 88_224_232,
    "vit_large_patch16": 304_326_632,
    "vit_large_patch32": 306_535_400,
    "vit_huge_patch14": 632_045_800,
    "vit_base_r50_s16": 98_659_112,
    "darknet53": 41_609_928,
}
PUBLISHED_PARAMETERS |= {
    f"tf_{name}": parameters
    for name, parameters in PUBLISHED_PARAMETERS.items()
    if name.startswith("efficientnet")
}

# In units of 1e9 multiply-adds: torchvision's, at the size of ours (its B2 is measured at 288), and
# MobileNetV1's from its paper (table 6). Of the others nobody states them counted in this way.
PUBLISHED_GMACS = {
    "alexnet": 0.714,
    "vgg11": 7.609,
    "vgg13": 11.308,
    "vgg16": 15.470,
    "vgg19": 19.632,
    "vgg11_bn": 7.609,
    "vgg13_bn": 11.308,
    "vgg16_bn": 15.470,
    "vgg19_bn": 19.632,
    "googlenet": 1.498,
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "resnet101": 7.801,
    "resnet152": 11.514,
    "resnext50_32x4d": 4.230,
    "resnext101_32x8d": 16.414,
    "mobilenet_v1": 0.569,
    "mobilenet_v1_075": 0.325,
    "mobilenet_v1_050": 0.149,
    "mobilenet_v1_025": 0.041,
    "mobilenet_v2": 0.301,
    "mobilenet_v3_small": 0.0565,
    "mobilenet_v3_large": 0.217,
    "efficientnet_b0": 0.386,
    "efficientnet_b1": 0.687,
    "efficientnet_b3": 1.827,
    "efficientnet_b4": 4.394,
    "efficientnet_b5": 10.266,
    "efficientnet_b6": 19.068,
    "efficientnet_b7": 37.746,
    "vit_base_patch16": 17.564,
    "vit_base_patch32": 4.409,
    "vit_large_patch16": 61.555,
    "vit_large_patch32": 15.378,
    "vit_huge_patch14": 167.295,
}
PUBLISHED_GMACS |= {
    f"tf_{name}": gmacs
    for name, gmacs in PUBLISHED_GMACS.items()
    if name.startswith("efficientnet")
}


def on_meta(name, **arguments):
    with torch.device("meta"):
        return create_model(name, **arguments)


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_published_parameters(name, meta):
    """One network after the other: what is missing fails, too."""
    network = meta(name)
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trainable == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", list_models())
def test_facts_are_counted(name, meta):
    entry, network = find(name), meta(name)
    assert sum(p.numel() for p in network.parameters()) == entry.parameters
    assert count_macs(network, entry.preprocessing.size) == entry.macs


@pytest.mark.parametrize("name", PUBLISHED_GMACS)
def test_published_macs(name):
    """Within 1 %; what the entries state is counted above."""
    assert find(name).macs == pytest.approx(PUBLISHED_GMACS[name] * 1e9, rel=0.01)


def test_auxiliary_classifiers_of_googlenet():
    network = on_meta("googlenet", auxiliary=True)
    assert sum(p.numel() for p in network.parameters()) == 13_004_888


def test_facts_are_plausible():
    for name in list_models():
        entry = find(name)
        assert entry.name == name
        assert entry.paper
        assert entry.reference


def test_patterns():
    assert list_models("resnet??") == ["resnet18", "resnet34", "resnet50"]
    assert list_models("nothing*") == []


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"'resnet51'.*did you mean 'resnet50'"):
        find("resnet51")


def test_duplicates_are_refused(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    entry = NetworkEntry(
        name="mine",
        family="mine",
        build=partial(MobileNetV2, width=0.1),
        preprocessing=Preprocessing(),
        parameters=0,
        macs=0,
        paper="none",
        reference="none",
    )
    registry.register(entry)
    assert create_model("mine", num_classes=4).arguments["width"] == 0.1
    with pytest.raises(ValueError, match="'mine' is already registered"):
        registry.register(entry)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dropuot": 0.1}, r"no argument 'dropuot'.*did you mean 'dropout'"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"num_classes": "a"}, "num_classes must be a whole number, not 'a'"),
        ({"num_classes": True}, "num_classes must be a whole number, not True"),
        ({"width": 0}, "width must be above 0, not 0"),
        ({"width": float("nan")}, "width must be above 0, not nan"),
        ({"norm_eps": "a"}, "norm_eps must be a number, not 'a'"),
        ({"same_padding": 1}, "same_padding must be true or false, not 1"),
        ({"drop_path": -0.1}, "drop_path must be at least 0 and below 1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        create_model("mobilenet_v2", **arguments)


def test_no_stochastic_depth_is_what_any_network_can_do():
    network = create_model("yolov3_tiny", num_classes=2, drop_path=0.0, dropout=0)
    assert not {"drop_path", "dropout"} & set(network.arguments)
    with pytest.raises(UsageError, match="takes no argument 'drop_path'"):
        create_model("yolov3_tiny", num_classes=2, drop_path=0.1)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet50", {"depth": 20}),
        ("vgg16", {"depth": 12}),
        ("alexnet", {"form": "x"}),
        ("mobilenet_v3_small", {"variant": "x"}),
        ("vit_base_patch32", {"patch": 0}),
        ("vit_base_patch32", {"depth": 0}),
    ],
)
def test_impossible_forms_are_refused(name, arguments):
    with torch.device("meta"), pytest.raises(UsageError, match=next(iter(arguments))):
        create_model(name, **arguments)


def test_positional_arguments_are_refused():
    with pytest.raises(TypeError):
        create_model("mobilenet_v2", 10)  # type: ignore[misc]


def test_arguments_build_the_same_network_again():
    first = on_meta("tf_efficientnet_lite1", num_classes=7, dropout=0.5, in_channels=1)
    again = on_meta(first.name, **first.arguments)
    assert again.arguments == first.arguments
    assert str(again) == str(first)
    first.reset_head(3)
    assert on_meta(first.name, **first.arguments).head.fc.out_features == 3


def test_dropout_and_drop_path_arrive():
    network = on_meta("efficientnet_b0", dropout=0.7, drop_path=0.4)
    assert network.head.dropout.p == 0.7
    rates = [block.drop_path.rate for stage in network.stages for block in stage]
    assert rates == pytest.approx([0.4 * i / 16 for i in range(16)])  # linearly rising
    assert on_meta("efficientnet_b5").head.dropout.p == 0.4


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2_035"])
def test_weights_of_another_network_are_refused(name, tmp_path):
    """By a message that says which file and which network; a path need not be text."""
    path = tmp_path / "r18.pt"
    torch.save(create_model("resnet18", num_classes=3).state_dict(), path)
    with pytest.raises(RetinueError, match=rf"belong to another network.*r18\.pt.* for {name}"):
        create_model(name, num_classes=3, weights=path)


@pytest.mark.parametrize("partial", [False, True])
def test_weights_of_which_nothing_fits_are_refused(partial, tmp_path):
    path = tmp_path / "w.pt"
    state = create_model("mobilenet_v2_035", num_classes=3).state_dict()
    torch.save({f"{key}_of_another": tensor for key, tensor in state.items()}, path)
    with pytest.raises(
        RetinueError, match=r"none of its tensors among stem\.conv\.weight_of.*w\.pt"
    ):
        create_model("mobilenet_v2_035", weights=path, partial_weights=partial)
    head = {key: tensor for key, tensor in state.items() if key.startswith("head.fc")}
    torch.save(head, path)
    with pytest.raises(RetinueError, match="none of its tensors"):
        create_model("mobilenet_v2_035", weights=path, partial_weights=partial)


def test_most_of_a_network_is_not_left_to_chance(tmp_path):
    """Other networks may share a few of its names."""
    state = create_model("mobilenet_v2_035", num_classes=3).state_dict()
    path = tmp_path / "w.pt"
    torch.save({key: tensor for key, tensor in state.items() if "norm" in key}, path)
    with pytest.raises(RetinueError, match="do not fit mobilenet_v2_035; missing") as caught:
        create_model("mobilenet_v2_035", weights=path, partial_weights=True)
    assert "partial_weights" not in str(caught.value.mend)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"weights": True}, "named by text or a path, not by bool, give a tag such as 'imagenet'"),
        ({"weights": {}}, "not by dict"),
        ({"weights": "https://example.com/w.pth"}, "not fetched from any address.*download"),
        ({"pretrained": True}, "no argument 'pretrained', name them: weights='imagenet'"),
        ({"widht": 1.0}, "did you mean 'width'"),
        ({"nothing_like_it": 1}, "it takes weights, width"),
    ],
)
def test_what_is_no_way_to_ask_for_weights(keywords, message):
    with pytest.raises(UsageError, match=message):
        create_model("mobilenet_v2_035", **keywords)


def test_a_home_that_nobody_has(tmp_path):
    with pytest.raises(UsageError, match=r"no such file.*~nobody_at_all"):
        create_model("resnet18", weights="~nobody_at_all/x.pth")


@pytest.mark.parametrize("value", ["abc", True, 2.5, [1], -5])
def test_impossible_representations(value):
    with pytest.raises(UsageError, match="representation_size must be a whole number"):
        create_model("vit_base_patch16", representation_size=value)


def test_sizes_beyond_all_memory():
    with pytest.raises(UsageError, match=r"cannot be built with num_classes=1000000000000000000"):
        create_model("mobilenet_v2_035", num_classes=10**18)
    with pytest.raises(UsageError, match=r"cannot be built with.*width=1e\+30"):
        create_model("mobilenet_v2", width=1e30)


def of_torchvision(name, path):
    """A file of torchvision's for the network `name`."""
    layout = next(x for x in layouts(find(name).family) if x.source == "torchvision")
    torch.save(untranslate(layout, create_model(name, num_classes=3).state_dict()), path)
    return path


@pytest.mark.parametrize(
    ("written", "asked", "brought"),
    [
        ("efficientnet_b0", "tf_efficientnet_b0", {"same_padding": False, "norm_eps": 1e-5}),
        ("efficientnet_b5", "efficientnet_b5", {"same_padding": False, "norm_eps": 1e-3}),
        ("resnet50", "resnet50_v1", {"stride_on": "3x3"}),
    ],
)
def test_what_a_files_keys_tell_is_used(written, asked, brought, tmp_path, caplog):
    """And what is not as in the network of that name is said."""
    path = of_torchvision(written, tmp_path / "w.pth")
    with caplog.at_level("INFO", "retinue"):
        network = create_model(asked, num_classes=3, weights=path)
    assert {key: network.arguments[key] for key in brought} == brought
    defaults = create_model(asked, num_classes=3).arguments
    changed = [f"{k}={v!r}" for k, v in brought.items() if defaults[k] != v]
    assert changed
    assert f"built with {', '.join(changed)}" in caplog.text
    own = {key: defaults[key] for key in brought}
    again = create_model(asked, num_classes=3, weights=path, **own)
    assert {key: again.arguments[key] for key in brought} == own


def test_what_is_not_taken_as_it_is_is_a_warning(tmp_path, caplog):
    """Which Python shows where nobody has set up any logging."""
    path = of_torchvision("resnet18", tmp_path / "w.pth")
    with caplog.at_level("WARNING", "retinue"):
        create_model("resnet18", num_classes=3, weights=path)
        assert caplog.text == ""
        create_model("resnet18", num_classes=4, in_channels=1, weights=path)
    assert "re-initialised: head.fc.weight, head.fc.bias; adapted: stem.conv.weight" in caplog.text


def test_preprocessing_of_every_published_set_is_known():
    for entry in catalogue.entries():
        network = find(entry.network)
        prepared = network.prepared(entry)
        assert prepared == (entry.preprocessing or prepared)
        assert prepared.size[0] >= 28
    caffe = find("vgg16").prepared(catalogue.find("vgg16", "keras"))
    assert caffe.std == (1 / 255, 1 / 255, 1 / 255)
    squashed = find("vit_base_patch16").prepared(catalogue.find("vit_base_patch16", "transformers"))
    assert (squashed.fit, squashed.interpolation) == ("squash", "bilinear")


def test_partial_weights_only_when_asked_for(tmp_path, caplog):
    network = create_model("mobilenet_v2_035", num_classes=3)
    state = network.state_dict()
    del state["stages.3.1.project.norm.bias"]
    state["stages.9.extra"] = torch.zeros(1)
    path = str(tmp_path / "partial.pt")
    torch.save(state, path)
    named = r"missing: stages\.3\.1\.project\.norm\.bias; unexpected: stages\.9\.extra"
    with pytest.raises(RetinueError, match=named):
        create_model("mobilenet_v2_035", num_classes=3, weights=path)
    with caplog.at_level("INFO", "retinue"):
        loaded = create_model("mobilenet_v2_035", num_classes=5, weights=path, partial_weights=True)
    assert loaded.units()[loaded.first_drawn].name == "stages.3.1"
    assert "missing: stages.3.1.project.norm.bias" in caplog.text
    assert "re-initialised: head.fc.weight, head.fc.bias" in caplog.text


def test_options():
    assert ModelOptions(name="resnet18").weights == "imagenet"
    with pytest.raises(ValidationError, match="did you mean 'resnet18'"):
        ModelOptions(name="resnet81")
    with pytest.raises(ValidationError):
        ModelOptions(name="resnet18", dropout=1.5)
    with pytest.raises(ValidationError, match="in_channels is always 3"):
        ModelOptions(name="mnist_cnn", arguments={"in_channels": 1})
    with pytest.raises(ValidationError, match="num_classes is the number of classes in the data"):
        ModelOptions(name="resnet18", arguments={"num_classes": 7})
    with pytest.raises(ValidationError, match=r"model\.weights names them"):
        ModelOptions(name="resnet18", arguments={"weights": "imagenet"})
    for word in ("None", "none", "null"):
        assert ModelOptions(name="resnet18", weights=word).weights is None
    assert ModelOptions(name="resnet18", weights="nonesuch").weights == "nonesuch"


def test_image_size_is_the_size_of_the_preprocessing_too():
    assert create_model("mnist_cnn", num_classes=3, image_size=12).preprocessing.size == (12, 12)
    assert create_model("mnist_cnn", num_classes=3).preprocessing.size == (28, 28)


def test_auxiliary_classifiers_that_find_no_use_are_said(tmp_path, caplog):
    path = tmp_path / "weights.pth"
    full = create_model("googlenet", num_classes=3, auxiliary=True)
    torch.save(untranslate(layouts("googlenet")[0], full.state_dict()), path)
    with caplog.at_level("INFO", "retinue"):
        create_model("googlenet", num_classes=3, weights=str(path))
    assert "of no use here: aux1.conv.conv.weight" in caplog.text
