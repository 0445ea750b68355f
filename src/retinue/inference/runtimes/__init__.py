"""The formats that a model is exported to, and what runs each of them.

A file a runtime. Each has `opened(path, device)`: what the file says of itself, and the engine that
runs it once it is known what its outputs mean. Importing this imports none of their libraries.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from retinue.errors import RetinueError, UsageError, suggest
from retinue.text import first_line

if TYPE_CHECKING:
    from retinue.inference.engine import Engine

KEY = "retinue"
"""Under this name a file carries what it says of itself."""

EXTERNAL = ".data"
"""What is added to the name of an ONNX file for the weights that do not fit in."""


@dataclass(frozen=True)
class Runtime:
    """A library that runs files."""

    engine: str
    """The name that `--engine` knows it by."""
    needs: tuple[str, ...]
    """Modules that have to be there."""
    install: str
    """What pip installs."""
    module: str
    """Of this package, where `opened` is."""


@dataclass(frozen=True)
class Format:
    """A format that a model is exported to."""

    name: str
    suffix: str
    title: str
    """As people write it."""
    runtimes: tuple[Runtime, ...]
    """What runs it, the usual one first."""
    batch: int | None = None
    """So many images at a time, unless one says otherwise; None: any number."""


class Opened(NamedTuple):
    """A file that its library has read."""

    text: str | None
    """What stands in it under `KEY`; None: nothing."""
    engine: Callable[[Any, Any], Engine]
    """From a `Signature` and the precision to what runs it."""


_OPENVINO = Runtime(
    "openvino", ("openvino",), "'retinue[openvino]'", "retinue.inference.runtimes.openvino"
)
_ONNX = Runtime(
    "onnxruntime", ("onnxruntime",), "'retinue[onnx]'", "retinue.inference.runtimes.onnxruntime"
)
_LITERT = Runtime(
    "litert", ("ai_edge_litert",), "'retinue[litert]'", "retinue.inference.runtimes.litert"
)

FORMATS: Mapping[str, Format] = MappingProxyType({
    one.name: one
    for one in (
        Format("onnx", ".onnx", "ONNX", (_ONNX, _OPENVINO)),
        Format("openvino", ".xml", "OpenVINO", (_OPENVINO,)),
        Format(
            "torchscript", ".torchscript", "TorchScript",
            (Runtime("torch", (), "", "retinue.inference.runtimes.torchscript"),),
        ),
        Format(
            "torch-export", ".pt2", "torch.export",
            (Runtime("torch", (), "", "retinue.inference.runtimes.torch_export"),),
        ),
        Format("litert", ".tflite", "LiteRT", (_LITERT,), batch=1),
    )
})  # fmt: skip


def format_of(path: str | os.PathLike[str]) -> Format | None:
    """The format of a file that is called so; None for one that is no export."""
    suffix = os.path.splitext(os.fspath(path).rstrip("/\\"))[1].lower()
    return next((one for one in FORMATS.values() if one.suffix == suffix), None)


def files_of(path: Path) -> list[Path]:
    """All that belongs to the export at `path`; `path` itself last."""
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
    beside += [path.with_name(path.name + EXTERNAL)]
    return [one for one in [*beside, path] if one.is_file()]


def bytes_of(path: Path) -> int:
    """How large the export at `path` is."""
    return sum(one.stat().st_size for one in files_of(path))


def there(runtime: Runtime) -> bool:
    """Whether what it needs is installed; imports nothing."""
    return all(found(name) for name in runtime.needs)


def found(name: str) -> bool:
    """Whether the module `name` is installed; imports nothing."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # what `sys.modules` says is not there
        return False


def version_of(runtime: Runtime) -> str:
    """That of its library, which must be installed: `1.23.0`."""
    module = importlib.import_module(runtime.needs[0] if runtime.needs else "torch")
    # OpenVINO has its commit behind it.
    return str(getattr(module, "__version__", "unknown")).partition("-")[0]


def refuse_part(path: Path) -> None:
    """UsageError for a file of weights beside the export that it belongs to."""
    if path.suffix.lower() == ".bin":
        whole = path.with_suffix(".xml")
    elif path.suffix == EXTERNAL:
        whole = path.with_suffix("")
    else:
        return
    if format_of(whole) is not None and whole.is_file():
        what = "these are the weights of a model, without its graph"
        raise UsageError(what, where=str(path), mend=f"name the file beside it, {str(whole)!r}")


def unloadable(
    path: Path, library: str, package: str, error: object, *, whole: bool = True, facts: str = ""
) -> RetinueError:
    """What to raise for an export that a library, as people call it with its version, cannot load.
    `whole`: whether nothing speaks for damage; then it may be newer than what `package` installs.
    `facts`: of what versions the file is."""
    mend, said = anew(path), _said(error)
    if not whole:
        form = format_of(path)
        kind = f"no {form.title} file" if form else "none of this kind"
        what = f"a damaged file, or {kind} at all: {library} cannot load it ({said})"
        return RetinueError(what, where=f"{path}{facts}", mend=mend)
    mend += f"; a file that is newer than the library needs a newer {package}"
    return RetinueError(f"{library} cannot load it: {said}", where=f"{path}{facts}", mend=mend)


def anew(path: Path, what: str = "it") -> str:
    """How to come by the export at `path`, or by `what` of it, anew: in words."""
    form = format_of(path)
    command = f" (retinue export MODEL --to {form.name})" if form else ""
    return f"copy {what} anew from where it was made, or export the model anew{command}"


_PLACE_IN_SOURCE = re.compile(r"Exception from |Check '.*' failed at ")


def _said(error: object) -> str:
    """The first line of a library's error that says what is wrong, and not where it was noticed."""
    lines = str(error).strip().splitlines()
    told = [line for line in lines if not _PLACE_IN_SOURCE.match(line)]
    return first_line("\n".join(told or lines), type(error).__name__)


def runtime_of(form: Format, engine: str = "auto") -> Runtime:
    """What runs files of `form`: the one called `engine`, or the first that is installed.

    Raises UsageError where that is not possible, and says what would be.
    """
    names = [one.engine for one in form.runtimes]
    if engine not in ("auto", *names):
        raise UsageError(
            f"{form.title} files are run by {' or '.join(names)}, not by {engine}",
            mend=suggest(engine, names) or "use engine=auto",
        )
    wanted = [one for one in form.runtimes if engine in ("auto", one.engine)]
    usable = next((one for one in wanted if there(one)), None)
    if usable is None:
        missing = next(name for name in wanted[0].needs if not found(name))
        raise UsageError(
            f"{form.title} files need the package {missing!r}, which is not installed",
            mend=f"pip install {wanted[0].install}",
        )
    return usable


def opened(path: Path, form: Format, device: str, engine: str = "auto") -> Opened:
    """The file at `path`, read by its library. Raises as `runtime_of`, and RetinueError for a file
    that this library cannot read."""
    module = importlib.import_module(runtime_of(form, engine).module)
    with _together(path) as place:
        try:
            made: Opened = module.opened(place, device)
        except RetinueError as error:
            where = (error.where or str(path)).replace(str(place.parent), str(path.parent))
            raise type(error)(error.what, where=where, mend=error.mend) from error
    return made


@contextmanager
def _together(path: Path) -> Iterator[Path]:
    """`path`, or the same in a folder where its files lie themselves and not links to them: in the
    cache of a hub, which has each file once, links lead to a folder that has it under another name,
    and libraries look for the others there, or refuse to."""
    files = files_of(path)
    if len(files) < 2 or not any(one.is_symlink() for one in files):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="retinue-") as folder:
        for one in files:
            whole = one.resolve()
            try:
                os.link(whole, Path(folder) / one.name)
            except OSError:  # on another disk
                shutil.copyfile(whole, Path(folder) / one.name)
        yield Path(folder) / path.name
