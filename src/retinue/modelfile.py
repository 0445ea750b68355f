"""The one file that is the model: safetensors, described in its metadata as one JSON value.

Reading executes nothing. Writing replaces an older file only by a whole new one.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator
from safetensors import SafetensorError, safe_open

from retinue.documents import NotJson, json_text, parse_json
from retinue.errors import RetinueError, UsageError
from retinue.files import nearest, nearest_run, replacing
from retinue.options.wording import at, what_is_wrong
from retinue.sample import LARGEST_SIDE, SMALLEST_CROP, Interpolation, Preprocessing
from retinue.text import counted, few

if TYPE_CHECKING:  # what a file says of itself is read without torch
    from torch import Tensor

MODEL_FILE = "best.safetensors"
"""The model in a run folder."""
KEY = "retinue"
"""The metadata key under which the description lies."""
FORMAT_VERSION = 2

MOST_CLASSES = 1 << 20
MOST_TENSORS = 50_000
"""Of any file of weights: the largest networks here have a few thousand."""
MOST_CHARACTERS = 64 * 2**20
"""Of the description."""

Side = Annotated[int, Strict(), Field(ge=1, le=LARGEST_SIDE)]
Mean = Annotated[float, Strict(), Field(ge=-1e3, le=1e3)]
Std = Annotated[float, Strict(), Field(gt=0, le=1e3)]
Crop = Annotated[float, Strict(), Field(ge=SMALLEST_CROP, le=1)]
Grey = Annotated[int, Strict(), Field(ge=0, le=255)]


def _state_for_anchors(values: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had a field for a detector's anchors, and no other state of a task."""
    rest = {key: value for key, value in values.items() if key != "anchors"}
    anchors = values.get("anchors")
    return {**rest, "task_state": {} if anchors is None else {"anchors": anchors}}


UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _state_for_anchors}
"""From a description of version k to one of version k + 1; how newer releases read older files."""


class _Preprocessing(BaseModel):
    """`Preprocessing` as a file has it. Nothing of it is guessed: another mean or size would answer
    wrongly without a word."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    size: tuple[Side, Side]
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]
    interpolation: Interpolation = Preprocessing.interpolation
    fit: Literal["crop", "squash", "letterbox"] = Preprocessing.fit
    crop_fraction: Crop = Preprocessing.crop_fraction
    pad_value: Grey = Preprocessing.pad_value
    background: tuple[Grey, Grey, Grey] = Preprocessing.background
    depth: Annotated[int, Strict(), Field(ge=8, le=16)] = Preprocessing.depth


def checked_preprocessing(values: dict[str, Any]) -> dict[str, Any]:
    """`values`, which are `Preprocessing.as_dict` of a file; ValueError says what is wrong."""
    try:
        _Preprocessing.model_validate(values)
    except ValidationError as error:
        raise ValueError(_said(error, _Preprocessing)) from error
    return values


class ModelDescription(BaseModel):
    """Everything that is needed to use the tensors. Plain JSON values, no absolute paths."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    format_version: Annotated[int, Strict()] = FORMAT_VERSION
    task: str
    """The registered name, `classification`, …"""
    task_options: dict[str, Any] = Field(default_factory=dict)
    task_state: dict[str, Any] = Field(default_factory=dict)
    """What the task learnt from the data (anchors, thresholds, …): JSON values that it gives, and
    rebuilds itself from."""
    classes: Annotated[list[str], Field(min_length=1, max_length=MOST_CLASSES)]
    """Names, in the order of the outputs."""
    network: str
    """The registered name."""
    arguments: dict[str, Any]
    """The network's keywords, `num_classes` included."""
    preprocessing: dict[str, Any]
    """As of `Preprocessing.as_dict`."""
    tta: str = "none"
    """Test-time augmentation that the figures were measured with."""
    recipe: dict[str, Any] | None = None
    """The recipe that made it, as written down in the run."""
    figures: dict[str, Any] = Field(default_factory=dict)
    """As in `metrics.json`, of the split that chose these weights."""
    teacher: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the file of the network that it was taught by, where there was one."""
    versions: dict[str, str] = Field(default_factory=dict)
    """What it was made with: retinue, torch, python, …"""

    def __repr__(self) -> str:
        classes = counted(len(self.classes), "class", "classes")
        return f"<ModelDescription {self.network}: {self.task}, {classes} ({few(self.classes)})>"

    __str__ = __repr__

    @field_validator("preprocessing")
    @classmethod
    def _whole(cls, values: dict[str, Any]) -> dict[str, Any]:
        return checked_preprocessing(values)

    def prepared(self) -> Preprocessing:
        """The preprocessing as the object that the data room takes."""
        return Preprocessing.from_dict(self.preprocessing)


def find_model(path: Path) -> Path:
    """The model file that `path` means: itself, or `best.safetensors` in a run folder."""
    if os.path.isdir(path):  # pathlib's own fails for names that are too long
        if (path / MODEL_FILE).is_file():
            return path / MODEL_FILE
        below = sorted(path.glob(f"*/{MODEL_FILE}"))
        if (path / "recipe.yaml").is_file() and below:  # of folds, say
            count = counted(len(below), "model lies", "models lie")
            mend = f"{count} below it: name one, {str(below[0])!r}"
        elif (path / "recipe.yaml").is_file():
            resume = f"retinue train {shlex.quote(str(path))} --resume"
            mend = f"its training has not come that far: {resume}"
        else:
            others = sorted(path.glob("*.safetensors")) or below
            others = others or sorted(path.glob(f"*/*/{MODEL_FILE}"))
            mend = f"did you mean {str(others[0])!r}?" if others else "name a model or run folder"
        raise UsageError(f"no {MODEL_FILE} in the folder", where=str(path), mend=mend)
    if not os.path.exists(path):
        mend = nearest_run(path, (MODEL_FILE,))
        raise UsageError("there is no such model", where=str(path), mend=mend)
    return path


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], description: ModelDescription
) -> None:
    """Write the model to `path`, replacing what is there only once the new file is whole.

    Tensors may lie on any device and in any memory format; the file holds them contiguous.

    Raises:
        RetinueError: two tensors share memory, or the file cannot be written (disk full,
            read-only folder); what was at `path` is untouched then.
    """
    from safetensors.torch import save_file

    path = Path(path)
    plain = {key: tensor.detach().cpu() for key, tensor in tensors.items()}
    _refuse_shared(plain, path)
    plain = {key: tensor.contiguous() for key, tensor in plain.items()}
    metadata = {KEY: json_text(description.model_dump(mode="json"))}
    try:
        with replacing(path) as temporary:
            save_file(plain, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise RetinueError(
            f"the model cannot be written: {error}",
            where=str(path),
            mend="free some space or choose another folder; an older file there is untouched",
            resumable=True,
        ) from error


def _refuse_shared(tensors: Mapping[str, Tensor], path: Path) -> None:
    owners: dict[int, str] = {}
    for key, tensor in tensors.items():
        if tensor.numel() == 0:
            continue
        first = owners.setdefault(tensor.untyped_storage().data_ptr(), key)
        if first != key:
            raise RetinueError(
                f"the tensors {first!r} and {key!r} share memory",
                where=str(path),
                mend="clone one of them",
            )


def read_description(path: str | os.PathLike[str]) -> ModelDescription:
    """The description alone; no tensor is read.

    Raises:
        UsageError: no such file.
        RetinueError: not a safetensors file, damaged, not retinue's, or of a newer format.
    """
    with _opened(Path(path), "numpy") as file:
        return _described(file.metadata(), Path(path))


def read(path: str | os.PathLike[str]) -> tuple[ModelDescription, dict[str, Tensor]]:
    """The description and all tensors, on the CPU. Raises as `read_description` does."""
    path = Path(path)
    with _opened(path) as file:
        description = _described(file.metadata(), path)
        try:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error
    return description, tensors


def _opened(path: Path, framework: Literal["pt", "numpy"] = "pt") -> Any:
    if not os.path.isfile(path):
        raise UsageError("no such model file", where=str(path), mend=nearest(path))
    try:
        file: Any = safe_open(path, framework=framework)
        if len(file.keys()) > MOST_TENSORS:
            raise SafetensorError(f"it has {len(file.keys()):,} tensors")
        return file
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RetinueError:
    return RetinueError(
        f"not a safetensors file, or a damaged one ({error})",
        where=str(path),
        mend="copy it anew from where it was made",
    )


def _described(metadata: dict[str, str] | None, path: Path) -> ModelDescription:
    text = (metadata or {}).get(KEY)
    if text is None:
        raise RetinueError(
            "weights without a description, so not a model that retinue wrote",
            where=str(path),
            mend="train from it with model.weights=PATH instead",
        )
    return described(text, path)


def described(text: str, path: Path) -> ModelDescription:
    """The description that is written as `text` in the file `path`. Raises RetinueError for a
    damaged one, or one of a newer format."""
    try:
        if len(text) > MOST_CHARACTERS:
            raise NotJson(f"it has {len(text):,} characters")
        values = parse_json(text)
    except NotJson as error:
        raise RetinueError(f"the model's description is damaged: {error}", where=str(path)) from (
            error
        )
    version = values.get("format_version") if isinstance(values, dict) else None
    if type(version) is not int:
        raise RetinueError(
            "the model's description is damaged: it does not say its format", where=str(path)
        )
    if version > FORMAT_VERSION:
        raise RetinueError(
            f"a model of format {version}; this release reads up to {FORMAT_VERSION}",
            where=str(path),
            mend="install a newer retinue",
        )
    while version < FORMAT_VERSION:
        if version not in UPGRADES:
            raise RetinueError(f"a model of the unknown format {version}", where=str(path))
        values = UPGRADES[version](values)
        version += 1
        values["format_version"] = version
    try:
        return ModelDescription.model_validate(values)
    except ValidationError as error:
        raise RetinueError(
            f"the model's description is damaged: {_said(error, ModelDescription)}",
            where=str(path),
            mend="copy it anew from where it was made",
        ) from error


def _said(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first thing that is wrong, in plain words: `size.0: must be at least 1`."""
    first = error.errors(include_url=False)[0]
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, ValueError):
        message = str(raised)
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] == "extra_forbidden":
        message = "is unknown"
    else:
        message = what_is_wrong(first, *at(schema, None, first["loc"]))
    # Ours is a message within a message where a part has a schema of its own.
    return f"{'.'.join(map(str, first['loc']))}{' ' if message[:3] == 'is ' else ': '}{message}"
