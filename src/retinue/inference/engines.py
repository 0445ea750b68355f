"""What runs a network: PyTorch, ONNX Runtime or OpenVINO, behind one call.

A compiled engine is accepted only if it agrees with PyTorch on the real inputs it is compiled with
(`retinue.inference.agreement`).
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

import torch
from torch import Tensor, nn

from retinue.errors import RetinueError, UsageError
from retinue.inference.agreement import TOLERANCE, Scores, compare
from retinue.inference.tracing import evaluating, onnx_program, openvino_model
from retinue.nested import Nested, leaves, mapped, single
from retinue.text import first_line

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
    """A network in eval mode: `engine(x)` takes and gives what the network does (`retinue.nested`).

    Any batch size; the answer is the caller's own memory. For a given number of threads and batch
    size the same input gives the same bits. Several threads may call one engine at once, unless the
    module of a `TorchEngine` is being trained meanwhile.
    """

    name: str = ""
    """`torch`, `onnxruntime` or `openvino`: what `auto` chose, to be asked for by name again."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision

    def __call__(self, x: Nested) -> Any:
        """What the module gives for `x`, nested as there, on the device of `x`.

        `x`: tensors (n, …), nested as the module takes them. Floating-point outputs are float32,
        all others (class numbers, masks) of the module's own dtype.
        """
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
    example: Nested,
    *,
    engine: EngineName = "auto",
    device: str = "cpu",
    precision: Precision = "fp32",
    scores: Scores | None = None,
) -> Engine:
    """An engine for `module`, which takes `example` and gives tensors, both of any nesting.

    `example`: a batch of real, normalised images (or of a frozen trunk's outputs); engines are
    compiled for its shape but for the batch size, and judged on it. `auto` takes OpenVINO, else
    ONNX Runtime, else PyTorch; one that cannot compile the network, or disagrees on the example,
    is passed over with a warning. An engine asked for by name and not to be had is an error:
    UsageError if it is not installed, RetinueError if it fails or disagrees.
    `scores`: which of the outputs are scores of classes, whose best has to be the same
    (`retinue.inference.agreement.compare`).
    The weights are those of this moment: train the module further, and compile again.
    """
    if engine != "auto":
        _check(engine, device)
    names = candidates(device) if engine == "auto" else [engine]
    expected: Nested = ()
    if names != ["torch"]:
        expected = TorchEngine(module, device=device)(example)
        # What is no number agrees with nothing. Whoever uses the answers says so, by the image.
        if not all(bool(leaf.isfinite().all()) for leaf in leaves(expected)):
            names = ["torch"]
    for name in names:
        try:
            made = _COMPILERS[name](module, example, device, precision)
        except RetinueError:
            if engine != "auto":
                raise
            continue
        except Exception as error:
            said = f"{type(error).__name__}: {first_line(error)}"
            problem = f"{name} cannot compile this network: {said}"
        else:
            if name == "torch":
                return made
            agreement = compare(made(example), expected, TOLERANCE[precision], scores=scores)
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

    def __call__(self, x: Nested) -> Any:
        inputs = mapped(lambda leaf: _channels_last(leaf.to(self.device)), x)
        autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16"
        )
        with evaluating(self.module), torch.inference_mode(), autocast:
            answer = self.module(inputs)
        home = _home(x)
        return mapped(lambda leaf: leaf.to(home), single(answer))


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
    """OpenVINO on the CPU."""

    name = "openvino"

    def __init__(self, module: nn.Module, example: Nested, precision: Precision) -> None:
        super().__init__(precision)
        core = _openvino()
        _check_bf16(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        model, self._signature = openvino_model(module, example)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        self._compiled = core.compile_model(model, "CPU", settings)
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def __call__(self, x: Nested) -> Any:
        arrays = self._signature.arrays(x)
        # A request holds its inputs and outputs, so it serves one thread at a time: there are as
        # many as have ever been needed at once.
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            request.infer(arrays, share_inputs=True)
            outputs = [port.data for port in request.output_tensors]
            return self._signature.answer(outputs, _home(x))
        finally:
            self._idle.put(request)


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime on the CPU, from an export that is kept in memory only."""

    name = "onnxruntime"

    def __init__(self, module: nn.Module, example: Nested, precision: Precision) -> None:
        super().__init__(precision)
        import onnxruntime

        _check_bf16(precision, [])
        program, self._signature = onnx_program(module, example)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            program.save(str(file), external_data=True)  # above 2 GB there is no other way
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        self._names = [port.name for port in self._session.get_inputs()]

    def __call__(self, x: Nested) -> Any:
        arrays = self._signature.arrays(x)
        outputs = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return self._signature.answer(outputs, _home(x))


_COMPILERS: dict[str, Callable[[nn.Module, Nested, str, Precision], Engine]] = {
    "torch": lambda m, x, device, precision: TorchEngine(m, device=device, precision=precision),
    "openvino": lambda m, x, device, precision: OpenVINOEngine(m, x, precision),
    "onnxruntime": lambda m, x, device, precision: OnnxRuntimeEngine(m, x, precision),
}


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


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _home(x: Nested) -> torch.device:
    return leaves(x)[0].device
