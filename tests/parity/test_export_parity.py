"""What is exported loads strictly in the library it is for, and computes the same there."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from retinue import api, modelfile
from retinue.errors import RetinueError
from retinue.exporting.elsewhere import LIBRARIES, construction
from retinue.modelfile import ModelDescription
from retinue.models.registry import create_model, find, list_models
from retinue.weights.layout import untranslate

CLASSES = ["a", "b", "c", "d", "e"]


def evaluated(code: str, references: Any) -> Any:
    """The network that the printed line builds."""
    known = {
        "torchvision": references.torchvision,
        "timm": references.timm,
        "torch": torch,
        "functools": functools,
    }
    return eval(code, known)


def exported_and_loaded(
    name: str, library: str, references: Any, parity: Any, folder: Path, **arguments: Any
) -> tuple[Any, Any]:
    """(our network, theirs) through a model file and an exported one."""
    network = create_model(name, num_classes=len(CLASSES), **arguments)
    network.requires_grad_(False)
    parity.randomise(network, size=size_of(network), channels=channels_of(network))
    description = ModelDescription(
        task="classification",
        classes=CLASSES,
        network=name,
        arguments=dict(network.arguments),
        preprocessing=network.preprocessing.as_dict(),
    )
    modelfile.write(folder / "best.safetensors", network.state_dict(), description)
    exported = api.export(folder, library)
    theirs = evaluated(exported.construction.code(), references)
    theirs.load_state_dict(load_file(exported.path), strict=True)
    return network.eval(), theirs.eval()


def size_of(network: Any) -> tuple[int, int]:
    side = network.arguments.get("image_size") or 96
    return side, side


def channels_of(network: Any) -> int:
    return int(network.arguments["in_channels"])


# name, library, arguments, in every `make test`
CASES: list[tuple[str, str, dict[str, Any], bool]] = [
    ("mobilenet_v2_035", "timm", {}, True),
    ("mobilenet_v2_035", "torchvision", {}, True),
    ("mobilenet_v2_050", "timm", {"same_padding": True, "norm_eps": 1e-3, "in_channels": 1}, False),
    ("mobilenet_v2_050", "torchvision", {"norm_eps": 1e-3}, False),
    ("mobilenet_v1", "timm", {}, False),
    ("mobilenet_v1", "timm", {"same_padding": True, "norm_eps": 1e-3}, False),
    ("mobilenet_v3_small", "timm", {}, False),
    ("mobilenet_v3_small", "timm", {"same_padding": True}, False),
    ("mobilenet_v3_small_050", "timm", {}, False),
    ("mobilenet_v3_large", "torchvision", {}, False),
    ("mobilenet_v3_small", "torchvision", {"norm_eps": 1e-5}, False),
    ("resnet18", "timm", {"in_channels": 4}, False),
    ("resnet34", "torchvision", {}, False),
    ("resnet50", "timm", {"norm_eps": 1e-3}, False),
    ("resnet50", "torchvision", {"norm_eps": 1e-3}, False),
    ("resnext50_32x4d", "torchvision", {}, False),
    ("alexnet", "torchvision", {}, False),
    ("vgg11", "timm", {}, False),
    ("vgg11_bn", "torchvision", {}, False),
    ("googlenet", "torchvision", {}, False),
    ("googlenet", "torchvision", {"auxiliary": True}, False),
    ("xception", "timm", {"same_padding": False, "norm_eps": 1e-5}, False),
    ("darknet53", "timm", {}, False),
    ("darknet53", "timm", {"slope": 0.01}, False),
    ("efficientnet_b0", "timm", {"same_padding": True}, False),
    ("efficientnet_b0", "torchvision", {}, False),
    ("efficientnet_b5", "torchvision", {"norm_eps": 1e-3}, False),
    ("efficientnet_lite0", "timm", {}, False),
    ("tf_efficientnet_b0", "timm", {}, False),
    ("tf_efficientnet_lite0", "timm", {"same_padding": False, "norm_eps": 1e-5}, False),
    ("vit_base_patch32", "timm", {"image_size": 64, "norm_eps": 1e-12}, False),
    ("vit_base_patch32", "torchvision", {"image_size": 64, "representation_size": 32}, False),
    ("vit_base_r50_s16", "timm", {"image_size": 64}, False),
]


@pytest.mark.parametrize(
    ("name", "library", "arguments"),
    [
        pytest.param(
            *case, marks=[] if quick else pytest.mark.parity, id="-".join([*case[:2], *case[2]])
        )
        for *case, quick in CASES
    ],
)
def test_export(
    name: str, library: str, arguments: Any, references: Any, parity: Any, tmp_path: Path
) -> None:
    """The tensors being the same, what remains is the functions: in float64 no rounding hides a
    difference like that of two epsilons."""
    ours, theirs = exported_and_loaded(name, library, references, parity, tmp_path, **arguments)
    error = parity.relative_error(
        ours.double(), theirs.double(), size_of(ours), channels=channels_of(ours)
    )
    assert error <= 1e-8


BY_FAMILY = {
    "alexnet": ["torchvision"],
    "darknet53": ["timm"],
    "efficientnet": LIBRARIES,
    "googlenet": ["torchvision"],
    "hybrid_vit": ["timm"],
    "mnist": [],
    "mobilenet_v1": ["timm"],
    "mobilenet_v2": LIBRARIES,
    "mobilenet_v3": LIBRARIES,
    "resnet": LIBRARIES,
    "vgg": LIBRARIES,
    "vit": LIBRARIES,
    "xception": ["timm"],
}
NOT_THERE = {
    ("xception", "timm"),  # with TensorFlow's padding, as it is by default
    *((f"mobilenet_v1_{width}", "timm") for width in ("025", "050", "075")),
    *(
        (f"mobilenet_v3_{width}", "torchvision")
        for width in ("small_050", "small_075", "large_075")
    ),
    *((f"resnet{depth}_v1", library) for depth in (50, 101, 152) for library in LIBRARIES),
    *((f"efficientnet_{size}", "torchvision") for size in ("b5", "b6", "b7", "b8", "l2")),
    *((f"efficientnet_lite{k}", "torchvision") for k in range(5)),
    *((name, "torchvision") for name in list_models("tf_*")),
    *((name, "torchvision") for name in list_models("alexnet_*")),
    ("googlenet_original", "torchvision"),
}


@pytest.mark.parity
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", list_models())
def test_every_network_has_the_keys_and_shapes_of_theirs(
    name: str, library: str, references: Any
) -> None:
    """On the meta device, so that the giants take part."""
    with torch.device("meta"):
        network = create_model(name, num_classes=5)
        if (name, library) in NOT_THERE or library not in BY_FAMILY[find(name).family]:
            with pytest.raises(RetinueError):
                construction(library, network)
            return
        made = construction(library, network)
        theirs = evaluated(made.code(), references).state_dict()
    state = untranslate(made.layout, network.state_dict())
    assert {k: t.shape for k, t in state.items()} == {k: t.shape for k, t in theirs.items()}
