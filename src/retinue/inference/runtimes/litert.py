"""LiteRT files (once TensorFlow Lite), run by its interpreter on the CPU.

A file is a FlatBuffer; what it says of itself is a ZIP archive behind that, as TensorFlow Lite's
own metadata keeps its files: readers of the one do not see the other.
"""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path
from typing import Any

from retinue.errors import UsageError
from retinue.inference.devices import compute_threads, device_kind
from retinue.inference.engine import Engine, Precision
from retinue.inference.runtimes import KEY, Opened, unloadable
from retinue.inference.signature import Signature
from retinue.nested import Nested

FILE = f"{KEY}.json"
SIGNATURE = "serving_default"


class LiteRTEngine(Engine):
    """An interpreter; one image after the other, as such files take them."""

    name = "litert"
    takes_arrays = True

    def __init__(self, runner: Any, signature: Signature, precision: Precision) -> None:
        super().__init__(precision)
        self._signature = signature
        self._runner = runner
        self._inputs = sorted(runner.get_input_details())
        # `output_0`, `output_1`, … in the order of the leaves.
        self._outputs = sorted(runner.get_output_details(), key=lambda name: (len(name), name))
        self._alone = threading.Lock()

    def __call__(self, x: Nested) -> Any:
        arrays = self._signature.arrays(x)
        with self._alone:  # an interpreter has one set of tensors
            said = self._runner(**dict(zip(self._inputs, arrays, strict=True)))
            return self._signature.answer([said[name] for name in self._outputs], x)


def opened(path: Path, device: str) -> Opened:
    """See `retinue.inference.runtimes`."""
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    if device_kind(device) != "cpu":
        raise UsageError(f"LiteRT runs on the CPU here, not on {device!r}", mend="device=cpu")
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=compute_threads())
        runner = interpreter.get_signature_runner(SIGNATURE)
    except Exception as error:
        library = f"LiteRT {getattr(ai_edge_litert, '__version__', '')}"
        whole = _text(path) is not None  # which lies at the end of the file
        raise unloadable(path, library, "ai-edge-litert", error, whole=whole) from error
    return Opened(
        _text(path), lambda signature, precision: LiteRTEngine(runner, signature, precision)
    )


def _text(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(FILE).decode("utf-8")
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError):
        return None
