"""What writes each format: a traced network, with what it says of itself, to a file.

None of them proves anything: `retinue.exporting.gate` reads the file back and does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.inference.runtimes import FORMATS, KEY, runtime_of
from retinue.inference.runtimes.torchscript import FILE
from retinue.inference.tracing import (
    Axes,
    Signature,
    exported_program,
    onnx_program,
    openvino_model,
    quiet,
    scripted,
)

Text = Callable[[Signature], str]
"""What the file says of itself, once it is known what the network gives."""


@dataclass(frozen=True)
class Writer:
    """What writes a format."""

    write: Callable[[nn.Module, Tensor, Axes, Text, Path], None]
    """Module, example of its input, which lengths it takes, what it says of itself, and where."""
    precisions: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Modules that have to be there."""
    install: str = ""
    """What pip installs."""


def _onnx(module: nn.Module, example: Tensor, axes: Axes, text: Text, path: Path) -> None:
    program, signature = onnx_program(module, example, axes)
    program.model.metadata_props[KEY] = text(signature)
    program.model.producer_name = "retinue"
    program.model.doc_string = ""
    for node in program.model.graph:  # paths of this machine and its Python
        node.metadata_props.clear()
        node.doc_string = None
    program.save(str(path))


def _openvino(module: nn.Module, example: Tensor, axes: Axes, text: Text, path: Path) -> None:
    import openvino

    model, signature = openvino_model(module, example, axes)
    model.set_rt_info(text(signature), [KEY])
    # It would halve the weights' precision without being asked.
    openvino.save_model(model, path, compress_to_fp16=False)


def _torchscript(module: nn.Module, example: Tensor, axes: Axes, text: Text, path: Path) -> None:
    program, signature = scripted(module, example, axes)
    with quiet():
        torch.jit.save(program, str(path), _extra_files={FILE: text(signature)})


def _torch_export(module: nn.Module, example: Tensor, axes: Axes, text: Text, path: Path) -> None:
    program, signature = exported_program(module, example, axes)
    with quiet(), open(path, "wb") as file:
        torch.export.save(program, file, extra_files={FILE: text(signature)})


WRITERS: Mapping[str, Writer] = MappingProxyType({
    "onnx": Writer(_onnx, ("fp32", "fp16"), ("onnx", "onnxscript"), "'retinue[onnx]'"),
    "openvino": Writer(_openvino, ("fp32", "fp16", "bf16"), ("openvino",), "'retinue[openvino]'"),
    "torchscript": Writer(_torchscript, ("fp32", "fp16", "bf16")),
    "torch-export": Writer(_torch_export, ("fp32", "fp16", "bf16")),
})  # fmt: skip


def writer_of(to: str, precision: str) -> Writer:
    """What writes the format `to`. UsageError where that is not possible here: the precision is
    none of its own, or a package is missing, to write it or to read it back."""
    writer, form = WRITERS[to], FORMATS[to]
    if precision not in writer.precisions:
        others = [name for name, one in WRITERS.items() if precision in one.precisions]
        raise UsageError(
            f"{form.title} files are written in {', '.join(writer.precisions)}, not in {precision}",
            where="precision (--precision)",
            mend=f"{precision} is written for {', '.join(others)}",
        )
    missing = next((name for name in writer.needs if not _there(name)), None)
    if missing is not None:
        raise UsageError(
            f"{form.title} files are written with the package {missing!r}, which is not installed",
            mend=f"pip install {writer.install}",
        )
    runtime_of(form)  # what is written is read back before it takes its name
    return writer


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # what `sys.modules` says is not there
        return False


class Converted(nn.Module):
    """`module`, which computes in `kind`, for inputs and outputs in float32."""

    def __init__(self, module: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(kind)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        from retinue.nested import single

        return single(self.module(x.to(self.kind)))
