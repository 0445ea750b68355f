"""TorchScript files, run by PyTorch."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from retinue.inference.engine import Engine, Precision, channels_last, home
from retinue.inference.runtimes import KEY, Opened, unloadable
from retinue.inference.tracing import Signature, quiet
from retinue.nested import Nested, leaves, rebuilt, single

FILE = f"{KEY}.json"
"""Of what stands beside the program in the file."""


class ProgramEngine(Engine):
    """A program of PyTorch's that takes tensors and gives a tuple of them."""

    name = "torch"

    def __init__(
        self, program: Any, signature: Signature, precision: Precision, device: str
    ) -> None:
        super().__init__(precision)
        self._program, self._signature = program, signature
        self._device = torch.device(device)
        self.provider = str(self._device)

    def __call__(self, x: Nested) -> Any:
        kinds = [getattr(torch, name) for name in self._signature.input_types]
        pairs = zip(leaves(x), kinds, strict=True)
        inputs = [channels_last(leaf.to(self._device, kind)) for leaf, kind in pairs]
        with torch.inference_mode():
            answer = rebuilt(self._signature.outputs, self._program(*inputs))
        place = home(x)
        # Its own memory: a program may hand an input or a constant through.
        return single(rebuilt(self._signature.outputs, [
            leaf.to(place, copy=True) for leaf in leaves(answer)
        ]))  # fmt: skip


def opened(path: Path, device: str) -> Opened:
    """See `retinue.inference.runtimes`."""
    found: dict[str, Any] = {FILE: ""}
    try:
        with quiet():
            load: Any = torch.jit.load
            program = load(str(path), map_location=device, _extra_files=found)
    except Exception as error:
        whole = zipfile.is_zipfile(path)
        library = f"PyTorch {torch.__version__}"
        raise unloadable(path, library, "torch", error, whole=whole) from error
    text = found[FILE]
    said = text.decode("utf-8") if isinstance(text, bytes) else text
    return Opened(
        said or None,
        lambda signature, precision: ProgramEngine(program, signature, precision, device),
    )
