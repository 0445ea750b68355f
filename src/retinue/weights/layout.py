"""Other libraries' names and shapes of the tensors that are ours, read both ways.

A `Layout` says for every tensor of ours where it is found in their checkpoints. Reading one
and writing one for them are the two directions of that one table. A checkpoint is recognised by
its keys alone.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from retinue.errors import RetinueError

StateDict = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]
"""A network's own tensors: key → shape."""


def _as_it_is(state: StateDict, shapes: Shapes) -> StateDict:
    return state


def _nothing(state: StateDict) -> Mapping[str, Any]:
    return {}


def _one(tensor: Tensor) -> Tensor:
    return tensor


def _alone(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor,)


@dataclass(frozen=True)
class Origin:
    """Where one tensor of ours is found."""

    keys: tuple[str, ...]
    """Their names; several where ours is put together."""
    join: Callable[..., Tensor] = _one
    """Their tensors, in the order of `keys`, to ours."""
    split: Callable[[Tensor], tuple[Tensor, ...]] | None = _alone
    """Ours to theirs, in the order of `keys`; None: there is no way back."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one library lays out the checkpoints of one family."""

    source: str
    """The library: torchvision, timm, keras, transformers, google …"""
    family: str
    """The module in `retinue.models`."""
    marks: tuple[str, ...]
    """Keys that each of its checkpoints has. The classifier is not among them, since many files
    come without. Where the keys fit several layouts, the family that was asked for counts, then the
    most marks."""
    origins: Callable[[Shapes], Mapping[str, Origin]]
    """For every tensor of ours."""
    prepare: Callable[[StateDict, Shapes], StateDict] = _as_it_is
    """Their state dict with its names made definite for a network of those shapes: some have
    changed with time, and Darknet has none."""
    ignored: tuple[str, ...] = ()
    """Patterns of their keys that hold nothing that a network of ours needs."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keywords with which our network computes what these checkpoints were trained for."""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Preprocessing` that are not as in the network's entry."""
    tells: Callable[[StateDict], Mapping[str, Any]] = _nothing
    """Further keywords, which are seen from the tensors, the kind of head among them, if that is
    more than a linear layer: `prepare` then calls its layers as `own_head` does."""
    names_a_network: bool = True
    """Whether its files are of networks that the family names; not of those that a user describes,
    which may be any."""

    takes_any: bool = False
    """Whether no marks tell its files: they are of whatever network the family has."""

    def __str__(self) -> str:
        return f"{self.source} {self.family}"


TENSORFLOW: Mapping[str, Any] = {"same_padding": True, "norm_eps": 1e-3}
"""Keywords of the networks that were trained in TensorFlow, which pads at the end first."""

CAFFE: Mapping[str, Any] = {
    "mean": (123.68 / 255, 116.779 / 255, 103.939 / 255),
    "std": (1 / 255, 1 / 255, 1 / 255),
}
"""Fields of `Preprocessing` for what was trained in Caffe: 0 to 255, the mean colour subtracted."""


DIVIDED: Mapping[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "fit": "squash"}
"""Fields of `Preprocessing` for what is trained on pixels divided by 255, of images that are
stretched to a square."""


def blocks(shapes: Shapes) -> list[tuple[int, int]]:
    """The (stage, number) of every block of our network, in order."""
    found = (re.match(r"stages\.(\d+)\.(\d+)\.", key) for key in shapes)
    return sorted({(int(m[1]), int(m[2])) for m in found if m})


def rename(shapes: Shapes, rules: Iterable[tuple[str, str]]) -> dict[str, Origin]:
    """Each key of ours rewritten by the first of `rules` (pattern, replacement) that matches from
    its beginning. Raises ValueError for a key without a rule."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    origins = {}
    for key in shapes:
        for pattern, replacement in compiled:
            match = pattern.match(key)
            if match:
                origins[key] = Origin((match.expand(replacement) + key[match.end() :],))
                break
        else:
            raise ValueError(f"no rule for {key!r}")
    return origins


def keras_origins(
    shapes: Shapes,
    layer: Callable[[str], str],
    *,
    depthwise: str = "depthwise",
    folded: Callable[[str], str | None] = lambda _: None,
) -> dict[str, Origin]:
    """Our tensors in a Keras checkpoint, whose keys are `LAYER/VARIABLE`.

    Kernels are height, width, in, out there (depthwise: height, width, channels, 1), ours out, in,
    height, width; dense kernels are transposed, and a classifier may be a 1×1 convolution.

    Args:
        layer: our module's name (`stages.0.1.conv2.norm`) to their layer's.
        depthwise: what the names of our depthwise convolutions contain.
        folded: our norm's name to the name of their convolution whose bias it takes in: what a
            convolution adds, the norm's running mean can take away. None: it has no bias.
    """
    origins: dict[str, Origin] = {}
    normed = {key.rpartition(".")[0] for key in shapes if key.endswith(".running_mean")}
    for key, shape in shapes.items():
        module, _, name = key.rpartition(".")
        if name == "num_batches_tracked":
            continue
        theirs = layer(module)
        if module in normed:
            keys: tuple[str, ...] = (f"{theirs}/{_KERAS_NORM[name]}",)
            if name == "running_mean" and (conv := folded(module)) is not None:
                origins[key] = Origin((*keys, f"{conv}/bias"), torch.sub, None)
                continue
            origins[key] = Origin(keys)
        elif name == "bias":
            origins[key] = Origin((f"{theirs}/bias",))
        elif len(shape) == 4 and depthwise in module:
            origins[key] = Origin(
                (f"{theirs}/depthwise_kernel",),
                lambda t: t.permute(2, 3, 0, 1),
                lambda t: (t.permute(2, 3, 0, 1),),
            )
        elif len(shape) == 4:
            origins[key] = Origin(
                (f"{theirs}/kernel",),
                lambda t: t.permute(3, 2, 0, 1),
                lambda t: (t.permute(2, 3, 1, 0),),
            )
        else:
            origins[key] = Origin(
                (f"{theirs}/kernel",), lambda t: t.reshape(t.shape[-2:]).T, lambda t: (t.T,)
            )
    return origins


_KERAS_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def in_order(kinds: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Our modules → the names that Keras gives layers without one: `conv2d`, `conv2d_1` …, in their
    order within each kind."""
    return {
        module: f"{kind}_{k}" if k else kind
        for kind, modules in kinds.items()
        for k, module in enumerate(modules)
    }


def own_head(
    state: StateDict, layers: Mapping[str, str], *, head: str = "head.fc"
) -> dict[str, Tensor]:
    """`state` with the layers of its head under the names of ours within `head`: theirs → ours.
    `keras_origins` finds them there, and what another head has no use for is seen to be a
    head's."""
    found = {}
    for key, tensor in state.items():
        layer, slash, variable = key.rpartition("/")
        if layer in layers:
            layer = f"{head}.{layers[layer]}".rstrip(".")
        found[layer + slash + variable] = tensor
    return found


def blue_first(origin: Origin) -> Origin:
    """`origin` of an input layer's kernel whose images have blue first; ours have red first."""
    split = origin.split

    def joined(*theirs: Tensor) -> Tensor:
        return origin.join(*theirs).flip(1)

    def parted(ours: Tensor) -> tuple[Tensor, ...]:
        assert split is not None
        return split(ours.flip(1))

    return replace(origin, join=joined, split=None if split is None else parted)


def identity(shapes: Shapes) -> dict[str, Origin]:
    """Our own checkpoints."""
    return {key: Origin((key,)) for key in shapes}


def from_floats(shapes: Shapes) -> dict[str, Origin]:
    """Of a file without names, whose floats a layout's `prepare` has cut: the names are ours."""
    return {
        key: Origin((key,), torch.clone, None)
        for key in shapes
        if not key.endswith("num_batches_tracked")
    }


def translate(layout: Layout, state: StateDict, shapes: Shapes) -> dict[str, Tensor]:
    """The tensors of a checkpoint by our key names. What ours lacks there is left out, and what
    remains of theirs keeps its name, so that loading reports both.

    Raises:
        RetinueError: a tensor from which ours cannot be made.
    """
    state = layout.prepare(state, shapes)
    translated: dict[str, Tensor] = {}
    used: set[str] = set()
    for key, origin in layout.origins(shapes).items():
        if not all(theirs in state for theirs in origin.keys):
            continue
        used.update(origin.keys)
        try:
            translated[key] = origin.join(*(state[theirs] for theirs in origin.keys))
        except (RuntimeError, ValueError, IndexError) as error:
            found = ", ".join(f"{k} {tuple(state[k].shape)}" for k in origin.keys)
            raise RetinueError(
                f"the weights belong to another network: {key} is not made of {found}",
                mend="choose the network that they were made for",
            ) from error
    for key, tensor in state.items():
        if key not in used and not _ignored(layout, key):
            translated[f"{layout.source}'s {key}" if key in translated else key] = tensor
    return translated


def unused(layout: Layout, state: StateDict, shapes: Shapes) -> tuple[str, ...]:
    """Their keys that nothing of ours is made of, but for those that are passed over."""
    origins = layout.origins(shapes).values()
    used = {key for origin in origins for key in origin.keys}
    prepared = layout.prepare(state, shapes)
    return tuple(k for k in prepared if k not in used and not _ignored(layout, k))


def left_out(layout: Layout, state: StateDict, shapes: Shapes) -> tuple[str, ...]:
    """Their keys that `translate` passes over, since the network has no use for them."""
    origins = layout.origins(shapes).values()
    used = {key for origin in origins for key in origin.keys}
    return tuple(k for k in layout.prepare(state, shapes) if k not in used and _ignored(layout, k))


def _ignored(layout: Layout, key: str) -> bool:
    return any(re.match(pattern, key) for pattern in layout.ignored)


def untranslate(layout: Layout, tensors: StateDict) -> dict[str, Tensor]:
    """Our tensors by their key names and in their shapes: the way back of `translate`.

    Raises:
        RetinueError: the layout can only be read.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    theirs: dict[str, Tensor] = {}
    for key, origin in layout.origins(shapes).items():
        if origin.split is None:
            raise RetinueError(f"checkpoints of {layout} are read, but not written")
        parts = origin.split(tensors[key])
        theirs.update(zip(origin.keys, (part.contiguous() for part in parts), strict=True))
    return theirs


@cache
def all_layouts() -> tuple[Layout, ...]:
    """Every layout that is known, family by family."""
    package = importlib.import_module("retinue.weights.layouts")
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(
        layout
        for name in modules
        for layout in importlib.import_module(f"{package.__name__}.{name}").LAYOUTS
    )


def layouts(family: str) -> tuple[Layout, ...]:
    """The layouts of one family."""
    return tuple(layout for layout in all_layouts() if layout.family == family)


OURS = "retinue"
"""The source of our own checkpoints."""


def ours(family: str) -> Layout:
    """The layout of our own checkpoints of `family`."""
    return Layout(source=OURS, family=family, marks=(), origins=identity)


def recognise(state: StateDict, family: str) -> Layout:
    """The layout of `family` in which `state` is; ours, if it is none of a library's. Of one that
    takes any file, `settled` tells, once the network is known.

    Raises:
        RetinueError: the checkpoint is of another family.
    """
    if any_ := next((x for x in layouts(family) if x.takes_any), None):
        return any_
    fitting = [x for x in all_layouts() if x.marks and all(mark in state for mark in x.marks)]
    fitting.sort(key=lambda layout: (layout.family != family, -len(layout.marks)))
    if not fitting:
        return ours(family)
    if fitting[0].family != family:
        raise RetinueError(
            f"the weights are those of {fitting[0]}, not of {family}",
            mend="choose the network that they were made for",
        )
    return fitting[0]


def settled(layout: Layout, state: StateDict, shapes: Shapes) -> Layout:
    """`layout`; in place of one that takes any file ours, where more of the keys of `state` are the
    network's own than those that `layout` looks for."""
    if not layout.takes_any:
        return layout
    wanted = {key for origin in layout.origins(shapes).values() for key in origin.keys}
    theirs = wanted & set(layout.prepare(state, shapes))
    return ours(layout.family) if len(state.keys() & shapes.keys()) > len(theirs) else layout
