"""ONNX Runtime: networks that were just exported, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retinue.errors import RetinueError, UsageError
from retinue.files import open_file
from retinue.inference.devices import compute_threads, device_kind
from retinue.inference.engine import Engine, Precision
from retinue.inference.runtimes import KEY, Opened, unloadable
from retinue.inference.signature import Signature
from retinue.nested import Nested
from retinue.protobuf import VARINT, Malformed, Piece, fields, pieces
from retinue.text import first_line

_IR_VERSION, _METADATA, _OPSET = 1, 14, 8
"""Numbers of ModelProto's fields."""


class OnnxRuntimeEngine(Engine):
    """A session of ONNX Runtime."""

    name = "onnxruntime"
    takes_arrays = True

    def __init__(self, session: Any, signature: Signature, precision: Precision = "fp32") -> None:
        super().__init__(precision)
        self._session, self._signature = session, signature
        self._names = [port.name for port in session.get_inputs()]
        # Behind the network's own there may be texts, for people who run the file without retinue.
        own = len(signature.output_types)
        self._outputs = [port.name for port in session.get_outputs()][:own]
        self.provider = session.get_providers()[0]

    def __call__(self, x: Nested) -> Any:
        arrays = self._signature.arrays(x)
        outputs = self._session.run(self._outputs, dict(zip(self._names, arrays, strict=True)))
        return self._signature.answer(outputs, x)


def session(file: Path | bytes, device: str = "cpu") -> Any:
    """What runs `file`, or the content of one, on `device`. RetinueError where ONNX Runtime cannot,
    or would do so on another device than is asked for."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = compute_threads()
    options.log_severity_level = 4  # what goes wrong is told by the error
    kind = device_kind(device)
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind)
    if wanted is None or wanted not in onnxruntime.get_available_providers():
        raise UsageError(
            f"this ONNX Runtime does not compute on {device!r}",
            where=f"onnxruntime {onnxruntime.__version__}",
            mend="use device=cpu" + (", or pip install onnxruntime-gpu" if kind == "cuda" else ""),
        )
    providers = list(dict.fromkeys([wanted, "CPUExecutionProvider"]))
    try:
        source = str(file) if isinstance(file, Path) else file
        made = onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception as error:
        if not isinstance(file, Path):
            raise RetinueError(f"ONNX Runtime cannot load it: {first_line(error)}") from error
        versions = _versions(file)
        library = f"ONNX Runtime {onnxruntime.__version__}"
        raise unloadable(
            file, library, "onnxruntime", error, whole=bool(versions), facts=versions
        ) from error
    if made.get_providers()[0] != wanted:  # it falls back without an error
        raise RetinueError(
            f"ONNX Runtime would compute by {made.get_providers()[0]}, not on {device!r}",
            where=f"onnxruntime {onnxruntime.__version__}",
            mend="install the CUDA that it was built for, or use device=cpu",
        )
    return made


def opened(path: Path, device: str) -> Opened:
    """See `retinue.inference.runtimes`."""
    made = session(path, device)
    text = made.get_modelmeta().custom_metadata_map.get(KEY)
    return Opened(text, lambda signature, precision: OnnxRuntimeEngine(made, signature, precision))


def facts(file: Path) -> tuple[str, str | None]:
    """Of an ONNX file, read without a library: `IR version 10, opset 20`, and what stands under
    `KEY`. Malformed for what is no such file."""
    with open_file(file) as source:
        content = source.read()
    version, opsets, text = 0, [], None
    for number, wire, value in fields(Piece(content, 0)):
        if number == _IR_VERSION and wire == VARINT:
            assert isinstance(value, int)
            version = value
        elif number == _OPSET and isinstance(value, Piece):
            parts = {n: v for n, _, v in fields(value)}
            domain, opset = parts.get(1, Piece(b"", 0)), parts.get(2)
            name = domain.content.decode("utf-8", "replace") if isinstance(domain, Piece) else ""
            opsets.append(f"opset {opset}" + (f" of {name}" if name else ""))
        elif number == _METADATA and isinstance(value, Piece):
            entry = {n: piece.content.decode("utf-8", "replace") for n, piece in pieces(value)}
            if entry.get(1) == KEY:
                text = entry.get(2, "")
    if not version:
        raise Malformed("it has no IR version")
    return ", ".join([f"IR version {version}", *opsets]), text


def _versions(file: Path) -> str:
    """In brackets; empty of no ONNX file, or a damaged one."""
    try:
        return f" ({facts(file)[0]})"
    except (Malformed, OSError):
        return ""
