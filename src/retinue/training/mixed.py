"""Mixed precision, layer kind by layer kind.

Processors with bfloat16 (AVX512-BF16, AMX) multiply dense matrices several times as fast in it. Of
depthwise convolutions, which wait for memory, PyTorch's bfloat16 kernels are slower than those for
float32, backwards many times: networks made of them train no faster in bfloat16 throughout, and
often slower, than in float32. Where the package's own networks learn on x86 they have better
kernels for those, and choose for themselves (`models/depthwise.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
"""Of their arguments, in order."""


@contextmanager
def autocast(accelerator: Accelerator) -> Iterator[None]:
    """The accelerator's own; on a CPU `on_cpu`."""
    if accelerator.device.type == "cpu":
        with on_cpu(accelerator.mixed_precision):
            yield
    else:
        with accelerator.autocast():
            yield


@contextmanager
def on_cpu(precision: str) -> Iterator[None]:
    """What computes in `precision` on a CPU: `bf16`, in which depthwise convolutions stay in
    float32; everything else is float32."""
    if precision != "bf16":
        yield
        return
    with torch.autocast("cpu", torch.bfloat16), DepthwiseInFloat32():
        yield


class DepthwiseInFloat32(TorchFunctionMode):
    """Convolutions with a group for each channel leave autocast and give float32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            x, weight, bias = (_given(k, name, args, kwargs) for k, name in enumerate(_NAMES[:3]))
            groups = _given(6, "groups", args, kwargs) or 1
            if groups > 1 and weight.shape[1] == 1 and x.is_floating_point():
                rest = {k: v for k, v in kwargs.items() if k not in _NAMES[:3]}
                bias = None if bias is None else bias.float()
                with torch.autocast("cpu", enabled=False):
                    return func(x.float(), weight.float(), bias, *args[3:], **rest)
        return func(*args, **kwargs)


def _given(k: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Argument `k`, called `name`; None where it isn't given."""
    return args[k] if len(args) > k else kwargs.get(name)
