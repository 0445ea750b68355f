"""OpenVINO on the CPU: networks that were just traced, and files."""

from __future__ import annotations

import re
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import numpy as np

from retinue.errors import RetinueError, UsageError
from retinue.files import open_file, read_file, sha256
from retinue.inference.devices import compute_threads, device_kind
from retinue.inference.engine import Engine, Precision, Way, refuse_bf16
from retinue.inference.engine_keys import Buffer
from retinue.inference.runtimes import KEY, Opened, anew, unloadable
from retinue.inference.signature import Signature
from retinue.nested import Nested


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
    takes_arrays = True

    def __init__(
        self,
        model: Any,
        signature: Signature,
        precision: Precision,
        way: Way = "together",
        *,
        images: int = 1,
    ) -> None:
        """`model`: takes any number of images where the `way` is `apart`. `images`: how many at a
        time are thought to come; what others take is compiled once they do."""
        super().__init__(precision)
        self.way = way
        self._model, self._signature = model, signature
        refuse_bf16(precision, core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self._threads = compute_threads()
        if way == "apart":
            self._model = model.clone()
            self._model.reshape({port: _alone(port) for port in self._model.inputs})
        self._lock = Lock()
        self._compiled: dict[int, _Compiled] = {}
        """By the number of streams."""
        self._answered = False
        first = self._for(images)
        self.provider = first.of("EXECUTION_DEVICES")[0]
        if precision != "int8":
            # NumPy has no bfloat16, so that its own way there would call it float16.
            hint = repr(first.of("INFERENCE_PRECISION_HINT"))
            self.computes = re.sub(r".*'(\w+)'.*", r"\1", hint)

    def __call__(self, x: Nested) -> Any:
        arrays = self._signature.arrays(x)
        count = len(arrays[0])
        compiled = self._for(count)
        self._answered = True
        if self.way == "together":
            return compiled.run(arrays, lambda said: self._signature.answer(said, x))
        rows = compiled.each([[array[k : k + 1] for array in arrays] for k in range(count)])
        if not count or any(len(leaf) != 1 for row in rows for leaf in row):
            raise ValueError("its outputs are not a row an image")
        said = [np.concatenate(same) for same in zip(*rows, strict=True)]
        return self._signature.answer(said, x, own=True)

    def _for(self, count: int) -> _Compiled:
        """What answers so many images at a time. One alone, or fewer than there would be streams,
        are answered sooner by all threads together."""
        streams = self._threads if self.way == "apart" and count >= self._threads else 1
        with self._lock:
            if streams not in self._compiled:
                if not self._answered:  # it was not as was thought: no memory for what did not come
                    self._compiled.clear()
                self._compiled[streams] = _Compiled(
                    self._model, self.precision, self._threads, streams
                )
            return self._compiled[streams]


class _Compiled:
    """A model, compiled to be run by so many threads, in so many streams."""

    def __init__(self, model: Any, precision: Precision, threads: int, streams: int) -> None:
        settings = {
            # By itself it would take bf16 where the processor has that.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            # Bound to a core, a thread waits for whoever else works there, the stream of another
            # engine perhaps, while others are idle.
            "ENABLE_CPU_PINNING": False,
        }
        if any(op.get_type_name() == "GroupNormalization" for op in model.get_ops()):
            # OpenVINO 2026.4 joins it with what stands beside it in float32 and shapes that are
            # fixed, and the process ends there.
            settings["SNIPPETS_MODE"] = "DISABLE"
        self._compiled = core().compile_model(model, "CPU", settings)
        self._streams = streams
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def of(self, name: str) -> Any:
        """A property, as OpenVINO tells it."""
        return self._compiled.get_property(name)

    def run(self, arrays: Sequence[Any], take: Callable[[list[Any]], Any]) -> Any:
        """What `take` makes of the outputs, whose memory is not theirs for longer."""
        request = self._taken()
        try:
            request.infer(arrays, share_inputs=True)
            return take([port.data for port in request.output_tensors])
        finally:
            self._idle.put(request)

    def each(self, inputs: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """The outputs for each of the `inputs`, several of which are in work at a time."""
        found: list[list[Any]] = []
        waiting: deque[Any] = deque()
        taken = [self._taken() for _ in range(min(self._streams + 1, len(inputs)))]
        idle = list(taken)
        try:
            for arrays in inputs:
                if not idle:
                    idle.append(_finished(waiting.popleft(), found))
                request = idle.pop()
                request.start_async(list(arrays), share_inputs=True)
                waiting.append(request)
            while waiting:
                _finished(waiting.popleft(), found)
        finally:
            for request in waiting:  # after an error
                request.wait()
            for request in taken:
                self._idle.put(request)
        return found

    def _taken(self) -> Any:
        # A request holds its inputs and outputs, so it serves one thread at a time: there are as
        # many as have ever been needed at once.
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._compiled.create_infer_request()


def _finished(request: Any, found: list[list[Any]]) -> Any:
    request.wait()
    found.append([np.array(port.data) for port in request.output_tensors])
    return request


def _alone(port: Any) -> list[int]:
    """The shape of one image's input."""
    return [1, *(axis.get_length() for axis in list(port.partial_shape)[1:])]


def parts_of(model: Any) -> dict[str, bytes]:
    """`model` as OpenVINO's IR, to be kept; `of_parts` is the inverse."""
    import openvino

    with tempfile.TemporaryDirectory(prefix="retinue-") as folder:
        place = Path(folder) / "model.xml"
        openvino.save_model(model, place, compress_to_fp16=False)
        return {"xml": read_file(place), "bin": read_file(place.with_suffix(".bin"))}


def of_parts(parts: Mapping[str, Buffer]) -> Any:
    """The inverse of `parts_of`."""
    import openvino

    # With memory of its own: nobody would hold on to that of the parts while it computes with it.
    weights = openvino.Tensor(np.frombuffer(parts["bin"], np.uint8))
    return core().read_model(bytes(parts["xml"]), weights)


def opened(path: Path, device: str) -> Opened:
    """See `retinue.inference.runtimes`: OpenVINO's own files, and ONNX files."""
    import openvino

    if device_kind(device) != "cpu":
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

    def engine(signature: Signature, precision: Precision) -> OpenVINOEngine:
        apart = _by_images(model) and _rows(model, signature)
        return OpenVINOEngine(model, signature, precision, "apart" if apart else "together")

    return Opened(_text(model, path), engine)


def _by_images(model: Any) -> bool:
    """Whether it takes any number of images of one size."""
    shapes = [list(port.partial_shape) for port in model.inputs]
    return all(
        len(shape) == 4 and shape[0].is_dynamic and not any(axis.is_dynamic for axis in shape[1:])
        for shape in shapes
    )


def _rows(model: Any, signature: Signature) -> bool:
    """Whether it gives a row an image: as many for three images as these are, and one for one."""
    for count in (1, 3):
        tried = model.clone()
        tried.reshape({port: [count, *_alone(port)[1:]] for port in tried.inputs})
        for port in tried.outputs[: len(signature.output_types)]:
            shape = list(port.partial_shape)
            if not shape or shape[0].is_dynamic or shape[0].get_length() != count:
                return False
    return True


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
