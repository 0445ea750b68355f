"""What writes each format: a traced network, with what it says of itself, to a file.

None of them proves anything: `retinue.exporting.gate` reads the file back and does.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.inference.runtimes import FORMATS, KEY, found, runtime_of
from retinue.inference.runtimes.torchscript import FILE
from retinue.inference.tracing import (
    Axes,
    Signature,
    exported_program,
    forget_weights,
    onnx_program,
    openvino_model,
    quiet,
    scripted,
    traceable,
)


@dataclass(frozen=True)
class Job:
    """What is to be written, and where."""

    module: nn.Module
    """In eval mode."""
    example: Tensor
    """Of its input: real images."""
    axes: Axes
    """Which lengths it is to take."""
    text: Callable[[Signature], str]
    """What the file says of itself, once it is known what the network gives."""
    path: Path
    precision: str = "fp32"
    calibration: Tensor | None = None
    """More real images as they come to the network, by which numbers are chosen for int8."""
    names: Sequence[str] = ()
    """Of the classes, for graphs that tell them."""


@dataclass(frozen=True)
class Writer:
    """What writes a format."""

    write: Callable[[Job], None]
    precisions: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Modules that have to be there."""
    install: str = ""
    """What pip installs."""
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Modules that a precision needs beside them, from the extra `onnx`."""
    one_size: bool = False
    """Whether its files take images of one size, whatever they are to do with them."""
    converted: bool = True
    """Whether it is given the network in 16 bits, and does not see to that itself."""


def _onnx(job: Job) -> None:
    program, signature = onnx_program(job.module, job.example, job.axes)
    program.model.metadata_props[KEY] = job.text(signature)
    program.model.producer_name = "retinue"
    program.model.doc_string = ""
    for node in program.model.graph:  # paths of this machine and its Python
        node.metadata_props.clear()
        node.doc_string = None
    if job.precision == "int8":
        from retinue.exporting.int8 import quantised

        assert job.calibration is not None
        with tempfile.TemporaryDirectory() as folder:
            exact = Path(folder) / "exact.onnx"
            program.save(str(exact))
            quantised(exact, job.path, job.calibration, job.axes.batch)
    else:
        program.save(str(job.path))
    if job.names:
        _name_classes(job.path, job.names)


def _name_classes(path: Path, names: Sequence[str]) -> None:
    """Add an output `names` to the graph: the texts of the classes whose numbers it gives."""
    import onnx

    model = onnx.load(path)
    numbers = next((port for port in model.graph.output if port.name in ("best", "classes")), None)
    if numbers is None:
        return
    words: Any = [name.encode("utf-8") for name in names]
    table = onnx.helper.make_tensor("class_names", onnx.TensorProto.STRING, [len(words)], words)
    model.graph.initializer.append(table)
    node = onnx.helper.make_node("Gather", ["class_names", numbers.name], ["names"])
    model.graph.node.append(node)
    told = onnx.helper.make_tensor_value_info("names", onnx.TensorProto.STRING, None)
    told.type.tensor_type.shape.CopyFrom(numbers.type.tensor_type.shape)
    model.graph.output.append(told)
    onnx.save(model, path)


def _openvino(job: Job) -> None:
    from retinue.inference.runtimes.openvino import core

    text = ""
    if job.precision != "int8":
        model, signature = openvino_model(job.module, job.example, job.axes)
        # fp16 is how weights are kept, bf16 how it is asked to compute when it is loaded.
        _save_openvino(model, job.text(signature), job.path, halved=job.precision == "fp16")
        return

    def keep(signature: Signature) -> str:
        nonlocal text
        text = job.text(signature)
        return text

    # OpenVINO reads what ONNX Runtime has quantised, to the same numbers.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "quantised.onnx"
        _onnx(replace(job, path=file, text=keep))
        _save_openvino(core().read_model(file), text, job.path)


def _save_openvino(model: Any, text: str, path: Path, *, halved: bool = False) -> None:
    import openvino

    from retinue.inference.runtimes.openvino import WEIGHTS
    from retinue.weights.files import sha256

    model.set_rt_info(text, [KEY])
    # By default it halves the weights' precision without being asked.
    openvino.save_model(model, path, compress_to_fp16=halved)
    model.set_rt_info(sha256(path.with_suffix(".bin")), [WEIGHTS])
    openvino.save_model(model, path, compress_to_fp16=halved)


def _torchscript(job: Job) -> None:
    program, signature = scripted(job.module, job.example, job.axes)
    with quiet():
        torch.jit.save(program, str(job.path), _extra_files={FILE: job.text(signature)})
    forget_weights(program)


def _torch_export(job: Job) -> None:
    program, signature = exported_program(job.module, job.example, job.axes)
    for node in program.graph.nodes:  # paths of this machine and its Python
        node.meta.pop("stack_trace", None)
    with quiet(), open(job.path, "wb") as file:
        torch.export.save(program, file, extra_files={FILE: job.text(signature)})


def _litert(job: Job) -> None:
    import litert_torch

    batch = job.axes.batch or 1
    with traceable(job.module, job.example, batch) as (flat, rows):
        made = litert_torch.convert(flat, rows)
    with quiet():
        made.export(str(job.path))
    with zipfile.ZipFile(job.path, "a") as archive:  # behind the graph, where no reader looks
        archive.writestr(FILE, job.text(flat.signature))


_OF_TORCH = ("fp32", "fp16", "bf16")
_ONNX = ("onnx", "onnxscript", "onnxruntime")
WRITERS: Mapping[str, Writer] = MappingProxyType({
    "onnx": Writer(_onnx, ("fp32", "fp16", "int8"), _ONNX, "'retinue[onnx]'"),
    "openvino": Writer(
        _openvino, (*_OF_TORCH, "int8"), ("openvino",), "'retinue[openvino]'", {"int8": _ONNX},
        converted=False,
    ),
    "torchscript": Writer(_torchscript, _OF_TORCH),
    "torch-export": Writer(_torch_export, _OF_TORCH),
    "litert": Writer(_litert, ("fp32",), ("litert_torch",), "'retinue[litert]'", one_size=True),
})  # fmt: skip


_TENSORFLOW = "use --to litert, whose .tflite files TensorFlow's own runtime reads, or --to onnx"
ELSEWHERE: Mapping[str, tuple[str, str, str]] = MappingProxyType({
    "savedmodel": ("a SavedModel", "runs only in the package 'tensorflow'", _TENSORFLOW),
    "keras": ("a Keras file", "runs only in the packages 'keras' and 'tensorflow'", _TENSORFLOW),
    "coreml": (
        "a Core ML file", "runs only on Apple's systems, by the package 'coremltools'",
        "use --to torch-export --batch 1, whose .pt2 files coremltools converts",
    ),
})  # fmt: skip
"""Formats that nothing here writes: what such a file is, what runs it, and the way that works."""


def refuse_elsewhere(to: str) -> None:
    """Raise UsageError for a format that is written elsewhere."""
    if to in ELSEWHERE:
        title, runs, mend = ELSEWHERE[to]
        raise UsageError(
            f"{title} {runs}, which retinue does not use, and nothing is written that it cannot"
            " prove to answer as the model does",
            where=f"format {to}",
            mend=mend,
        )


def writer_of(to: str, precision: str) -> Writer:
    """What writes the format `to`. UsageError where that is not possible here: the precision is
    none of its own, or a package is missing, to write it or to read it back."""
    writer, form = WRITERS[to], FORMATS[to]
    if precision not in writer.precisions:
        others = [name for name, one in WRITERS.items() if precision in one.precisions]
        mend = f"{precision} is written for {', '.join(others)}" if others else "take one of these"
        raise UsageError(
            f"{form.title} files are written in {', '.join(writer.precisions)}, not in {precision}",
            where="precision (--precision)",
            mend=mend,
        )
    for needs, install in (
        (writer.needs, writer.install),
        (writer.also.get(precision, ()), "'retinue[onnx]'"),
    ):
        if missing := next((name for name in needs if not found(name)), None):
            raise UsageError(
                f"{form.title} files are written with the package {missing!r}, which is not"
                " installed",
                mend=f"pip install {install}",
            )
    runtime_of(form)  # what is written is read back before it takes its name
    return writer


class Converted(nn.Module):
    """`module`, which computes in `kind`, for inputs and outputs in float32."""

    def __init__(self, module: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(kind)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        from retinue.nested import single

        return single(self.module(x.to(self.kind)))
