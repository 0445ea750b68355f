"""OpenVINO on the CPU: networks that were just traced, and files."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch

from retinue.errors import RetinueError, UsageError
from retinue.files import open_file
from retinue.inference.engine import Engine, Precision, home, refuse_bf16
from retinue.inference.runtimes import KEY, Opened, anew, unloadable
from retinue.inference.tracing import Signature
from retinue.nested import Nested
from retinue.weights.files import sha256


@cache
def core() -> Any:
    """OpenVINO's core, one for as long as the process lives.

    Each core's CPU plugin gives the thread that loads it a stack for signals, and puts the one
    before back when it goes. Two that overlap can put back one that is freed already, and the next
    signal has nothing to run on: a SIGTERM would end a training with a segmentation fault instead
    of a checkpoint.
    """
    import openvino

    return openvino.Core()


class OpenVINOEngine(Engine):
    """A model compiled by OpenVINO."""

    name = "openvino"

    def __init__(self, model: Any, signature: Signature, precision: Precision) -> None:
        super().__init__(precision)
        self._signature = signature
        refuse_bf16(precision, core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        settings = {
            # By itself it would take bf16 where the processor has that.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        self._compiled = core().compile_model(model, "CPU", settings)
        self.provider = self._compiled.get_property("EXECUTION_DEVICES")[0]
        if precision != "int8":
            # NumPy has no bfloat16, so that its own way there would call it float16.
            hint = repr(self._compiled.get_property("INFERENCE_PRECISION_HINT"))
            self.computes = re.sub(r".*'(\w+)'.*", r"\1", hint)
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
            return self._signature.answer(outputs, home(x))
        finally:
            self._idle.put(request)


def opened(path: Path, device: str) -> Opened:
    """See `retinue.inference.runtimes`: OpenVINO's own files, and ONNX files."""
    import openvino

    if torch.device(device).type != "cpu":
        raise UsageError(f"OpenVINO runs on the CPU here, not on {device!r}", mend="device=cpu")
    weights = path.with_suffix(".bin")
    if path.suffix.lower() == ".xml" and not weights.is_file():
        raise UsageError(
            "its weights are not beside it", where=str(weights), mend="copy both files together"
        )
    try:
        model = core().read_model(path)
    except Exception as error:
        own = path.suffix.lower() == ".xml"
        if own:
            _refuse_other_weights(_noted(path), weights)
        library = f"OpenVINO {openvino.__version__.partition('-')[0]}"
        raise unloadable(
            path, library, "openvino", error, whole=not own or _ends(path), facts=_version(path)
        ) from error
    if model.has_rt_info([WEIGHTS]):
        _refuse_other_weights(_said(model, WEIGHTS), weights)
    return Opened(
        _text(model, path), lambda signature, precision: OpenVINOEngine(model, signature, precision)
    )


WEIGHTS = f"{KEY}_weights"
"""Under this name a file carries the SHA-256 of the weights that belong to it."""


def _refuse_other_weights(noted: str, weights: Path) -> None:
    """Raise RetinueError for weights of another SHA-256 than the graph has `noted`, if it has: the
    two are copied, and replaced, one after the other."""
    if noted and noted != sha256(weights):
        raise RetinueError(
            "the weights are damaged, or not those of the graph beside them (by their SHA-256)",
            where=str(weights),
            mend=anew(weights.with_suffix(".xml"), "both files"),
        )


def _noted(path: Path) -> str:
    """The SHA-256 of the weights, as a file has it that OpenVINO does not load."""
    try:
        found = re.search(rf'<{WEIGHTS} value="([0-9a-f]+)"', _content(path))
    except OSError:
        return ""
    return found[1] if found else ""


def _ends(path: Path) -> bool:
    """Whether the graph is there to its end."""
    try:
        return _content(path).rstrip().endswith("</net>")
    except OSError:
        return False


def _content(path: Path) -> str:
    with open_file(path) as file:
        return file.read().decode("utf-8", "replace")


def _said(model: Any, key: str) -> str:
    found = model.get_rt_info([key])
    return str(found.astype(str)) if hasattr(found, "astype") else str(found)


def _text(model: Any, path: Path) -> str | None:
    if path.suffix.lower() != ".xml":
        from retinue.inference.runtimes.onnxruntime import facts

        return facts(path)[1]
    if not model.has_rt_info([KEY]):
        return None
    return _said(model, KEY)


def _version(path: Path) -> str:
    """` (IR version 11)` of an OpenVINO file that may be damaged."""
    try:
        with open_file(path) as file:
            start = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return ""
    found = re.search(r'<net\b[^>]*\bversion="(\d+)"', start)
    return f" (IR version {found[1]})" if found else ""
