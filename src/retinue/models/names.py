"""What other libraries call the networks of the zoo, and their sets of weights.

One table for all that needs it: names that people type, `retinue models`, and the way back into
timm and torchvision. Nothing is imported here, so that a shell's completion can ask, too.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple


class Called(NamedTuple):
    """What a name means: a network, and where the name says that, which of its weights."""

    network: str
    tag: str | None = None


_VITS = (("base", 16), ("base", 32), ("large", 16), ("large", 32), ("huge", 14))
_SIZES = (*(f"b{k}" for k in range(9)), "l2", *(f"lite{k}" for k in range(5)))
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
            "resnext50_32x4d", "resnext101_32x8d")  # fmt: skip
_VGGS = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))
_NARROW = ("035", "050", "075", "140")


def _same(names: Iterable[str], **others: str) -> dict[str, str]:
    """Names that both have, and the `others`."""
    return {**{name: name for name in names}, **others}


TIMM: Mapping[str, str] = {
    **_same((*_RESNETS, *_VGGS, "darknet53")),
    **_same(f"{prefix}efficientnet_{size}" for prefix in ("", "tf_") for size in _SIZES),
    **{f"vit_{size}_patch{patch}": f"vit_{size}_patch{patch}_224" for size, patch in _VITS},
    **{f"mobilenet_v2_{width}": f"mobilenetv2_{width}" for width in _NARROW},
    "vit_base_r50_s16": "vit_base_r50_s16_224",
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_small_050": "mobilenetv3_small_050",
    "mobilenet_v3_small_075": "mobilenetv3_small_075",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_large_075": "mobilenetv3_large_075",
    "xception": "legacy_xception",
}
"""Ours → timm's."""

TORCHVISION: Mapping[str, str] = {
    **_same((*_RESNETS, *_VGGS, "alexnet", "googlenet", "mobilenet_v2")),
    **_same(("mobilenet_v3_small", "mobilenet_v3_large")),
    **_same(f"efficientnet_b{k}" for k in range(8)),
    **{f"vit_{size}_patch{patch}": f"vit_{size[0]}_{patch}" for size, patch in _VITS},
}
"""Ours → torchvision's."""

KERAS: Mapping[str, str] = {
    **{f"resnet{depth}_v1": f"ResNet{depth}" for depth in (50, 101, 152)},
    **{f"tf_efficientnet_b{k}": f"EfficientNetB{k}" for k in range(8)},
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "xception": "Xception",
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3Small",
    "mobilenet_v3_large": "MobileNetV3Large",
}
"""Ours → that of `keras.applications`."""

ZOO = sorted({
    *TIMM, *TORCHVISION, *KERAS,
    *(f"mobilenet_v1_{width}" for width in ("025", "050", "075")),
    "alexnet_half", "alexnet_half_1024_128", "alexnet_original", "googlenet_original", "mnist_cnn",
    "yolov3", "yolov3_tiny", "darknet",
})  # fmt: skip
"""All networks of ours, those among them that no other library has."""

_TRANSFORMERS: Mapping[str, Called] = {
    **{f"microsoft/resnet-{depth}": Called(f"resnet{depth}") for depth in (18, 34, 50, 101, 152)},
    **{f"google/efficientnet-b{k}": Called(f"tf_efficientnet_b{k}", "keras") for k in range(8)},
    **{
        f"google/vit-{size}-patch{patch}-224-in21k": Called(
            f"vit_{size}_patch{patch}", "imagenet21k"
        )
        for size, patch in _VITS
    },
    "google/vit-base-patch16-224": Called("vit_base_patch16", "transformers"),
    "google/vit-base-patch16-384": Called("vit_base_patch16", "original_384"),
    "google/vit-large-patch32-384": Called("vit_large_patch32", "original_384"),
    "google/mobilenet_v1_1.0_224": Called("mobilenet_v1"),
    "google/mobilenet_v2_1.0_224": Called("mobilenet_v2"),
    "google/mobilenet_v2_1.4_224": Called("mobilenet_v2_140"),
}
"""Repositories of the hub."""

_PAPERS: Mapping[str, Called] = {
    "inception_v1": Called("googlenet"),
    "R50+ViT-B_16": Called("vit_base_r50_s16"),
    **{f"ViT-{size[0].upper()}/{patch}": Called(f"vit_{size}_patch{patch}")
       for size, patch in _VITS},
}  # fmt: skip

_TIMM_TAGS: Mapping[str, Mapping[str, str]] = {
    **{name: {"tv_in1k": "imagenet"} for name in _VGGS},
    "resnet18": {"tv_in1k": "imagenet", "a1_in1k": "a1"},
    "resnet34": {"tv_in1k": "imagenet", "a1_in1k": "a1"},
    **{f"resnet{depth}": {"tv_in1k": "imagenet", "tv2_in1k": "imagenet_v2", "a1_in1k": "a1"}
       for depth in (50, 101, 152)},
    "resnext50_32x4d": {"tv_in1k": "imagenet", "tv2_in1k": "imagenet_v2", "a1h_in1k": "a1h"},
    "resnext101_32x8d": {"tv_in1k": "imagenet", "tv2_in1k": "imagenet_v2"},
    "darknet53": {"c2ns_in1k": "imagenet"},
    "efficientnet_b0": {"ra_in1k": "ra"},
    "efficientnet_lite0": {"ra_in1k": "imagenet"},
    **{f"tf_efficientnet_b{k}": {"aa_in1k": "imagenet", "ns_jft_in1k": "noisy_student"}
       for k in range(8)},
    "tf_efficientnet_b8": {"ra_in1k": "imagenet"},
    "tf_efficientnet_l2": {"ns_jft_in1k": "noisy_student"},
    **{f"tf_efficientnet_lite{k}": {"in1k": "imagenet"} for k in range(5)},
    "xception": {"tf_in1k": "imagenet"},
    "mobilenet_v1": {"ra4_e3600_r224_in1k": "ra4"},
    "mobilenet_v2": {"ra_in1k": "ra"},
    "mobilenet_v2_050": {"lamb_in1k": "imagenet"},
    "mobilenet_v2_140": {"ra_in1k": "imagenet"},
    "mobilenet_v3_large": {"ra_in1k": "ra"},
    "mobilenet_v3_small": {"lamb_in1k": "lamb"},
    "mobilenet_v3_small_050": {"lamb_in1k": "imagenet"},
    "mobilenet_v3_small_075": {"lamb_in1k": "imagenet"},
    "vit_base_patch16": {
        "augreg2_in21k_ft_in1k": "augreg2", "augreg_in21k_ft_in1k": "augreg",
        "augreg_in21k": "augreg_imagenet21k", "orig_in21k_ft_in1k": "original",
        "orig_in21k": "imagenet21k",
    },
    "vit_base_patch32": {
        "augreg_in21k_ft_in1k": "augreg", "augreg_in21k": "augreg_imagenet21k",
        "orig_in21k": "imagenet21k",
    },
    "vit_large_patch16": {
        "augreg_in21k_ft_in1k": "augreg", "augreg_in21k": "augreg_imagenet21k",
        "orig_in21k": "imagenet21k",
    },
    "vit_large_patch32": {"orig_in21k": "imagenet21k"},
    "vit_huge_patch14": {"orig_in21k": "imagenet21k"},
    "vit_base_r50_s16": {"orig_in21k": "imagenet21k"},
}  # fmt: skip
"""timm's tags → ours: where both mean the same file, or one converted from it."""

_TIMM_384: Mapping[str, Mapping[str, str]] = {
    "vit_base_patch16": {"augreg_in21k_ft_in1k": "augreg_384",
                         "orig_in21k_ft_in1k": "original_384"},
    "vit_base_patch32": {"augreg_in21k_ft_in1k": "augreg_384"},
    "vit_large_patch16": {"augreg_in21k_ft_in1k": "augreg_384"},
    "vit_large_patch32": {"orig_in21k_ft_in1k": "original_384"},
    "vit_base_r50_s16": {"orig_in21k_ft_in1k": "imagenet"},
}  # fmt: skip
"""The same of timm's networks for images of 384 pixels; the first is what such a name means."""

_TORCHVISION_TAGS: Mapping[str, str] = {
    "IMAGENET1K_V1": "imagenet",
    "IMAGENET1K_V2": "imagenet_v2",
    "IMAGENET1K_SWAG_E2E_V1": "swag_e2e",
    "IMAGENET1K_SWAG_LINEAR_V1": "swag_linear",
}
_SECOND = (*_RESNETS[2:], "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b1")
_SWAG = ("vit_base_patch16", "vit_large_patch16", "vit_huge_patch14")


@cache
def aliases() -> Mapping[str, Called]:
    """Every name of another library's → what it means; those that are ours, too, are left out."""
    found: dict[str, Called] = {**_TRANSFORMERS, **_PAPERS}
    for library in (KERAS, TORCHVISION, TIMM):
        found |= {theirs: Called(ours) for ours, theirs in library.items() if theirs != ours}
    for ours, tags in _TIMM_TAGS.items():
        found |= {f"{TIMM[ours]}.{theirs}": Called(ours, tag) for theirs, tag in tags.items()}
    for ours, tags in _TIMM_384.items():
        name = TIMM[ours].replace("224", "384")
        found[name] = Called(ours, next(iter(tags.values())))
        found |= {f"{name}.{theirs}": Called(ours, tag) for theirs, tag in tags.items()}
    for ours in (f"tf_efficientnet_{size}" for size in (*_SIZES[:8], "l2")):
        found[f"{ours}_ns"] = Called(ours, "noisy_student")  # timm's until its 0.9
    for ours, theirs in TORCHVISION.items():
        for weights, tag in _TORCHVISION_TAGS.items():
            only = {"imagenet_v2": _SECOND, "swag_e2e": _SWAG, "swag_linear": _SWAG}.get(tag)
            if ours in only if only is not None else ours != "vit_huge_patch14":
                found[f"{theirs}.{weights}"] = Called(ours, tag)
    return found


def look_up(name: str, networks: Iterable[str]) -> Called | None:
    """What `name` means where there are these `networks`: one of them, what another library calls
    so, or either of the two but for capitals, hyphens and the library's name before it."""
    known = list(networks)
    others = {alias: called for alias, called in aliases().items() if called.network in known}
    for exact in (name, _BEFORE.sub("", name)):
        if exact in known:
            return Called(exact)
        if exact in others:
            return others[exact]
    folded = _folded(name)
    for candidate in known:
        if _folded(candidate) == folded:
            return Called(candidate)
    meant = {called for alias, called in others.items() if _folded(alias) == folded}
    return meant.pop() if len(meant) == 1 else None


def names_of(network: str) -> list[str]:
    """What other libraries call `network`, without the names of single sets of weights."""
    return [alias for alias, called in aliases().items() if called == Called(network)]


def matching(pattern: str) -> set[str]:
    """The networks of which another library's name matches the shell-style `pattern`."""
    return {called.network for alias, called in aliases().items()
            if fnmatch.fnmatchcase(alias.lower(), pattern.lower())}  # fmt: skip


_BEFORE = re.compile(
    r"^(hf[-_]hub:|timm/|timm\.|keras\.applications\.|torchvision\.models\.|torchvision/)+", re.I
)


def _folded(name: str) -> str:
    plain = _BEFORE.sub("", name.strip()).lower().replace("_weights.", ".")
    return re.sub(r"[-_ ]", "", plain)
