"""A network as a graph that other libraries run: traced for OpenVINO, exported as ONNX.

Tracers take and give tensors in a row. A `Signature` says how they are nested outside.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from retinue.nested import Nested, Structure, leaves, rebuilt, structure


@dataclass
class Signature:
    """What a traced network takes and gives. What it gives is known once it has been traced."""

    inputs: Structure
    input_types: list[torch.dtype]
    outputs: Structure = None
    output_types: list[torch.dtype] = field(default_factory=list)

    def arrays(self, x: Nested) -> list[npt.NDArray[Any]]:
        """`x` as the graph's inputs. ValueError if it isn't nested as the example was."""
        if structure(x) != self.inputs:
            raise ValueError(f"compiled for {self.inputs}, called with {structure(x)}")
        return [
            np.ascontiguousarray(leaf.detach().to("cpu", kind).numpy())
            for leaf, kind in zip(leaves(x), self.input_types, strict=True)
        ]

    def answer(self, arrays: Sequence[npt.NDArray[Any]], device: torch.device) -> Any:
        """The graph's outputs as the network gives them, in memory of their own, on `device`."""
        tensors = (
            torch.from_numpy(np.array(array, dtype=_numpy(kind))).to(device)
            for array, kind in zip(arrays, self.output_types, strict=True)
        )
        return rebuilt(self.outputs, tensors)


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
        self.signature.output_types = [_plain(part.dtype) for part in parts]
        return tuple(parts)


@contextlib.contextmanager
def traceable(module: nn.Module, example: Nested) -> Iterator[tuple[Flat, tuple[Tensor, ...]]]:
    """`module` (in eval mode meanwhile) as tracers take it, and what to trace it with."""
    rows = example_rows(example)
    flat = Flat(module, Signature(structure(example), [row.dtype for row in rows]))
    flat.training = False
    with evaluating(module), torch.no_grad(), quiet():
        yield flat, rows


def example_rows(example: Nested) -> tuple[Tensor, ...]:
    """The leaves of `example` (n, …) as plain, contiguous tensors of two rows, on the CPU; floats
    in float32. A single row would be taken for a constant."""
    parts = [leaf.detach().to("cpu", _plain(leaf.dtype)).contiguous() for leaf in leaves(example)]
    return tuple(torch.cat([part[:1], part[:2][-1:]]).clone() for part in parts)


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


def openvino_model(module: nn.Module, example: Nested) -> tuple[Any, Signature]:
    """`module` as an `openvino.Model` for any batch size, converted without a detour through ONNX.

    Inputs and outputs are the leaves in their order. `openvino` must be installed.
    """
    import openvino

    # `openvino.convert_model` reports usage to its makers; its frontend alone does not.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with traceable(module, example) as (flat, rows):
        # The tracer's own check would run the network twice more; the gate does it once.
        traced = torch.jit.trace(flat, rows, check_trace=False)  # type: ignore[no-untyped-call]
        decoder = TorchScriptPythonDecoder(torch.jit.freeze(traced))
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    for port, row in zip(model.inputs, rows, strict=True):
        port.get_node().set_element_type(openvino.Type(_numpy(row.dtype)))
        port.get_node().set_partial_shape(openvino.PartialShape([-1, *row.shape[1:]]))
    model.validate_nodes_and_infer_types()
    return model, flat.signature


def onnx_program(module: nn.Module, example: Nested) -> tuple[torch.onnx.ONNXProgram, Signature]:
    """`module` as an ONNX program for any batch size; `save` writes it to a file.

    Inputs and outputs are the leaves in their order. `onnx` and `onnxscript` must be installed.
    """
    batch = torch.export.Dim("batch", min=1, max=2**20)
    with traceable(module, example) as (flat, rows):
        program = torch.onnx.export(
            flat,
            rows,
            dynamo=True,
            dynamic_shapes={"xs": tuple({0: batch} for _ in rows)},
            verbose=False,
            optimize=True,
        )
    assert program is not None
    return program, flat.signature


def _plain(kind: torch.dtype) -> torch.dtype:
    return torch.float32 if kind.is_floating_point else kind


def _numpy(kind: torch.dtype) -> npt.DTypeLike:
    return torch.empty(0, dtype=kind).numpy().dtype
