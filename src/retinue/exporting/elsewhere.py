"""How a network of the zoo is built in timm and torchvision: their name for it and the keywords.

What a keyword of theirs cannot say is refused: a checkpoint would load there and compute something
else.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from torch import nn

from retinue.arrays import Size
from retinue.errors import UsageError, suggest
from retinue.models import names
from retinue.models.blocks import HiddenLayersHead
from retinue.models.network import Network
from retinue.models.registry import find
from retinue.models.transformer import Transformer
from retinue.weights.layout import Layout, layouts

LIBRARIES = ("timm", "torchvision")

INDIFFERENT = ("num_classes", "dropout", "drop_path")
"""Keywords of ours that the tensors' meaning does not depend on, or that are always passed on."""

Keywords = dict[str, Any]
Says = Mapping[str, Callable[[Any], Keywords]]


@dataclass(frozen=True)
class Construction:
    """A call that builds the network in its library."""

    library: str
    name: str
    keywords: Keywords
    layout: Layout = field(repr=False)
    """How that network's state dict is laid out."""

    def code(self) -> str:
        """The call as Python: `timm.create_model("resnet50", num_classes=5)`."""
        keywords = [f"{key}={_source(value)}" for key, value in self.keywords.items()]
        if self.library == "timm":
            return f"timm.create_model({', '.join([_source(self.name), *keywords])})"
        return f"torchvision.models.{self.name}({', '.join(keywords)})"


def _source(value: Any) -> str:
    if isinstance(value, partial):
        given = ", ".join(f"{key}={_source(v)}" for key, v in value.keywords.items())
        return f"functools.partial(torch.nn.{value.func.__name__}, {given})"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _any_size(network: Network, size: Size) -> None:
    """Theirs computes what ours does, whatever the size."""


def _map_within_the_kernel(network: Network, size: Size) -> None:
    """timm's VGG has a convolution for the first hidden layer, and averages what that gives at all
    places of a map larger than its kernel; ours averages such a map on a grid of the kernel's size
    first. Smaller maps are brought to that size by both."""
    side = cast(HiddenLayersHead, network.head).pool.side
    stride = network.feature_levels[-1].stride
    height, width = size
    if max(size) // stride > side:
        raise UsageError(
            f"no network of timm's computes what this one does with images of {height}×{width}: "
            f"its {network.name} slides the first hidden layer over the map of "
            f"{height // stride}×{width // stride}, this one averages the map to {side}×{side}",
            mend=f"train it with an input.size of at most {stride * (side + 1) - 1}",
        )


def _square(network: Network, size: Size) -> None:
    """torchvision's transformers refuse other images."""
    height, width = size
    if height != width:
        raise UsageError(
            f"torchvision's transformers take square images only, not {height}×{width}",
            mend=f"train it with a square input, input.size={max(size)} say",
        )


@dataclass(frozen=True, kw_only=True)
class _Family:
    """A family in one library."""

    names: Mapping[str, str]
    """Ours → theirs."""
    says: Says = field(default_factory=dict)
    """Keywords of ours that theirs can express, and how."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What their network does where it is not as ours does by default."""
    always: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of theirs that every call needs."""
    check_size: Callable[[Network, Size], None] = _any_size
    """Raises UsageError where theirs does not compute what our network does with such images."""


def _norm(kind: type[nn.Module]) -> Callable[[float], Keywords]:
    return lambda eps: {"norm_layer": partial(kind, eps=eps)}


def _those(library: Mapping[str, str], pattern: str) -> dict[str, str]:
    """Ours → theirs, of the networks of a `library` whose names begin as `pattern` says."""
    return {ours: theirs for ours, theirs in library.items() if re.match(pattern, ours)}


_GREY: Says = {"in_channels": lambda n: {"in_chans": n}}
_MOBILE: Says = {
    **_GREY,
    "same_padding": lambda same: {"pad_type": "same" if same else ""},
    "norm_eps": lambda eps: {"bn_eps": eps},
}
_TRANSFORMER: Says = {
    **_GREY,
    "image_size": lambda size: {"img_size": size},
    "norm_eps": _norm(nn.LayerNorm),
}

TIMM = {
    "darknet53": _Family(
        names=_those(names.TIMM, "darknet53"),
        says={
            **_GREY,
            "slope": lambda slope: {"act_layer": partial(nn.LeakyReLU, negative_slope=slope)},
        },
    ),
    "efficientnet": _Family(names=_those(names.TIMM, r"(tf_)?efficientnet_"), says=_MOBILE),
    "hybrid_vit": _Family(
        names=_those(names.TIMM, "vit_base_r50"),
        says=_TRANSFORMER,
        fixed={"representation_size": None},
    ),
    "mobilenet_v1": _Family(names=_those(names.TIMM, "mobilenet_v1"), says=_MOBILE),
    "mobilenet_v2": _Family(names=_those(names.TIMM, "mobilenet_v2"), says=_MOBILE),
    "mobilenet_v3": _Family(names=_those(names.TIMM, "mobilenet_v3"), says=_MOBILE),
    "resnet": _Family(
        names=_those(names.TIMM, "res"), says={**_GREY, "norm_eps": _norm(nn.BatchNorm2d)}
    ),
    "vgg": _Family(names=_those(names.TIMM, "vgg"), says=_GREY, check_size=_map_within_the_kernel),
    "vit": _Family(
        names=_those(names.TIMM, r"vit_\w+_patch"),
        says=_TRANSFORMER,
        fixed={"representation_size": None},
    ),
    "xception": _Family(names=_those(names.TIMM, "xception"), says=_GREY),
}  # fmt: skip

TORCHVISION = {
    "alexnet": _Family(names=_those(names.TORCHVISION, "alexnet")),
    "efficientnet": _Family(
        names=_those(names.TORCHVISION, "efficientnet_"),
        says={"norm_eps": _norm(nn.BatchNorm2d)},
    ),
    "googlenet": _Family(
        names=_those(names.TORCHVISION, "googlenet"),
        says={"auxiliary": lambda auxiliary: {"aux_logits": auxiliary}},
        fixed={"auxiliary": True},
        always={"init_weights": False},
    ),
    "mobilenet_v2": _Family(
        names={f"mobilenet_v2{w}": "mobilenet_v2" for w in ("", "_035", "_050", "_075", "_140")},
        says={
            "width": lambda width: {"width_mult": width},
            "norm_eps": _norm(nn.BatchNorm2d),
        },
        fixed={"width": 1.0},
    ),
    "mobilenet_v3": _Family(  # whose width_mult rounds otherwise
        names=_those(names.TORCHVISION, "mobilenet_v3"),
        says={"norm_eps": _norm(nn.BatchNorm2d)},
        fixed={"width": 1.0},
    ),
    "resnet": _Family(
        names=_those(names.TORCHVISION, "res"), says={"norm_eps": _norm(nn.BatchNorm2d)}
    ),
    "vgg": _Family(names=_those(names.TORCHVISION, "vgg")),
    "vit": _Family(
        names=_those(names.TORCHVISION, "vit_"),
        says={
            "image_size": lambda size: {"image_size": size},
            "representation_size": lambda size: {"representation_size": size},
            "norm_eps": _norm(nn.LayerNorm),
        },
        check_size=_square,
    ),
}  # fmt: skip

_FAMILIES: Mapping[str, Mapping[str, _Family]] = MappingProxyType(
    {"timm": TIMM, "torchvision": TORCHVISION}
)

_TENSORFLOW_EPS = ("efficientnet_b5", "efficientnet_b6", "efficientnet_b7")
"""torchvision's have TensorFlow's epsilon, and take no other."""


def construction(library: str, network: Network, size: Size) -> Construction:
    """How `network` is built in `library`, for images of `size`. Where theirs take images of one
    size only, the call says that one, whatever `image_size` ours was built with.

    Raises:
        UsageError: no such library, or it has no such network, or not one that computes the same;
            says which has.
    """
    if library not in LIBRARIES:
        mend = suggest(str(library), LIBRARIES) or f"there are {' and '.join(LIBRARIES)}"
        raise UsageError(f"unknown library {library!r}", mend=mend)
    try:
        return _construction(library, network, size)
    except UsageError as error:
        for other in LIBRARIES:
            if other != library and _possible(other, network, size):
                mend = f'to="{other}" (--to {other}) can do it'
                raise UsageError(error.what, mend=mend) from error
        raise


def _construction(library: str, network: Network, size: Size) -> Construction:
    entry = find(network.name)
    family = _FAMILIES[library].get(entry.family)
    if family is None or network.name not in family.names:
        raise UsageError(f"{library} has no network that is {network.name}")
    name = family.names[network.name]
    arguments = _arguments(network, size)
    layout = _closest(library, entry.family, arguments)
    theirs = {**_defaults(network.name), **layout.arguments, **family.fixed}
    says = dict(family.says)
    if library == "torchvision" and name in _TENSORFLOW_EPS:
        theirs["norm_eps"] = 1e-3
        del says["norm_eps"]
    keywords: Keywords = {"num_classes": arguments["num_classes"], **family.always}
    for key, value in arguments.items():
        if key in INDIFFERENT or value == theirs.get(key):
            continue
        if key not in says:
            raise UsageError(
                f"no network of {library}'s computes what this one does: its {name} has "
                f"{key}={theirs.get(key)!r}, this {network.name} {value!r}"
            )
        keywords |= says[key](value)
    family.check_size(network, size)
    return Construction(library, name, keywords, layout)


def _arguments(network: Network, size: Size) -> Keywords:
    """The keywords of `network`, in the form that a library's are compared with. A transformer's
    positions fit themselves to every image here, and are for one size there: that of `size`."""
    arguments = dict(network.arguments)
    if isinstance(network, Transformer):
        height, width = size
        arguments["image_size"] = height if height == width else size
        arguments["representation_size"] = arguments["representation_size"] or None  # 0: without
    return arguments


def _possible(library: str, network: Network, size: Size) -> bool:
    try:
        _construction(library, network, size)
    except UsageError:
        return False
    return True


def _defaults(name: str) -> dict[str, Any]:
    parameters = inspect.signature(find(name).build).parameters
    return {key: parameter.default for key, parameter in parameters.items()}


def _closest(library: str, family: str, arguments: Mapping[str, Any]) -> Layout:
    """Of the library's layouts of the family, the one for networks with such arguments."""
    known = [layout for layout in layouts(family) if layout.source == library]
    return min(known, key=lambda x: sum(arguments[k] != v for k, v in x.arguments.items()))
