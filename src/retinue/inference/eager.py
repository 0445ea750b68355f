"""PyTorch as an engine: the module itself, or a copy of it with less to do."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from retinue.inference.engine import Engine, Precision, channels_last, home
from retinue.inference.memory import keep_freed
from retinue.inference.tracing import evaluating
from retinue.nested import Nested, mapped, single


class TorchEngine(Engine):
    """The module itself: eval mode, channels-last, no gradients, bf16 by autocast.

    Shares its weights with `module`, so it follows a training. Training flags are put back after
    each call. On a CPU the process keeps the memory of freed tensors from then on (`memory`).
    """

    name = "torch"

    def __init__(
        self, module: nn.Module, *, device: str = "cpu", precision: Precision = "fp32"
    ) -> None:
        super().__init__(precision)
        self.device = torch.device(device)
        self.provider = str(self.device)
        self.module = module.to(self.device)
        if self.device.type == "cpu":
            keep_freed()

    def __call__(self, x: Nested) -> Any:
        inputs = mapped(lambda leaf: channels_last(leaf.to(self.device)), x)
        autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16"
        )
        with evaluating(self.module), torch.inference_mode(), autocast:
            answer = self.module(inputs)
        place = home(x)
        return mapped(lambda leaf: leaf.to(place), single(answer))


def folded(module: nn.Module, example: Nested) -> nn.Module:
    """A copy of `module` in eval mode that gives what it gives: weights in channels-last memory,
    BatchNorms folded into the convolutions before them. `module` stays as it is.

    Which BatchNorm follows which convolution is seen when `example` goes through: one that takes
    the very tensor that a convolution has given. A network that uses this tensor elsewhere, too,
    would give something else then: whoever uses the copy compares the two.
    """
    made = copy.deepcopy(module).requires_grad_(False)
    for part in made.modules():
        part.training = False
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for convolution, norm in _pairs(made, example):
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias,
            norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        convolution.weight, convolution.bias = weight, bias
        for part in made.modules():
            for name, child in part._modules.items():
                if child is norm:
                    part._modules[name] = nn.Identity()
    return made


def _pairs(module: nn.Module, example: Nested) -> list[tuple[Any, Any]]:
    """Convolutions, each with the BatchNorm that takes what it gives."""
    given: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensors are held, so that ids are theirs
    pairs: list[tuple[Any, Any]] = []
    calls: dict[nn.Module, int] = {}

    def seen(part: nn.Module, taken: Any, said: Any) -> None:
        calls[part] = calls.get(part, 0) + 1
        if isinstance(part, nn.Conv2d):
            given[id(said)] = part, said
        elif taken and id(taken[0]) in given:
            pairs.append((given[id(taken[0])][0], part))

    kinds = [part for part in module.modules() if _matters(part)]
    hooks = [part.register_forward_hook(seen) for part in kinds]
    try:
        with evaluating(module), torch.no_grad():
            module(mapped(lambda leaf: channels_last(leaf[:1]), example))
    finally:
        for hook in hooks:
            hook.remove()
    # What is used in two places would have to be folded into both.
    return [(one, other) for one, other in pairs if calls[one] == calls[other] == 1]


def _matters(part: nn.Module) -> bool:
    if isinstance(part, nn.Conv2d):
        return True
    # A subclass may do more than normalise.
    return type(part) is nn.BatchNorm2d and part.running_mean is not None
