"""Any detector that Darknet describes in a `.cfg` (Redmon, 2013–2018, "Darknet").

The text of the file is the network's argument `cfg`, so that a model file is all that is needed.
What is computed, section by section:

- `convolutional`: groups, dilation, batch normalisation, an activation of `ACTIVATIONS`;
- `maxpool`: padding of its size − 1 altogether, the larger half after, which keeps the side at
  stride 1;
- `route`: outputs of other layers one behind the other, or one of their `groups`;
- `shortcut`: the sum with other layers' outputs; `upsample`: nearest; `dropout`;
- `yolo`: which anchors the convolution before it is for. It ends a branch, and is a level of the
  answer.

A layer named by a negative number is counted back from the one that names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from retinue.errors import RetinueError, suggest
from retinue.models.blocks import initialise
from retinue.models.darknet_cfg import Section, parse, text_of
from retinue.models.darknet_layers import (
    ACTIVATIONS,
    Answer,
    Convolution,
    Layer,
    Pass,
    Pool,
    Route,
    Sum,
    Upsample,
)
from retinue.models.detector import BOX, PREPROCESSING, Anchors, Detector, draw
from retinue.models.network import Level, Unit
from retinue.models.registry import NetworkEntry, create_model
from retinue.sample import LARGEST_SIDE
from retinue.text import counted

MOST_PARAMETERS = 1_000_000_000

EXAMPLE = """
[net]
width=96
height=96

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
groups=8
activation=relu6

[shortcut]
from=-2
activation=linear

[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=mish

[maxpool]
size=2
stride=2

[convolutional]
batch_normalize=1
filters=32
size=3
stride=2
pad=1
activation=swish

[maxpool]
size=5
stride=1

[route]
layers=-1,-2

[dropout]
probability=0.1

[convolutional]
filters=27
size=1
activation=linear

[yolo]
mask=3,4,5
anchors=10,14, 23,27, 37,58, 45,50, 60,40, 80,80
classes=4
num=6

[route]
layers=-3

[upsample]
stride=2

[route]
layers=4
groups=2
group_id=1

[route]
layers=-1,-2

[convolutional]
filters=27
size=1
activation=linear

[yolo]
mask=0,1,2
anchors=10,14, 23,27, 37,58, 45,50, 60,40, 80,80
classes=4
num=6
scale_x_y=1.05
"""
"""Every kind of layer once, on two levels."""


class Map(NamedTuple):
    """What a layer gives, of an image of the file's own size."""

    channels: int
    height: int
    width: int
    stride: int
    """Pixels of the image a place is wide."""


@dataclass(frozen=True)
class Node:
    """A layer of the graph, built."""

    layer: Layer
    sources: tuple[int, ...]
    """Numbers of the layers whose outputs it takes; −1: the image."""
    gives: Map


class Yolo(NamedTuple):
    """A level of the answer."""

    number: int
    """Of the layer."""
    stride: int
    anchors: tuple[tuple[float, float], ...]
    scale: float
    classes: int


class Reader:
    """Builds the layers of a `.cfg`, one after the other; each knows the ones before it."""

    def __init__(
        self, sections: list[Section], num_classes: int | None, norm: partial[nn.BatchNorm2d]
    ) -> None:
        net, *self.sections = sections
        self.num_classes = num_classes
        self.norm = norm
        height, width = (net.whole(key, 416, least=1) for key in ("height", "width"))
        if max(height, width) > LARGEST_SIDE:
            what = f"images of {width} × {height} pixels are larger than {LARGEST_SIDE}"
            raise net.refused(what, "width" if width > height else "height")
        self.image = Map(net.whole("channels", 3, least=1), height, width, 1)
        self.parameters = 0
        self.nodes: list[Node] = []
        self.yolos: list[Yolo] = []
        for section in self.sections:
            self.nodes.append(getattr(self, f"_{section.kind}")(section))
        if not self.yolos:
            raise net.refused("there is no [yolo] layer, and so nothing is detected")
        for yolo in self.yolos[1:]:
            if yolo.classes != self.yolos[0].classes:
                raise self.sections[yolo.number].refused("other classes than in the [yolo] before")
        self.yolos.sort(key=lambda yolo: yolo.stride)  # the finest first

    def neck(self) -> int:
        """The layer with which the neck begins: nothing says so in a `.cfg`. Taken is the one
        behind the last shortcut, pool or strided convolution before the first answer, of the
        coarsest map: in yolov3.cfg, layer 75, where `darknet53.conv.74` ends."""
        trunk = self.nodes[: min(yolo.number for yolo in self.yolos)]
        coarsest = max(node.gives.stride for node in trunk)
        strides = [self.image.stride, *(node.gives.stride for node in trunk)]
        ends = [
            number
            for number, node in enumerate(trunk, 1)
            if node.gives.stride == coarsest
            and (isinstance(node.layer, Sum | Pool) or strides[number] != strides[number - 1])
        ]
        return max(ends, default=0)

    @property
    def _last(self) -> Map:
        return self.nodes[-1].gives if self.nodes else self.image

    def _next(self, layer: Layer, gives: Map) -> Node:
        """A layer that takes what the one before it gives."""
        return Node(layer, (len(self.nodes) - 1,), gives)

    def _windows(self, section: Section, size: int, stride: int, padding: int) -> tuple[int, int]:
        """The sides of what windows of `size` make of the map before; `padding` altogether."""
        sides = [(side + padding - size) // stride + 1 for side in self._last[1:3]]
        if min(sides) < 1:
            raise section.refused(f"a window of {size} does not fit the map before it")
        return sides[0], sides[1]

    def _convolutional(self, section: Section) -> Node:
        last = self._last
        filters = section.whole("filters", 1, least=1)
        size, stride = (section.whole(key, 1, least=1) for key in ("size", "stride"))
        groups, dilation = (section.whole(key, 1, least=1) for key in ("groups", "dilation"))
        if last.channels % groups or filters % groups:
            raise section.refused(
                f"{groups} groups of {last.channels} channels to {filters} filters", "groups"
            )
        reach = dilation * (size - 1) + 1
        padding = section.whole("padding", 0)
        if section.whole("pad", 0):
            padding = dilation * (size // 2)
        normed = bool(section.whole("batch_normalize", 0))
        act = self._activation(section, "logistic")
        ends = self._before_yolo()
        if ends:
            filters = self._answering(section, filters, normed, act)
        self.parameters += last.channels // groups * filters * size**2
        if self.parameters > MOST_PARAMETERS:
            raise section.refused(f"there are more than {MOST_PARAMETERS:,} parameters")
        conv = nn.Conv2d(
            last.channels, filters, size, stride, padding, dilation, groups, bias=not normed
        )
        norm = self.norm(filters) if normed else nn.Identity()
        sides = self._windows(section, reach, stride, 2 * padding)
        gives = Map(filters, *sides, last.stride * stride)
        return self._next(Convolution(conv, norm, act, ends=ends), gives)

    def _before_yolo(self) -> bool:
        following = self.sections[len(self.nodes) + 1 :][:1]
        return bool(following) and following[0].kind == "yolo"

    def _answering(self, section: Section, filters: int, normed: bool, act: nn.Module) -> int:
        """How many filters one in front of `yolo` gets, for as many classes as are wanted."""
        yolo = self.sections[len(self.nodes) + 1]
        anchors, classes = len(self._anchors(yolo)), yolo.whole("classes", 20, least=1)
        if normed or not isinstance(act, nn.Identity):
            raise section.refused("in front of [yolo] stands a linear layer with a bias")
        if filters != (needed := anchors * (BOX + classes)):
            what = f"{filters} filters for the {anchors} anchors and {classes} classes of [yolo]"
            mend = f"it is {anchors} · ({classes} + {BOX}) = {needed}"
            raise section.refused(what, "filters", mend)
        return anchors * (BOX + (self.num_classes or classes))

    def _activation(self, section: Section, default: str) -> nn.Module:
        name = section.word("activation", default)
        if name not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            what = f"the activation {name!r} is not known"
            raise section.refused(what, "activation", suggest(name, ACTIVATIONS) or f"of {known}")
        return ACTIVATIONS[name]()

    def _maxpool(self, section: Section) -> Node:
        stride = section.whole("stride", 1, least=1)
        size = section.whole("size", stride, least=1)
        padding = section.whole("padding", size - 1)
        if padding >= 2 * size:
            raise section.refused("windows would see nothing but padding", "padding")
        sides = self._windows(section, size, stride, padding)
        gives = Map(self._last.channels, *sides, self._last.stride * stride)
        return self._next(Pool(size, stride, padding), gives)

    def _named(self, section: Section, key: str) -> tuple[int, ...]:
        """The layers that a route or shortcut takes, as numbers from 0 on."""
        here = len(self.nodes)
        numbers = tuple(n if n >= 0 else here + n for n in section.wholes(key))
        for number in numbers:
            if not 0 <= number < here:
                raise section.refused(f"there is no layer {number} before layer {here}", key)
        return numbers

    def _route(self, section: Section) -> Node:
        numbers = self._named(section, "layers")
        groups, group = section.whole("groups", 1, least=1), section.whole("group_id", 0)
        maps = [self.nodes[n].gives for n in numbers]
        if group >= groups:
            raise section.refused(f"of {groups} groups there is none with number {group}")
        if any(each.channels % groups for each in maps):
            raise section.refused(f"{maps[0].channels} channels are not {groups} equal groups")
        self._alike(section, numbers)
        gives = maps[0]._replace(channels=sum(each.channels for each in maps) // groups)
        return Node(Route(groups, group), numbers, gives)

    def _shortcut(self, section: Section) -> Node:
        numbers = (len(self.nodes) - 1, *self._named(section, "from"))
        self._alike(section, numbers)
        maps = [self.nodes[n].gives for n in numbers]
        if len({each.channels for each in maps}) > 1:
            channels = " and ".join(str(each.channels) for each in maps)
            raise section.refused(f"the sum of maps of {channels} channels")
        return Node(Sum(self._activation(section, "linear")), numbers, maps[0])

    def _alike(self, section: Section, numbers: Sequence[int]) -> None:
        first, *others = (self.nodes[n].gives for n in numbers)
        for number, other in zip(numbers[1:], others, strict=True):
            if other[1:] != first[1:]:
                raise section.refused(
                    f"layer {numbers[0]} gives {first.height} × {first.width} and layer {number}"
                    f" {other.height} × {other.width}"
                )

    def _upsample(self, section: Section) -> Node:
        stride, last = section.whole("stride", 2, least=1), self._last
        if last.stride % stride:
            raise section.refused(f"a map of stride {last.stride} is not upsampled by {stride}")
        gives = Map(last.channels, last.height * stride, last.width * stride, last.stride // stride)
        return self._next(Upsample(stride), gives)

    def _dropout(self, section: Section) -> Node:
        rate = section.number("probability", 0.5, least=0, most=0.999)
        return self._next(Pass(nn.Dropout(rate)), self._last)

    def _anchors(self, section: Section) -> tuple[tuple[float, float], ...]:
        sides = section.numbers("anchors")
        pairs = list(zip(sides[::2], sides[1::2], strict=False))
        if len(sides) % 2 or section.whole("num", len(pairs), least=1) > len(pairs):
            raise section.refused(f"{len(sides)} numbers are not the anchors of it", "anchors")
        mask = section.wholes("mask") if "mask" in section.values else range(len(pairs))
        for number in mask:
            if not 0 <= number < len(pairs):
                raise section.refused(f"there is no anchor {number}", "mask")
        return tuple(pairs[number] for number in mask)

    def _yolo(self, section: Section) -> Node:
        if not self.nodes or not getattr(self.nodes[-1].layer, "ends", False):
            raise section.refused("in front of [yolo] stands a [convolutional]")
        classes = section.whole("classes", 20, least=1)
        scale = section.number("scale_x_y", 1.0, least=1.0, most=4.0)
        anchors = self._anchors(section)
        self.yolos.append(Yolo(len(self.nodes), self._last.stride, anchors, scale, classes))
        return self._next(Pass(nn.Identity()), self._last)


def wire(nodes: Sequence[Node], levels: Sequence[int]) -> list[int]:
    """Tell every layer where in the state its inputs are and what goes on, and give the numbers of
    the layers that are left behind the last one."""
    last_use = dict.fromkeys(levels, len(nodes))
    for number, node in enumerate(nodes):
        for source in node.sources:
            last_use[source] = max(number, last_use.get(source, number))
    held = [-1]
    for number, node in enumerate(nodes):
        after = [number, *held]
        node.layer.takes = tuple(held.index(source) for source in node.sources)
        kept = [i for i, each in enumerate(after) if last_use.get(each, -1) > number]
        node.layer.goes_on = tuple(kept)
        held = [after[i] for i in kept]
    return held


class Darknet(Detector):
    """`cfg`: the text of a `.cfg`, or the path of one, which is then read and written down whole.
    `num_classes`: None for as many as it says; else its last layers are as wide as those need."""

    def __init__(
        self,
        *,
        cfg: str = EXAMPLE,
        num_classes: int | None = None,
        norm_eps: float = 1e-6,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        text, where = text_of(cfg)
        norm = partial(nn.BatchNorm2d, eps=norm_eps, momentum=norm_momentum)
        graph = Reader(parse(text, where), num_classes, norm)
        self.landmarks = {"neck": graph.neck()}
        self.settled = {"cfg": text, "num_classes": num_classes or graph.yolos[0].classes}
        self.native_size = (graph.image.height, graph.image.width)
        self.layers = nn.ModuleList(node.layer for node in graph.nodes)
        levels = [yolo.number for yolo in graph.yolos]
        left = wire(graph.nodes, levels)
        self.head = Answer([left.index(level) for level in levels])
        self.anchors: Anchors = tuple(yolo.anchors for yolo in graph.yolos)
        self.scale_xy = tuple(yolo.scale for yolo in graph.yolos)
        self._strides = tuple(yolo.stride for yolo in graph.yolos)
        self.classifiers = tuple(f"layers.{level - 1}.out" for level in levels)
        self.input_layer = "layers.0.conv"
        initialise(self)
        for name in self.classifiers:
            draw(self.get_submodule(name))

    def units(self) -> list[Unit]:
        return [Unit(f"layers.{i}", layer, joins=True) for i, layer in enumerate(self.layers)]

    @property
    def feature_levels(self) -> list[Level]:
        return []  # a graph of its own; no neck but its own would fit

    @property
    def strides(self) -> tuple[int, ...]:
        return self._strides


class Described(NamedTuple):
    """What Darknet's files are a description of."""

    network: Detector
    classes: tuple[str, ...]


def read_darknet(
    cfg: str | Path, weights: str | Path | None = None, names: str | Path | None = None
) -> Described:
    """The detector in Darknet's files: `cfg` describes the network, `weights` holds its numbers
    (None: fresh ones), `names` the classes, one a line (None: `class 0` and so on).

    Raises:
        UsageError: no such file.
        RetinueError: a description that is not understood, weights of another network, as many
            names as there are no classes.
    """
    network = create_model("darknet", cfg=str(cfg), weights=weights)
    assert isinstance(network, Detector)
    count = network.arguments["num_classes"]
    if names is None:
        return Described(network, tuple(f"class {k}" for k in range(count)))
    text, _ = text_of(str(names))
    classes = [line.strip() for line in text.splitlines() if line.strip()]
    if len(classes) != count:
        raise RetinueError(
            f"{counted(len(classes), 'name')}, and the network has {count:,} classes",
            where=str(names),
            mend="give a name a line, in the order of the classes",
        )
    return Described(network, tuple(classes))


ENTRIES = [
    NetworkEntry(
        name="darknet",
        family="darknet",
        kind="detector",
        build=Darknet,
        preprocessing=replace(PREPROCESSING, size=(96, 96)),
        parameters=9_902,
        macs=1_835_136,
        paper="Redmon, 2013–2018, https://github.com/pjreddie/darknet",
        reference="any .cfg of Darknet's; the facts are those of an example",
        described_by={".cfg": "cfg"},
    )
]
