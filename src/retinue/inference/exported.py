"""What an exported file says of itself, and opening one.

Every format carries the same JSON value: what the model file says, and how it was exported. So a
file is enough to answer as the model does: `retinue predict model.onnx photo.jpg`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from retinue import modelfile
from retinue.documents import NotJson, json_text, parse_json, read_json
from retinue.errors import RetinueError
from retinue.files import sha256
from retinue.inference import runtimes
from retinue.inference.engine import Engine, Precision
from retinue.inference.runtimes import Format
from retinue.inference.signature import Signature
from retinue.modelfile import ModelDescription
from retinue.nested import Nested, is_tensor, leaves, rebuilt, structure

FORMAT_VERSION = 1
PROOF = ".proof.json"
MOST_IMAGES = 1 << 16
"""At a time."""


class Weights(BaseModel):
    """What a training began from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    licence: str | None = None
    """None: not known."""
    source: str | None = None


class Export(BaseModel):
    """How a model was exported. Plain JSON values, no absolute paths."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    format_version: Annotated[int, Strict()] = FORMAT_VERSION
    format: str
    """`onnx`, `openvino`, …"""
    precision: Precision = "fp32"
    batch: Annotated[int, Strict(), Field(ge=1, le=MOST_IMAGES)] | None = None
    """So many images at a time, always; None: any number."""
    any_size: bool = False
    """Whether it takes images of any size, and not of the one that `preprocessing` says alone."""
    input: Literal["normalised", "pixels"] = "normalised"
    """What it takes. `normalised`: float32 (n, 3, height, width), prepared as `preprocessing` says,
    for the network's outputs; `pixels`: uint8 (n, height, width, 3), upright images of any size,
    for the answers of its task."""
    outputs: Any = "tensor"
    """How its outputs are nested (`retinue.nested`)."""
    output_types: list[str]
    """Of each output: `float32`, `int64` …"""
    began_from: Weights | None = None
    """The weights that the training began from; None: none, or nobody knows."""
    model_sha256: str = ""
    """Of the model file."""
    versions: dict[str, str] = Field(default_factory=dict)
    """What it was exported with: retinue, torch, …"""

    def signature(self) -> Signature:
        """What the graph takes and gives. Raises ValueError for what is no type."""
        taken = "uint8" if self.input == "pixels" else "float32"
        return Signature("tensor", [taken], self.outputs, list(self.output_types)).checked()


def written(export: Export, description: ModelDescription) -> str:
    """The text that an exported file carries. `described` reads it."""
    model = description.model_dump(mode="json")
    return json_text({"export": export.model_dump(mode="json"), "model": model})


def described(text: str | None, path: Path) -> tuple[Export, ModelDescription]:
    """The inverse of `written`. RetinueError for a text that is none, or of a newer format."""
    if text is None:
        raise RetinueError(
            "it does not say what it answers, so retinue has not exported it",
            where=str(path),
            mend="`retinue export MODEL` writes files that can be predicted with",
        )
    try:
        values = parse_json(text)
        how, model = values["export"], values["model"]
        version = how["format_version"]
        if type(version) is int and version > FORMAT_VERSION:
            raise RetinueError(
                f"an export of format {version}; this release reads up to {FORMAT_VERSION}",
                where=str(path),
                mend="install a newer retinue",
            )
        export = Export.model_validate(how)
        export.signature()
    except (NotJson, KeyError, TypeError, ValueError, ValidationError) as error:
        raise RetinueError(
            "what it says of itself is damaged", where=str(path), mend="export the model anew"
        ) from error
    return export, modelfile.described(json_text(model), path)


class ExportedEngine(Engine):
    """An exported file as an engine: any number of images, whatever its batch is."""

    def __init__(self, inner: Engine, export: Export) -> None:
        super().__init__(export.precision)
        self.name, self.provider = inner.name, inner.provider
        self.computes = inner.computes
        self._inner, self._batch = inner, export.batch

    @property
    def takes_arrays(self) -> bool:  # type: ignore[override]
        """See `Engine`."""
        return self._inner.takes_arrays

    def __call__(self, x: Nested) -> Any:
        if self._batch is None or structure(x) != "tensor":
            return self._inner(x)
        images: Any = x
        starts = range(0, len(images), self._batch)
        answers = [self._padded(images[start : start + self._batch]) for start in starts]
        parts = [leaves(answer) for answer in answers]
        joined = [_joined(same)[: len(images)] for same in zip(*parts, strict=True)]
        return rebuilt(structure(answers[0]), joined)

    def _padded(self, part: Any) -> Any:
        assert self._batch is not None
        lacking = self._batch - len(part)
        return self._inner(_joined([part, *[part[-1:]] * lacking]) if lacking else part)


def _joined(parts: Sequence[Any]) -> Any:
    if is_tensor(parts[0]):
        import torch

        return torch.cat(list(parts))
    return np.concatenate(parts)


def report_of(path: Path) -> Path:
    """Where the report of the export at `path` lies: what it was proven on, and its hashes."""
    return path.with_name(path.name + PROOF)


def hashes(path: Path) -> dict[str, str]:
    """SHA-256 of each file of the export at `path`, by name."""
    return {one.name: sha256(one) for one in runtimes.files_of(path)}


def _refuse_changed(path: Path) -> None:
    """Raise RetinueError where the files are not those that the report beside them was made of,
    whatever they are called now; an export without one is taken as it is."""
    report = report_of(path)
    known = read_json(report).get("files") if report.is_file() else None
    if not isinstance(known, dict):
        return
    now = hashes(path)
    for name in known:  # a graph names its external data, so that these keep their name
        if name.endswith(runtimes.EXTERNAL) and name == Path(name).name and name not in now:
            beside = path.with_name(name)
            now |= {name: sha256(beside)} if beside.is_file() else {}
    # Of an export's files no two end alike: by its end one is known under another name.
    ends = {Path(name).suffix.lower(): one for name, one in known.items()}
    if changed := [
        name for name, one in now.items() if ends.get(Path(name).suffix.lower(), one) != one
    ]:
        raise RetinueError(
            f"{changed[0]} is damaged or was changed: by its SHA-256 it is not the file that was"
            " proven to answer as the model does",
            where=str(path),
            mend=f"{runtimes.anew(path)}; if it was changed on purpose, remove {report.name}",
        )


def open_exported(
    path: Path, form: Format, device: str, engine: str = "auto"
) -> tuple[Export, ModelDescription, Engine]:
    """The exported file at `path`, ready to run on `device`.

    Raises:
        UsageError: its runtime is not installed, or has no such device.
        RetinueError: it is damaged, not retinue's, or of a newer format.
    """
    _refuse_changed(path)
    text, make = runtimes.opened(path, form, device, engine)
    export, description = described(text, path)
    return export, description, ExportedEngine(make(export.signature(), export.precision), export)
