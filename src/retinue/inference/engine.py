"""What an engine is: a network in eval mode, whatever runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from retinue.errors import UsageError
from retinue.nested import Nested, leaves

if TYPE_CHECKING:  # graphs that other libraries run need no torch
    import torch
    from torch import Tensor

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Way = Literal["apart", "together"]
"""How a batch goes through a graph. `apart`: an image at a time, as many at once as there are
streams, so that maps stay in the processor's cache, shapes are known beforehand, and an answer does
not depend on the images beside it. `together`: all at once, for networks that would read many
weights anew for each image, and those that do not give a row an image."""


class Engine:
    """A network in eval mode: `engine(x)` takes and gives what the network does (`retinue.nested`).

    Any batch size; the answer is the caller's own memory. For a given number of threads and batch
    size the same input gives the same bits. Several threads may call one engine at once, unless the
    module of a `TorchEngine` is being trained meanwhile.
    """

    name: str = ""
    """`torch`, `onnxruntime`, `openvino` …: what `auto` chose, to be asked for by name again."""
    provider: str = "CPU"
    """What really computes, as the library tells it: `CPUExecutionProvider`, `cuda:0` …"""
    computes: str = ""
    """In what numbers it really computes, as the library tells it: `float32`, `bfloat16` …"""

    takes_arrays: ClassVar[bool] = False
    """Whether it takes NumPy arrays in place of tensors, too, and then gives arrays."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self.computes = COMPUTES[precision]

    def __call__(self, x: Nested) -> Any:
        """What the module gives for `x`, nested as there, on the device of `x`.

        `x`: tensors (n, …), nested as the module takes them. Floating-point outputs are float32,
        all others (class numbers, masks) of the module's own dtype.
        """
        raise NotImplementedError


COMPUTES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
"""What the precisions are called elsewhere."""


def refuse_bf16(precision: Precision, capabilities: list[str]) -> None:
    """Raise UsageError where bf16 is asked for and the engine's `capabilities` lack it."""
    if precision == "bf16" and "BF16" not in capabilities:
        raise UsageError(
            "this engine has no bf16 on this processor", mend="use precision fp32, or engine=torch"
        )


def channels_last(x: Tensor) -> Tensor:
    """Images in the memory format that convolutions like best; anything else as it is."""
    import torch

    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def home(x: Nested) -> torch.device:
    """Where `x` lies."""
    return leaves(x)[0].device
