"""What a network costs and how far it sees, stage by stage, computed from its real forward pass.

The network runs once on the meta device: shapes without numbers, so that even the giants take no
memory and no time. torch's own counter counts the multiply-adds; a `FieldTracer` carries the
receptive field through every function that the forward pass calls.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakTensorKeyDictionary

from retinue.errors import RetinueError
from retinue.models.network import Network, Unit
from retinue.nested import leaves


@dataclass(frozen=True)
class StageAnatomy:
    """A stage of a network: neighbouring units of one name, `stages.2.0` … to `stages.2`."""

    name: str
    units: int
    """How many links of the chain it has."""
    output: tuple[int, ...]
    """Shape of what it hands on for one image: (channels, height, width), (tokens, width) of a
    transformer, or (classes,)."""
    parameters: int
    macs: int
    """Multiply-adds for one image."""
    receptive_field: int | None
    """Side of the window of the image, in pixels, that one unit of the output depends on; None:
    the whole image. It may exceed the image."""
    stride: int | None
    """Pixels of the image between neighbouring units; None: there are no neighbours."""
    level: int | None = None
    """k where its output is the feature level Ck."""


def count_macs(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds of `network` in eval mode for one image of `size` (height, width): those of
    convolutions, also transposed ones, linear layers and attention's two products."""
    network = on_meta(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(_image(network, size))
    return int(counter.get_total_flops()) // 2


def unit_macs(network: Network, size: tuple[int, int]) -> list[int]:
    """Multiply-adds of each unit of `network` in eval mode for one image of `size` (height, width),
    the head's last; as `count_macs` counts them."""
    network = on_meta(network)
    if len(network.cuts()) <= len(network.units()):
        return _macs_of_groups(network, size)
    links = [*network.units(), Unit("head", network.head, joins=True)]
    joins = any(unit.joins for unit in links[:-1])
    state: Any = _image(network, size)
    counted = []
    for unit in links:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            state = unit.advance(state, taps=joins)
        counted.append(int(counter.get_total_flops()) // 2)
    return counted


def _macs_of_groups(network: Network, size: tuple[int, int]) -> list[int]:
    """The same of a network on the meta device that is not walked through unit by unit: what each
    unit's modules take wherever they are called."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(_image(network, size))
    counted = counter.get_flop_counts()
    called = {id(module): name for name, module in network.named_modules()}
    own = type(network).__name__

    def macs(modules: Iterator[nn.Module]) -> int:
        named = (counted.get(f"{own}.{called[id(m)]}", {}) for m in modules if id(m) in called)
        return sum(sum(counts.values()) for counts in named) // 2

    units = [macs(unit.module.children()) for unit in network.units()]
    return [*units, macs(iter([network.head]))]


def anatomy(network: Network, size: tuple[int, int]) -> list[StageAnatomy]:
    """The stages of `network` in eval mode for one image of `size` (height, width), the head last.

    Where branches meet, the largest receptive field counts; they are taken to look at the same
    centre. Attention, global pooling and flattening see the whole image. Left out, because they
    tell what the image is like and not what is where: the gate of squeeze-excitation (anything of
    the whole image that all positions are multiplied by), and statistics that a normalisation
    draws from the map (GroupNorm). Of a field that is wider than high, the width is told.

    Raises:
        RetinueError: a function of the forward pass of which it is not known how it looks at its
            input; or a network that is not walked through unit by unit.
    """
    if len(network.cuts()) <= len(network.units()):
        raise RetinueError(f"{network.name} is not walked through unit by unit")
    network = on_meta(network)
    parameters = {name: sum(p.numel() for p in own) for name, own in network.parameter_groups()}
    links = [*network.units(), Unit("head", network.head, joins=True)]
    joins = any(unit.joins for unit in links[:-1])
    rows: list[StageAnatomy] = []
    with FieldTracer() as tracer, torch.no_grad():
        state: Any = tracer.begin(_image(network, size))
        for unit in links:
            with FlopCounterMode(display=False) as counter:
                state = unit.advance(state, taps=joins)
            # of what a detector answers, the finest level
            first = leaves(state)[0]
            # without positions a unit has no neighbours, and the classifier sees everything
            field = tracer.field(first) if first.ndim > 2 else NOWHERE
            row = StageAnatomy(
                name=_stage(unit.name),
                units=1,
                output=tuple(first.shape[1:]),
                parameters=parameters[unit.name],
                macs=int(counter.get_total_flops()) // 2,
                receptive_field=_finite(max(field.height, field.width)),
                stride=_finite(max(field.strides)),
                level=unit.level,
            )
            if rows and rows[-1].name == row.name:
                row = _joined(rows.pop(), row)
            rows.append(row)
    return rows


def _stage(unit: str) -> str:
    """Of what stage a unit is; a detector's backbone has stages of its own."""
    backbone, inner = ("backbone.", unit[9:]) if unit.startswith("backbone.") else ("", unit)
    return backbone + (inner.rpartition(".")[0] or inner)


def on_meta(network: nn.Module) -> Any:
    """`network` in eval mode on the meta device: itself, or a copy that shares nothing and whose
    tensors take no memory. Nothing of the copy learns: torch's counter looks for the gradient's
    function of what modules are called with, and a parameter may be among that."""
    held = [*network.parameters(), *network.buffers()]
    learns = network.training or any(p.requires_grad for p in network.parameters())
    if all(tensor.is_meta for tensor in held) and not learns:
        return network
    # deepcopy asks `memo` first: no tensor's numbers are copied
    memo: dict[int, Any] = {id(t): t.detach().to("meta") for t in network.buffers()}
    memo |= {id(p): nn.Parameter(p.detach().to("meta"), False) for p in network.parameters()}
    return copy.deepcopy(network, memo).eval()


def _image(network: nn.Module, size: tuple[int, int]) -> Tensor:
    channels = getattr(network, "arguments", {}).get("in_channels", 3)
    return torch.empty(1, channels, *size, device="meta")


def _finite(value: float) -> int | None:
    return None if math.isinf(value) else math.ceil(value)


def _joined(a: StageAnatomy, b: StageAnatomy) -> StageAnatomy:
    return StageAnatomy(
        name=a.name,
        units=a.units + b.units,
        output=b.output,
        parameters=a.parameters + b.parameters,
        macs=a.macs + b.macs,
        receptive_field=b.receptive_field,
        stride=b.stride,
        level=b.level,
    )


class Field(NamedTuple):
    """Where the units of a tensor look: the window's sides, and the step from one to the next, in
    pixels of the image; infinite: everything, and no next one."""

    height: float
    width: float
    strides: tuple[float, float]

    def grown(self, reach: tuple[float, float], step: tuple[float, float]) -> Field:
        """After a layer that looks at `reach` more units and moves by `step` of them:
        r ← r + (k − 1)·j, j ← j·s."""
        sides = [
            r + (more * j if more else 0)  # 0 · ∞ of a 1×1 convolution after global pooling
            for r, more, j in zip((self.height, self.width), reach, self.strides, strict=True)
        ]
        down, right = (j * s for j, s in zip(self.strides, step, strict=True))
        return Field(sides[0], sides[1], (down, right))


NOWHERE = Field(math.inf, math.inf, (math.inf, math.inf))
"""Global pooling, flattening: the whole image, and no positions are left."""


class FieldTracer(TorchFunctionMode):
    """Inside it every tensor that depends on the image has its field.

    Maps are (n, channels, height, width), tokens (n, tokens, width). What is no map of the image
    (weights, position embeddings) has no field and changes none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fields = WeakTensorKeyDictionary()

    def begin(self, image: Tensor) -> Tensor:
        """Declare `image` to be the image; every pixel sees itself."""
        self._fields[image] = Field(1, 1, (1, 1))
        return image

    def field(self, tensor: Tensor) -> Field:
        """The field of `tensor`. Raises KeyError if it does not depend on the image."""
        field: Field = self._fields[tensor]
        return field

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [t for t in _tensors([args, kwargs]) if t in self._fields]
        before = [(t, self._fields[t], t.shape) for t in inputs]  # of in-place functions, too
        out = func(*args, **kwargs)
        outputs = list(_tensors([out]))
        if before and outputs:
            name = getattr(func, "__name__", str(func)).strip("_")
            field = self._after(name, before, args, kwargs, outputs[0])
            for tensor in outputs:
                self._fields[tensor] = field
        return out

    def _after(self, name: str, before: list[Any], args: Any, kwargs: Any, out: Tensor) -> Field:
        _, field, shape = before[0]
        if name in _WINDOWS:
            return _WINDOWS[name](field, shape, out, *args[1:], **kwargs)
        if name in _POOLS_ALL:
            return field if _keeps_positions(shape, out, *args[1:], **kwargs) else NOWHERE
        everywhere = Field(math.inf, math.inf, field.strides)
        if name == "scaled_dot_product_attention":
            return everywhere
        if name in ("matmul", "bmm"):
            return everywhere if len(before) > 1 else field
        if name in _RESHAPES:
            merged = out.ndim == 2 and len(shape) > 2 and math.prod(shape[2:]) > 1
            return NOWHERE if merged else field
        # What is left works position by position. Of two operands, one that is smaller than the
        # result is the same at all positions: the gate of squeeze-excitation.
        local = [f for _, f, s in before if len(before) == 1 or math.prod(s) == out.numel()]
        largest = max((shape for _, _, shape in before), key=math.prod)
        if name in _MOVES or name == "linear":
            local = [f for _, f, _ in before]
        elif math.prod(largest) != out.numel() and largest[2:] != out.shape[2:]:
            raise RetinueError(f"it is not known how the function {name!r} looks at its input")
        return _union(local)


def _union(fields: list[Field]) -> Field:
    down = max(f.strides[0] for f in fields)
    right = max(f.strides[1] for f in fields)
    return Field(max(f.height for f in fields), max(f.width for f in fields), (down, right))


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple | dict):
            yield from _tensors(value)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = tuple(value)
    return (values[0], values[-1])


def _reach(kernel: tuple[int, int], dilation: Any) -> tuple[int, int]:
    d = _pair(dilation)
    return d[0] * (kernel[0] - 1), d[1] * (kernel[1] - 1)


def _convolution(
    field: Field, shape: torch.Size, out: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Field:  # fmt: skip
    return field.grown(_reach(_pair(weight.shape[2:]), dilation), _pair(stride))


def _transposed(
    field: Field, shape: torch.Size, out: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Field:  # fmt: skip
    reach = _reach(_pair(weight.shape[2:]), dilation)
    s = _pair(stride)  # an output sees every s-th weight of the kernel, each on another input
    return field.grown((reach[0] // s[0], reach[1] // s[1]), (1 / s[0], 1 / s[1]))


def _pooling(
    field: Field, shape: torch.Size, out: Tensor, kernel_size: Any, stride: Any = None,
    padding: Any = 0, dilation: Any = 1, *_: Any, **__: Any,
) -> Field:  # fmt: skip
    if isinstance(dilation, bool):  # average pooling has ceil_mode in that place
        dilation = 1
    return field.grown(_reach(_pair(kernel_size), dilation), _pair(stride or kernel_size))


def _adaptive(
    field: Field, shape: torch.Size, out: Tensor, output_size: Any, *_: Any, **__: Any
) -> Field:
    if out.shape[2:].numel() == 1 != shape[2:].numel():
        return NOWHERE
    reach, step = [], []
    for side, wanted in zip(shape[2:], out.shape[2:], strict=True):
        windows = [(i * side // wanted, -(-(i + 1) * side // wanted)) for i in range(wanted)]
        reach.append(max(end - start for start, end in windows) - 1)
        step.append(side / wanted)
    return field.grown((reach[0], reach[1]), (step[0], step[1]))


def _upsampling(
    field: Field, shape: torch.Size, out: Tensor, *_: Any, mode: str = "nearest", **__: Any
) -> Field:
    more = {"nearest": 0, "nearest-exact": 0, "bilinear": 1, "bicubic": 3}.get(mode, 3)
    step = [a / b for a, b in zip(shape[2:], out.shape[2:], strict=True)]
    return field.grown((more, more), (step[0], step[1]))


_WINDOWS: dict[str, Callable[..., Field]] = {
    "conv2d": _convolution,
    "conv_transpose2d": _transposed,
    "max_pool2d": _pooling,
    "avg_pool2d": _pooling,
    "adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "interpolate": _upsampling,
}
_POOLS_ALL = ("mean", "amax", "sum")
_RESHAPES = ("flatten", "reshape", "view")
_MOVES = ("cat", "concat", "stack", "pad", "getitem", "select", "narrow", "chunk", "split",
          "unbind", "expand")  # fmt: skip


def _keeps_positions(shape: torch.Size, out: Tensor, dim: Any = None, *_: Any, **__: Any) -> bool:
    """Whether a reduction over `dim` goes over channels alone."""
    if dim is None:
        return False
    axes = {d % len(shape) for d in ([dim] if isinstance(dim, int) else dim)}
    positions = {2, 3} if len(shape) == 4 else set(range(1, len(shape) - 1))
    return not axes & positions
