"""What runs a network: PyTorch, ONNX Runtime or OpenVINO, behind one call.

A compiled engine is accepted only if it agrees with PyTorch on the real inputs it is compiled with
(`retinue.inference.agreement`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from retinue.errors import RetinueError, UsageError
from retinue.inference.agreement import agrees
from retinue.models.network import State

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
Precision = Literal["fp32", "bf16"]

log = logging.getLogger("retinue")

_EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
_NEEDS = {
    "torch": (),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
}


class Engine:
    """A network in eval mode: `engine(x)` takes and gives what the network does, in float32.

    Any batch size; the answer is the caller's own memory. For a given number of threads and batch
    size the same input gives the same bits. Several threads may call one engine at once, unless the
    module of a `TorchEngine` is being trained meanwhile.
    """

    name: str = ""
    """`torch`, `onnxruntime` or `openvino`: what `auto` chose, to be asked for by name again."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision

    def __call__(self, x: State) -> State:
        """Float32 (n, …), a tensor or a tuple of tensors, to the same on the device of `x`."""
        raise NotImplementedError


def installed(name: str) -> bool:
    """Whether the packages that the engine `name` needs are there; imports none of them."""
    return all(importlib.util.find_spec(package) is not None for package in _NEEDS[name])


def candidates(device: str = "cpu") -> list[str]:
    """What `auto` tries on `device`, in turn. Graphics processors run PyTorch."""
    if torch.device(device).type != "cpu":
        return ["torch"]
    return [name for name in ("openvino", "onnxruntime", "torch") if installed(name)]


def compile_engine(
    module: nn.Module,
    example: State,
    *,
    engine: EngineName = "auto",
    device: str = "cpu",
    precision: Precision = "fp32",
) -> Engine:
    """An engine for `module`, which takes `example` and gives a tensor or a tuple of tensors.

    `example`: a batch of real, normalised images (or of a frozen trunk's outputs); engines are
    compiled for its shape but for the batch size, and judged on it. `auto` takes OpenVINO, else
    ONNX Runtime, else PyTorch; one that cannot compile the network, or disagrees on the example,
    is passed over with a warning. An engine asked for by name and not to be had is an error:
    UsageError if it is not installed, RetinueError if it fails or disagrees.
    The weights are those of this moment: train the module further, and compile again.
    """
    if engine != "auto":
        _check(engine, device)
    names = candidates(device) if engine == "auto" else [engine]
    for name in names:
        try:
            made = _COMPILERS[name](module, example, device, precision)
        except RetinueError:
            if engine != "auto":
                raise
            continue
        except Exception as error:
            problem = f"{name} cannot compile this network: {_first_line(error)}"
        else:
            if name == "torch":
                return made
            reference = TorchEngine(module, device=device, precision="fp32")
            agreement = agrees(made, reference, example, precision=precision)
            if agreement.accepted:
                return made
            problem = f"{name} disagrees with torch: {agreement}"
        if engine != "auto":
            raise RetinueError(problem, mend="use engine=torch")
        log.warning("%s; going on without it", problem)
    return TorchEngine(module, device=device, precision=precision)


class TorchEngine(Engine):
    """The module itself: eval mode, channels-last, no gradients, bf16 by autocast.

    Shares its weights with `module`, so it follows a training. Training flags are put back after
    each call.
    """

    name = "torch"

    def __init__(
        self, module: nn.Module, *, device: str = "cpu", precision: Precision = "fp32"
    ) -> None:
        super().__init__(precision)
        self.device = torch.device(device)
        self.module = module.to(self.device)

    def __call__(self, x: State) -> State:
        inputs = tuple(_channels_last(t.to(self.device)) for t in _parts(x))
        autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16"
        )
        with evaluating(self.module), torch.inference_mode(), autocast:
            answer = self.module(inputs if isinstance(x, tuple) else inputs[0])
        home = _parts(x)[0].device
        outputs = tuple(t.float().to(home) for t in _parts(answer))
        return outputs if isinstance(answer, tuple) else outputs[0]


@cache
def _openvino() -> Any:
    """OpenVINO's core, one for as long as the process lives.

    Each core's CPU plugin gives the thread that loads it a stack for signals, and puts the one
    before back when it goes. Two that overlap can put back one that is freed already, and the next
    signal has nothing to run on: a SIGTERM would end a training with a segmentation fault instead
    of a checkpoint.
    """
    import openvino

    return openvino.Core()


class OpenVINOEngine(Engine):
    """OpenVINO on the CPU, converted from the traced module without a detour through ONNX."""

    name = "openvino"

    def __init__(self, module: nn.Module, example: State, precision: Precision) -> None:
        super().__init__(precision)
        import openvino

        # `openvino.convert_model` reports usage to its makers; its frontend alone does not.
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        core = _openvino()
        _check_bf16(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        with _traceable(module) as (flat, shapes), _quiet():
            parts = _example(example)
            # The tracer's own check would run the network twice more; the gate does it once.
            traced = torch.jit.trace(flat, parts, check_trace=False)  # type: ignore[no-untyped-call]
            decoder = TorchScriptPythonDecoder(torch.jit.freeze(traced))
            frontend = FrontEndManager().load_by_framework("pytorch")
            model = frontend.convert(frontend.load(decoder))
            self._single = shapes["single"]
        for port, part in zip(model.inputs, parts, strict=True):
            port.get_node().set_element_type(openvino.Type.f32)
            port.get_node().set_partial_shape(openvino.PartialShape([-1, *part.shape[1:]]))
        model.validate_nodes_and_infer_types()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        self._compiled = core.compile_model(model, "CPU", settings)
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def __call__(self, x: State) -> State:
        arrays = [_array(part) for part in _parts(x)]
        # A request holds its inputs and outputs, so it serves one thread at a time: there are as
        # many as have ever been needed at once.
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            request.infer(arrays, share_inputs=True)
            outputs = [port.data for port in request.output_tensors]
            return _state(outputs, self._single, _parts(x)[0].device)
        finally:
            self._idle.put(request)


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime on the CPU, from an export that is kept in memory only."""

    name = "onnxruntime"

    def __init__(self, module: nn.Module, example: State, precision: Precision) -> None:
        super().__init__(precision)
        import onnxruntime

        _check_bf16(precision, [])
        with _traceable(module) as (flat, shapes), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            parts = _example(example)
            batch = torch.export.Dim("batch", min=1, max=2**20)
            with _quiet():
                exported = torch.onnx.export(
                    flat,
                    parts,
                    dynamo=True,
                    dynamic_shapes={"xs": tuple({0: batch} for _ in parts)},
                    verbose=False,
                    optimize=True,
                )
                assert exported is not None
                exported.save(str(file), external_data=True)  # above 2 GB there is no other way
            self._single = shapes["single"]
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        self._names = [port.name for port in self._session.get_inputs()]

    def __call__(self, x: State) -> State:
        arrays = [_array(part) for part in _parts(x)]
        outputs = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return _state(outputs, self._single, _parts(x)[0].device)


_COMPILERS: dict[str, Callable[[nn.Module, State, str, Precision], Engine]] = {
    "torch": lambda m, x, device, precision: TorchEngine(m, device=device, precision=precision),
    "openvino": lambda m, x, device, precision: OpenVINOEngine(m, x, precision),
    "onnxruntime": lambda m, x, device, precision: OnnxRuntimeEngine(m, x, precision),
}


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


class _Flat(nn.Module):
    """Tensors in, tuple of tensors out: what tracers take. Notes whether the answer was single."""

    def __init__(self, module: nn.Module, shapes: dict[str, bool]) -> None:
        super().__init__()
        self.module = module
        self.shapes = shapes

    def forward(self, *xs: Tensor) -> tuple[Tensor, ...]:
        answer = self.module(xs[0] if len(xs) == 1 else xs)
        self.shapes["single"] = isinstance(answer, Tensor)
        return _parts(answer)


@contextlib.contextmanager
def _traceable(module: nn.Module) -> Iterator[tuple[_Flat, dict[str, bool]]]:
    shapes: dict[str, bool] = {}
    with evaluating(module), torch.no_grad():
        flat = _Flat(module, shapes)
        flat.training = False
        yield flat, shapes


def _example(example: State) -> tuple[Tensor, ...]:
    """Plain, contiguous float32 tensors of two rows: one row would be taken for a constant."""
    parts = [part.detach().float().cpu().contiguous() for part in _parts(example)]
    return tuple(torch.cat([part[:1], part[:2][-1:]]).clone() for part in parts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracers print progress and warn about what the gate then judges."""
    exporters = logging.getLogger("torch.onnx")
    level = exporters.level
    exporters.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        exporters.setLevel(level)


def _check(name: str, device: str) -> None:
    if name not in _NEEDS:
        raise UsageError(
            f"unknown engine {name!r}", mend=f"there are auto, {', '.join(sorted(_NEEDS))}"
        )
    if not installed(name):
        raise UsageError(
            f"the engine {name!r} is not installed",
            mend=f"pip install 'retinue[{_EXTRAS[name]}]', or use engine=torch",
        )
    if name != "torch" and torch.device(device).type != "cpu":
        raise UsageError(
            f"the engine {name!r} runs on the CPU, not on {device!r}",
            mend="use engine=torch, or device=cpu",
        )


def _check_bf16(precision: Precision, capabilities: list[str]) -> None:
    if precision == "bf16" and "BF16" not in capabilities:
        raise UsageError(
            "this engine has no bf16 on this processor", mend="use precision fp32, or engine=torch"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _parts(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _array(x: Tensor) -> Any:
    return np.ascontiguousarray(x.detach().float().cpu().numpy())


def _state(outputs: list[Any], single: bool, device: torch.device) -> State:
    # Copies: the engine writes its next answer over this one.
    tensors = tuple(torch.from_numpy(np.array(out, dtype=np.float32)).to(device) for out in outputs)
    return tensors[0] if single else cast(State, tensors)
