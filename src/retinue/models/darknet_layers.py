"""The kinds of layers that Darknet's `.cfg` files are made of, as links of a chain.

What a later layer refers to is kept in the state that goes from one to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinue.models.blocks import Activation, relu, relu6, silu
from retinue.models.network import State, joined, split

ACTIVATIONS: dict[str, Activation] = {
    "linear": nn.Identity,
    "leaky": partial(nn.LeakyReLU, 0.1, inplace=True),
    "relu": relu,
    "relu6": relu6,
    "mish": nn.Mish,
    "swish": silu,
    "logistic": nn.Sigmoid,
}


class Layer(nn.Module):
    """A layer of the graph: takes and gives the state, what later layers need kept behind it.

    `takes`: places in the state before, of what it computes with; `goes_on`: places in (its own
    output, *state before) of what is needed later. Both are set once the whole graph is known.
    """

    takes: tuple[int, ...] = (0,)
    goes_on: tuple[int, ...] = (0,)

    def forward(self, state: State) -> State:
        first, more = split(state)
        held = (first, *more)
        after = (self.compute(*(held[i] for i in self.takes)), *held)
        kept = [after[i] for i in self.goes_on]
        return joined(kept[0], tuple(kept[1:]))

    def compute(self, *inputs: Tensor) -> Tensor:
        """Its output."""
        raise NotImplementedError


class Convolution(Layer):
    """With batch normalisation or a bias, then the activation. `out` instead of `conv` holds the
    kernel of one in front of a `yolo` layer, as wide as there are classes."""

    def __init__(
        self, conv: nn.Conv2d, norm: nn.Module, act: nn.Module, *, ends: bool = False
    ) -> None:
        super().__init__()
        self.ends = ends
        self.kernel = "out" if ends else "conv"
        self.add_module(self.kernel, conv)
        self.norm = norm
        self.act = act

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        y: Tensor = self.act(self.norm(self.get_submodule(self.kernel)(x)))
        return y


class Pool(Layer):
    """The maximum of a window; `padding` altogether, the smaller half before it, never wins."""

    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.before, self.after = padding // 2, padding - padding // 2

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        if self.before + self.after:
            x = F.pad(x, (self.before, self.after) * 2, value=-math.inf)
        return F.max_pool2d(x, self.size, self.stride)


class Route(Layer):
    """Maps one behind the other; of `groups` equal parts of each, the one numbered `group`."""

    def __init__(self, groups: int, group: int) -> None:
        super().__init__()
        self.groups, self.group = groups, group

    def compute(self, *inputs: Tensor) -> Tensor:
        parts = [x.chunk(self.groups, 1)[self.group] if self.groups > 1 else x for x in inputs]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


class Sum(Layer):
    """Of all maps, then the activation."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def compute(self, *inputs: Tensor) -> Tensor:
        x, *others = inputs
        for other in others:
            x = x + other
        y: Tensor = self.act(x)
        return y


class Upsample(Layer):
    """Every place `stride` times in both directions."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def compute(self, *inputs: Tensor) -> Tensor:
        return F.interpolate(inputs[0], scale_factor=self.stride)


class Pass(Layer):
    """What `module` makes of the map: nothing in front of an answer, dropout."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def compute(self, *inputs: Tensor) -> Tensor:
        y: Tensor = self.module(inputs[0])
        return y


class Answer(nn.Module):
    """The head: what is left of the state are the levels, in the order `order`."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = tuple(order)

    def forward(self, state: State) -> dict[str, tuple[Tensor, ...]]:
        first, more = split(state)
        return {"levels": tuple((first, *more)[i] for i in self.order)}
