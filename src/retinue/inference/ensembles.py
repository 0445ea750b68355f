"""Several model files that answer together, each with a weight, as one small file."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retinue.documents import json_text, read_json
from retinue.errors import RetinueError, UsageError
from retinue.files import write_text
from retinue.inference.runtimes import files_of
from retinue.modelfile import find_model
from retinue.text import visible

SUFFIX = ".json"
FORMAT_VERSION = 1


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    file: Annotated[str, Field(min_length=1)]
    """From the folder of the ensemble's file, with `/`; or absolute."""
    weight: Annotated[float, Field(gt=0, le=1)]


class _Ensemble(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    retinue_ensemble: int
    """The format's version."""
    models: Annotated[list[_Model], Field(min_length=1, max_length=64)]
    figures: dict[str, Any] = {}
    """Of the split that the weights were searched on."""


def members_of(paths: Sequence[Path]) -> tuple[list[Path], list[float] | None]:
    """The model files or run folders that `paths` mean, and the weight of each; None: all count
    alike. An ensemble stands alone.

    Raises:
        UsageError: an ensemble among other models.
        RetinueError: a damaged one.
    """
    ensembles = [path for path in paths if path.suffix.lower() == SUFFIX and path.is_file()]
    if not ensembles:
        return list(paths), None
    if len(paths) > 1:
        raise UsageError(
            "an ensemble cannot answer together with other models",
            where=str(ensembles[0]),
            mend="name the model files",
        )
    return read(ensembles[0])


def parts_of(path: Path) -> list[Path]:
    """All files that the model at `path` consists of: those of an export, which may be several, or
    an ensemble with those of its members. FileNotFoundError where there are none; otherwise as
    `members_of`, and UsageError for a member that is no model."""
    members, _ = members_of([path])
    if members != [path]:
        members = [path, *map(find_model, members)]
    files = dict.fromkeys(one for member in members for one in files_of(member))
    if not files:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return list(files)


def read(path: Path) -> tuple[list[Path], list[float]]:
    """The model files of the ensemble at `path`, and the weight of each. Raises RetinueError."""
    values = read_json(path)
    try:
        if not isinstance(values, dict) or "retinue_ensemble" not in values:
            raise RetinueError("this is no ensemble of models", where=str(path))
        found = _Ensemble.model_validate(values)
    except ValidationError as error:
        raise RetinueError(
            f"the ensemble is damaged: {_said(error)}",
            where=str(path),
            mend="make it anew: retinue ensemble MODEL MODEL …",
        ) from error
    if found.retinue_ensemble > FORMAT_VERSION:
        raise RetinueError(
            f"an ensemble of format {found.retinue_ensemble}; this release reads {FORMAT_VERSION}",
            where=str(path),
            mend="install a newer retinue",
        )
    total = sum(one.weight for one in found.models)
    files = [path.absolute().parent / one.file for one in found.models]
    if gone := [file for file in files if not file.exists()]:
        raise RetinueError(
            f"the ensemble's model {visible(gone[0])} is gone",
            where=str(path),
            mend="put it back where it was, or make the ensemble anew: retinue ensemble MODEL …",
        )
    return files, [one.weight / total for one in found.models]


def write(
    path: Path, files: Sequence[Path], weights: Sequence[float], figures: dict[str, Any]
) -> None:
    """Write the ensemble of the model `files` to `path`."""
    base = path.absolute().parent
    models = [
        {"file": _seen_from(base, file.absolute()), "weight": round(weight, 6)}
        for file, weight in zip(files, weights, strict=True)
    ]
    values = {"retinue_ensemble": FORMAT_VERSION, "models": models, "figures": figures}
    write_text(path, json_text(values, indent=2) + "\n")


def _said(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _seen_from(base: Path, file: Path) -> str:
    try:
        return Path(os.path.relpath(file, base)).as_posix()
    except ValueError:  # on another drive
        return str(file)
