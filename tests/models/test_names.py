"""Names of other libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from retinue.errors import RetinueError, UsageError
from retinue.models import names, registry
from retinue.models.names import Called, aliases
from retinue.models.options import ModelOptions
from retinue.models.registry import called, create_model, find, list_models
from retinue.weights import catalogue, resolution
from retinue.weights.catalogue import WeightsEntry

ZOO = list_models()


def test_every_alias_means_one_network_and_a_set_of_weights_that_there_is() -> None:
    assert len(aliases()) > 200
    for alias, meant in aliases().items():
        assert called(alias) == meant, alias
        assert alias not in ZOO
        if meant.tag is not None:
            catalogue.find(meant.network, meant.tag)


def test_names_of_ours_mean_themselves_and_no_two_libraries_disagree() -> None:
    for name in ZOO:
        assert called(name) == Called(name)
        assert called(name.upper()) == Called(name)
        assert find(name).name == name
    # but for capitals, hyphens and underscores, where an exact name goes first
    folded: dict[str, set[str]] = {}
    for alias, meant in aliases().items():
        folded.setdefault(names._folded(alias), set()).add(meant.network)
    double = {word for word, meant in folded.items() if len(meant) > 1}
    assert not double


def test_every_network_of_other_libraries_has_its_names() -> None:
    for library in (names.TIMM, names.TORCHVISION, names.KERAS):
        assert len(set(library.values())) == len(library)
        for ours, theirs in library.items():
            assert called(theirs).network == ours
    for name in ZOO:
        for library, table in (("timm", names.TIMM), ("torchvision", names.TORCHVISION)):
            if library in find(name).reference and "width_mult" not in find(name).reference:
                assert name in table, (library, name)


@pytest.mark.parametrize(
    ("name", "network", "tag"),
    [
        ("vit_base_patch16_224", "vit_base_patch16", None),
        ("vit_base_patch16_384", "vit_base_patch16", "augreg_384"),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", "vit_base_patch16", "augreg2"),
        ("vit_b_16", "vit_base_patch16", None),
        ("ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1", "vit_base_patch16", "swag_e2e"),
        ("ViT-B/16", "vit_base_patch16", None),
        ("ViT-B_16", "vit_base_patch16", None),
        ("google/vit-base-patch16-224", "vit_base_patch16", "transformers"),
        ("mobilenetv2_100", "mobilenet_v2", None),
        ("mobilenetv3_large_100.ra_in1k", "mobilenet_v3_large", "ra"),
        ("mobilenet_v3_large", "mobilenet_v3_large", None),
        ("MobileNetV3Small", "mobilenet_v3_small", None),
        ("efficientnet_b0.ra_in1k", "efficientnet_b0", "ra"),
        ("EfficientNetB0", "tf_efficientnet_b0", None),
        ("efficientnet-b0", "efficientnet_b0", None),
        ("tf_efficientnet_b4_ns", "tf_efficientnet_b4", "noisy_student"),
        ("ResNet50", "resnet50_v1", None),
        ("ResNet-50", "resnet50", None),
        ("resnet50.a1_in1k", "resnet50", "a1"),
        ("resnet50.a1", "resnet50", "a1"),
        ("timm/resnet50.a1_in1k", "resnet50", "a1"),
        ("hf_hub:timm/resnet50.a1_in1k", "resnet50", "a1"),
        ("hf-hub:timm/resnet50.a1_in1k", "resnet50", "a1"),
        ("resnet50.tv2_in1k", "resnet50", "imagenet_v2"),
        ("ResNet50_Weights.IMAGENET1K_V2", "resnet50", "imagenet_v2"),
        ("torchvision.models.resnet50", "resnet50", None),
        ("keras.applications.ResNet50", "resnet50_v1", None),
        ("microsoft/resnet-50", "resnet50", None),
        ("legacy_xception", "xception", None),
        ("inception_v1", "googlenet", None),
        ("VGG16", "vgg16", None),
    ],
)
def test_names_that_people_type(name: str, network: str, tag: str | None) -> None:
    assert called(name) == (network, tag)


def test_what_nobody_calls_so_names_the_nearest() -> None:
    for wrong, near in (("vit_base_patch16_24", "vit_base_patch16"), ("RasNet5O", "ResNet50"),
                        ("mobilnetv2_100", "mobilenetv2_100"),
                        ("resnext", "resnext50")):  # fmt: skip
        with pytest.raises(UsageError, match=f"unknown network.*{near}"):
            called(wrong)
    with pytest.raises(UsageError, match=r"resnet50 has no weights called 'b2k_in1k', it has"):
        called("resnet50.b2k_in1k")
    assert not registry.is_network("nothing")


def test_a_recipe_records_our_name_and_the_weights_that_the_name_tells() -> None:
    options = ModelOptions.model_validate({"name": "resnet50.a1_in1k"})
    assert (options.name, options.weights) == ("resnet50", "a1")
    options = ModelOptions(name="resnet50.a1_in1k", weights="imagenet")
    assert (options.name, options.weights) == ("resnet50", "a1")
    options = ModelOptions(name="efficientnet_b0.ra_in1k", weights=None)
    assert (options.name, options.weights) == ("efficientnet_b0", None)
    options = ModelOptions(name="vit_b_16", weights="mine.pth")
    assert (options.name, options.weights) == ("vit_base_patch16", "mine.pth")


def test_a_network_is_built_and_named_as_ours() -> None:
    network = create_model("mobilenetv3_small_050", num_classes=2)
    assert network.name == "mobilenet_v3_small_050"


def test_patterns_find_other_names_where_ours_do_not_match() -> None:
    assert list_models("vit_b_*") == ["vit_base_patch16", "vit_base_patch32"]
    assert "mobilenet_v2" in list_models("mobilenetv2*")
    assert list_models("resnet18*") == ["resnet18"]


def test_the_zoo_is_known_without_building_it() -> None:
    assert set(names.ZOO) == {name for name in ZOO if find(name).family not in ("tiny", "thin")}


def test_names_are_told_without_torch() -> None:
    program = "import sys, retinue.models.names; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_weights_that_are_not_to_be_had_name_a_network_that_has_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "at_hand", lambda w: tmp_path if w.network == "vgg11" else None)

    def nowhere(entry: WeightsEntry) -> Path:
        raise RetinueError("not on this machine and cannot be fetched", mend="give a file")

    monkeypatch.setattr(resolution, "locate", nowhere)
    for name, weights in (("vgg13", "imagenet"), ("vgg13.tv_in1k", "imagenet"),
                          ("resnet50", "a1"), ("efficientnet_lite4", "imagenet")):  # fmt: skip
        with pytest.raises(RetinueError, match="; vgg11 has 'imagenet' on this machine"):
            create_model(name, weights=weights)
    with pytest.raises(UsageError, match=r"no weights called 'imagnet', did you mean"):
        create_model("vgg13", weights="imagnet")
    monkeypatch.setattr(registry, "at_hand", lambda w: None)
    with pytest.raises(RetinueError) as raised:
        create_model("vgg13", weights="imagenet")
    assert "on this machine'" not in str(raised.value)


def test_the_nearest_weights_are_of_the_family_and_then_of_the_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = {"resnet18", "resnet101", "vgg11", "tf_efficientnet_lite0"}
    monkeypatch.setattr(registry, "at_hand", lambda w: tmp_path if w.network in here else None)
    for name, other in (("resnet50", "resnet101"), ("resnet34", "resnet18"), ("vgg19", "vgg11"),
                        ("mobilenet_v2", "tf_efficientnet_lite0")):  # fmt: skip
        found = registry.nearest_at_hand(find(name))
        assert found is not None
        assert found.network == other
