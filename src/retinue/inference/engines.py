"""What runs a network: PyTorch, ONNX Runtime or OpenVINO, behind one call.

A compiled engine is accepted only if it agrees with PyTorch on the real inputs it is compiled with
(`retinue.inference.agreement`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retinue.errors import RetinueError, UsageError
from retinue.inference.agreement import TOLERANCE, Scores, compare
from retinue.inference.engine import Engine, Precision, channels_last, home, refuse_bf16
from retinue.inference.names import EngineName
from retinue.inference.runtimes import found
from retinue.inference.tracing import evaluating, onnx_program, openvino_model
from retinue.nested import Nested, leaves, mapped, single
from retinue.text import first_line

log = logging.getLogger("retinue")

_EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
_NEEDS = {
    "torch": (),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
}


def installed(name: str) -> bool:
    """Whether the packages that the engine `name` needs are there; imports none of them."""
    return all(found(package) for package in _NEEDS[name])


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
        except UsageError:  # it has not this precision here
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
        self.provider = str(self.device)
        self.module = module.to(self.device)

    def __call__(self, x: Nested) -> Any:
        inputs = mapped(lambda leaf: channels_last(leaf.to(self.device)), x)
        autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bf16"
        )
        with evaluating(self.module), torch.inference_mode(), autocast:
            answer = self.module(inputs)
        place = home(x)
        return mapped(lambda leaf: leaf.to(place), single(answer))


def _onnxruntime(module: nn.Module, example: Nested, precision: Precision) -> Engine:
    """ONNX Runtime on the CPU, from an export that is kept in memory only."""
    from retinue.inference.runtimes.onnxruntime import OnnxRuntimeEngine, session

    refuse_bf16(precision, [])
    program, signature = onnx_program(module, example)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        program.save(str(file), external_data=True)  # above 2 GB there is no other way
        return OnnxRuntimeEngine(session(file), signature, precision)


def _openvino(module: nn.Module, example: Nested, precision: Precision) -> Engine:
    """OpenVINO on the CPU."""
    from retinue.inference.runtimes.openvino import OpenVINOEngine, core

    refuse_bf16(precision, core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    model, signature = openvino_model(module, example)
    return OpenVINOEngine(model, signature, precision)


_COMPILERS: dict[str, Callable[[nn.Module, Nested, str, Precision], Engine]] = {
    "torch": lambda m, x, device, precision: TorchEngine(m, device=device, precision=precision),
    "openvino": lambda m, x, device, precision: _openvino(m, x, precision),
    "onnxruntime": lambda m, x, device, precision: _onnxruntime(m, x, precision),
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
