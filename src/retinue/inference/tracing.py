"""A network as a graph that other libraries run: traced for OpenVINO, exported as ONNX.

Tracers take and give tensors in a row. A `Signature` says how they are nested outside.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retinue.inference.signature import Signature as Signature
from retinue.nested import Nested, leaves, names, rebuilt, structure


@dataclass(frozen=True)
class Axes:
    """Which lengths of its inputs a traced network takes. By default any batch of images of the
    size that it was traced with."""

    batch: int | None = None
    """So many images at a time, always; None: any number."""
    sides: tuple[int, ...] = ()
    """The axes along which images may be of any length; empty: they are of one size."""
    multiple: int = 1
    """Of which those lengths are multiples."""


class Flat(nn.Module):
    """`module` with tensors in and a tuple of tensors out, for tracers; notes what comes out."""

    def __init__(self, module: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.module = module
        self.signature = signature

    def forward(self, *xs: Tensor) -> tuple[Tensor, ...]:
        answer = self.module(rebuilt(self.signature.inputs, xs))
        parts = leaves(answer)
        self.signature.outputs = structure(answer)
        self.signature.output_types = [type_name(_plain(part.dtype)) for part in parts]
        return tuple(parts)


@contextlib.contextmanager
def traceable(
    module: nn.Module, example: Nested, count: int = 2
) -> Iterator[tuple[Flat, tuple[Tensor, ...]]]:
    """`module` (in eval mode meanwhile) as tracers take it, and what to trace it with."""
    rows = example_rows(example, count)
    flat = Flat(module, Signature(structure(example), [type_name(row.dtype) for row in rows]))
    flat.training = False
    with evaluating(module), torch.no_grad(), quiet():
        yield flat, rows


def example_rows(example: Nested, count: int = 2) -> tuple[Tensor, ...]:
    """The leaves of `example` (n, …) as plain, contiguous tensors of `count` rows, on the CPU;
    floats in float32. A single row would be taken for a constant, where any number is meant."""
    parts = [leaf.detach().to("cpu", _plain(leaf.dtype)).contiguous() for leaf in leaves(example)]
    return tuple(part[torch.arange(count).clamp(max=len(part) - 1)].clone() for part in parts)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of `module` in eval mode; afterwards in the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Tracers print progress and warn about what the parity gate then judges."""
    exporters = logging.getLogger("torch.onnx")
    level = exporters.level
    exporters.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporters.setLevel(level)


def scripted(module: nn.Module, example: Nested, axes: Axes) -> tuple[Any, Signature]:
    """`module` as a frozen TorchScript program that takes and gives the leaves in their order."""
    with traceable(module, example, axes.batch or 2) as (flat, rows):
        # The tracer's own check would run the network twice more; the gate does it once.
        traced = torch.jit.trace(flat, rows, check_trace=False)  # type: ignore[no-untyped-call]
        return torch.jit.freeze(traced), flat.signature


def openvino_model(
    module: nn.Module, example: Nested, axes: Axes | None = None
) -> tuple[Any, Signature]:
    """`module` as an `openvino.Model`, converted without a detour through ONNX.

    Inputs and outputs are the leaves in their order. `openvino` must be installed.
    """
    import openvino

    # `openvino.convert_model` reports usage to its makers; its frontend alone does not.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    axes = axes or Axes()
    program, signature = scripted(module, example, axes)
    with quiet():
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(program)  # which has to live until it is converted
        model = frontend.convert(frontend.load(decoder))
    forget_weights(program)
    rows = example_rows(example, axes.batch or 2)
    inputs = names(signature.inputs, IMAGES)
    for port, row, name in zip(model.inputs, rows, inputs, strict=True):
        shape = [-1 if k in axes.sides else length for k, length in enumerate(row.shape)]
        shape[0] = axes.batch or -1
        port.get_node().set_element_type(openvino.Type(np.dtype(type_name(row.dtype))))
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, names(signature.outputs, OUTPUT), strict=True):
        port.get_tensor().add_names({name})
    model.validate_nodes_and_infer_types()
    return model, signature


def forget_weights(program: Any) -> None:
    """PyTorch keeps each traced graph as long as the process lives, with the weights in it: a
    process that trains one network after the other would grow by each. What was converted holds
    those that it needs."""
    for node in program.graph.findAllNodes("prim::Constant", recurse=True):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            node.t_("value", torch.empty(0))


def exported_program(
    module: nn.Module, example: Nested, axes: Axes
) -> tuple[torch.export.ExportedProgram, Signature]:
    """`module` as a program of `torch.export`."""
    with traceable(module, example, axes.batch or 2) as (flat, rows):
        shapes = {"xs": tuple(_dynamic(axes) for _ in rows)}
        program = torch.export.export(flat, rows, dynamic_shapes=shapes)
    return program, flat.signature


def onnx_program(
    module: nn.Module, example: Nested, axes: Axes | None = None
) -> tuple[torch.onnx.ONNXProgram, Signature]:
    """`module` as an ONNX program; `save` writes it to a file.

    Inputs and outputs are the leaves in their order. `onnx` and `onnxscript` must be installed.
    """
    axes = axes or Axes()
    with traceable(module, example, axes.batch or 2) as (flat, rows):
        flat(*rows)  # which tells what comes out
        program = torch.onnx.export(
            flat,
            rows,
            dynamo=True,
            dynamic_shapes={"xs": tuple(_dynamic(axes) for _ in rows)},
            input_names=names(flat.signature.inputs, IMAGES),
            output_names=names(flat.signature.outputs, OUTPUT),
            verbose=False,
            optimize=True,
        )
    assert program is not None
    return program, flat.signature


IMAGES, OUTPUT = "images", "output"
"""What single inputs and outputs are called in graphs."""


def _dynamic(axes: Axes) -> dict[int, Any]:
    shapes: dict[int, Any] = {}
    if axes.batch is None:
        shapes[0] = torch.export.Dim("batch", min=1, max=2**20)
    for axis, name in zip(axes.sides, ("height", "width"), strict=False):
        one = torch.export.Dim(name, min=1, max=2**15)
        shapes[axis] = axes.multiple * one if axes.multiple > 1 else one
    return shapes


def _plain(kind: torch.dtype) -> torch.dtype:
    return torch.float32 if kind.is_floating_point else kind


def type_name(kind: torch.dtype) -> str:
    """As a `Signature` calls it: `float32`."""
    return str(kind).removeprefix("torch.")
