"""What is exported loads strictly in the library it is for, and computes the same there."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from retinue import api, modelfile
from retinue.errors import RetinueError
from retinue.exporting.elsewhere import LIBRARIES, construction
from retinue.exporting.state_dict import Exported
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
    name: str,
    library: str,
    size: tuple[int, int],
    references: Any,
    parity: Any,
    **arguments: Any,
) -> tuple[Any, Any, Exported]:
    """(our network, theirs, what the export says) through a file of a model that is used with
    images of `size`, and an exported one. All in float64, also what the export itself computes."""
    network = create_model(name, num_classes=len(CLASSES), **arguments)
    network.requires_grad_(False)
    parity.randomise(network, size=size, channels=channels_of(network)).double()
    description = ModelDescription(
        task="classification",
        classes=CLASSES,
        network=name,
        arguments=dict(network.arguments),
        preprocessing=replace(network.preprocessing, size=size).as_dict(),
    )
    with tempfile.TemporaryDirectory() as folder:  # gigabytes, which pytest's would keep
        modelfile.write(Path(folder, "best.safetensors"), network.state_dict(), description)
        exported = api.export(folder, library)
        theirs = evaluated(exported.construction.code(), references).double()
        theirs.load_state_dict(load_file(exported.path), strict=True)
    return network.eval(), theirs.eval(), exported


def channels_of(network: Any) -> int:
    return int(network.arguments["in_channels"])


@dataclass(frozen=True)
class Case:
    """A network, and the height and width of the images that it is used with."""

    name: str
    library: str
    size: tuple[int, int] = (96, 96)
    arguments: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    """In every `make test`."""

    def parameter(self) -> Any:
        """As pytest takes it."""
        height, width = self.size
        words = [self.name, self.library, f"{height}x{width}", *self.arguments]
        marks = [] if self.quick else [pytest.mark.parity]
        return pytest.param(self, marks=marks, id="-".join(words))


TF = {"same_padding": True, "norm_eps": 1e-3}

CASES = [
    Case("mobilenet_v2_035", "timm", quick=True),
    Case("mobilenet_v2_035", "torchvision", quick=True),
    Case("mobilenet_v2_050", "timm", arguments={**TF, "in_channels": 1}),
    Case("mobilenet_v2_050", "torchvision", arguments={"norm_eps": 1e-3}),
    Case("mobilenet_v1", "timm"),
    Case("mobilenet_v1", "timm", arguments=TF),
    Case("mobilenet_v3_small", "timm"),
    Case("mobilenet_v3_small", "timm", arguments={"same_padding": True}),
    Case("mobilenet_v3_small_050", "timm"),
    Case("mobilenet_v3_large", "torchvision"),
    Case("mobilenet_v3_small", "torchvision", arguments={"norm_eps": 1e-5}),
    Case("resnet18", "timm", arguments={"in_channels": 4}),
    Case("resnet34", "torchvision"),
    Case("resnet50", "timm", arguments={"norm_eps": 1e-3}),
    Case("resnet50", "torchvision", arguments={"norm_eps": 1e-3}),
    Case("resnext50_32x4d", "torchvision"),
    Case("alexnet", "torchvision"),
    Case("vgg11", "timm"),
    Case("vgg11_bn", "torchvision"),
    Case("googlenet", "torchvision"),
    Case("googlenet", "torchvision", arguments={"auxiliary": True}),
    Case("xception", "timm", arguments={"same_padding": False, "norm_eps": 1e-5}),
    Case("darknet53", "timm"),
    Case("darknet53", "timm", arguments={"slope": 0.01}),
    Case("efficientnet_b0", "timm", arguments={"same_padding": True}),
    Case("efficientnet_b0", "torchvision"),
    Case("efficientnet_b5", "torchvision", arguments={"norm_eps": 1e-3}),
    Case("efficientnet_lite0", "timm"),
    Case("tf_efficientnet_b0", "timm"),
    Case("tf_efficientnet_lite0", "timm", arguments={"same_padding": False, "norm_eps": 1e-5}),
    Case("vit_base_patch32", "timm", (64, 64), {"image_size": 64, "norm_eps": 1e-12}),
    Case(
        "vit_base_patch32", "torchvision", (64, 64), {"image_size": 64, "representation_size": 32}
    ),
    Case("vit_base_patch32", "timm", (64, 64), {"representation_size": 0}),
    Case("vit_base_patch32", "torchvision", (64, 64), {"representation_size": 0}),
    Case("vit_base_r50_s16", "timm", (64, 64), {"image_size": 64}),
    # Images larger than the network's native ones, and such as are not square.
    *(
        Case(name, library, size, arguments, quick)
        for name, library, larger, oblong, arguments, quick in (
            ("alexnet", "torchvision", 256, (99, 130), {}, False),
            ("darknet53", "timm", 288, (99, 130), {}, False),
            ("efficientnet_b0", "timm", 256, (99, 130), {}, False),
            ("efficientnet_b0", "torchvision", 256, (99, 130), {}, False),
            ("tf_efficientnet_b0", "timm", 256, (99, 130), {}, False),
            ("googlenet", "torchvision", 256, (99, 130), {}, False),
            ("vit_base_r50_s16", "timm", 256, (72, 100), {}, False),
            ("mobilenet_v1", "timm", 256, (99, 130), {}, False),
            ("mobilenet_v1", "timm", 257, (99, 130), TF, False),
            ("mobilenet_v2_035", "timm", 256, (99, 130), {}, True),
            ("mobilenet_v2_035", "torchvision", 256, (99, 130), {}, True),
            ("mobilenet_v2_035", "timm", 257, (99, 130), TF, True),
            ("mobilenet_v3_small", "timm", 256, (99, 130), {}, False),
            ("mobilenet_v3_small", "torchvision", 256, (99, 130), {"norm_eps": 1e-5}, False),
            ("resnet18", "timm", 256, (99, 130), {}, False),
            ("resnet18", "torchvision", 256, (99, 130), {}, False),
            ("vgg11", "timm", 255, (99, 255), {}, False),  # the largest that is exported
            ("vgg11", "torchvision", 256, (99, 288), {}, False),
            ("vit_base_patch32", "timm", 256, (96, 64), {}, False),
        )
        for size in ((larger, larger), oblong)
    ),
    Case("vit_base_patch32", "torchvision", (256, 256)),  # and no oblong ones
    Case("xception", "timm", (320, 320), {"same_padding": False, "norm_eps": 1e-5}),
    Case("xception", "timm", (99, 130), {"same_padding": False, "norm_eps": 1e-5}),
]


@pytest.mark.parametrize("case", [case.parameter() for case in CASES])
def test_export(case: Case, references: Any, parity: Any) -> None:
    """The tensors being the same, what remains is the functions: in float64 no rounding hides a
    difference like that of two epsilons."""
    ours, theirs, exported = exported_and_loaded(
        case.name, case.library, case.size, references, parity, **case.arguments
    )
    size = exported.preprocessing.size
    assert size == case.size
    assert parity.relative_error(ours, theirs, size, channels=channels_of(ours)) <= 1e-8


@pytest.mark.parity
def test_vgg_of_larger_maps_is_refused_for_a_reason(references: Any, parity: Any) -> None:
    """timm's takes any image, and computes something else where the map is above 7×7."""
    ours, theirs, _ = exported_and_loaded("vgg11", "timm", (224, 224), references, parity)
    for size in ((256, 256), (160, 288)):
        assert parity.relative_error(ours, theirs, size) > 0.01
        with pytest.raises(RetinueError, match="averages the map to 7×7"):
            construction("timm", ours, size)


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
                construction(library, network, network.preprocessing.size)
            return
        made = construction(library, network, network.preprocessing.size)
        theirs = evaluated(made.code(), references).state_dict()
    state = untranslate(made.layout, network.state_dict())
    assert {k: t.shape for k, t in state.items()} == {k: t.shape for k, t in theirs.items()}
