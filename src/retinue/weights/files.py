"""Reading files of weights; nothing in them is ever executed."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from retinue.errors import RetinueError, UsageError
from retinue.sample import Preprocessing

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class Contents(NamedTuple):
    """Tensors by the file's own key names; the preprocessing and arguments it speaks of."""

    tensors: dict[str, Tensor]
    preprocessing: Preprocessing | None = None
    network: str | None = None
    arguments: Mapping[str, Any] | None = None


def read(path: Path) -> Contents:
    """The tensors of `path`: `.safetensors` (also retinue's own model files), `.pth`, `.pt`.

    Raises:
        UsageError: no such file, or of a kind that is not read.
        RetinueError: damaged, without tensors, or in need of executing code.
    """
    if not path.is_file():
        raise UsageError("no such file of weights", where=str(path))
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.suffix in SUFFIXES:
        return Contents(_torch(path))
    raise UsageError(
        f"weights are not read from {path.suffix or 'nameless'} files",
        where=str(path),
        mend="give one of " + ", ".join(SUFFIXES),
    )


def _safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise RetinueError(f"damaged weights: {error}", where=str(path)) from error
    if "retinue" not in metadata:
        return Contents(tensors)
    try:
        description = json.loads(metadata["retinue"])
        return Contents(
            tensors,
            Preprocessing.from_dict(description["preprocessing"]),
            str(description["network"]),
            dict(description["arguments"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RetinueError(
            "the model's description is damaged, or of a newer release",
            where=str(path),
            mend="copy it anew from where it was made, or install a newer retinue",
        ) from error


def _torch(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RetinueError(
            "the weights hold more than tensors, and reading them could execute code",
            where=str(path),
            mend="save the state dict alone: torch.save(model.state_dict(), path)",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RetinueError(f"damaged weights: {reason}", where=str(path)) from error
    tensors = _unwrap(loaded)
    if not tensors:
        raise RetinueError("no weights in the file", where=str(path))
    return tensors


def _unwrap(loaded: object) -> dict[str, Tensor]:
    """The state dict itself, out of the wrappers that training scripts put around it."""
    if not isinstance(loaded, Mapping):
        return {}
    for wrapper in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(loaded.get(wrapper), Mapping):
            return _unwrap(loaded[wrapper])
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):  # DistributedDataParallel
        return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return tensors


def sha256(path: Path) -> str:
    """The hash of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
