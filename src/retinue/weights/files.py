"""Reading files of weights; nothing in them is ever executed.

Here are safetensors, PyTorch's pickles and NumPy's archives; `keras`, `darknet` and `folders` have
the rest.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from retinue import modelfile
from retinue.errors import RetinueError, UsageError
from retinue.files import nearest
from retinue.sample import Preprocessing
from retinue.weights import darknet, keras
from retinue.weights.guard import check_archive

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz", ".h5", ".hdf5", ".keras", ".weights")


def kind(path: Path) -> str:
    """The one of `SUFFIXES` that tells how the file is read; empty: none does.

    Darknet calls the first N layers of a network `NAME.conv.N`.
    """
    if re.search(r"\.conv\.\d+$", path.name):
        return ".weights"
    suffix = path.suffix.lower()
    return suffix if suffix in SUFFIXES else ""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file or folder of weights holds."""

    tensors: dict[str, Tensor] = field(repr=False)
    """By the names of whoever wrote them."""
    paths: tuple[Path, ...] = ()
    """The files that they lie in."""
    preprocessing: Preprocessing | None = None
    """None: nothing is said of it."""
    network: str | None = None
    """Of a model file: the registered name of the network."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the network, as far as something is said of them."""
    classes: tuple[str, ...] = ()
    """Their names in order, as far as they are told."""
    remark: str = ""
    """For people, where something could not be taken over."""


def read(path: Path, *, suffix: str | None = None) -> Contents:
    """The weights in a file or folder, whichever kind it is (docs/weights.md lists them).

    `suffix` tells the kind of a file whose name does not.

    Raises:
        UsageError: nothing there, or of a kind that is not read.
        RetinueError: damaged, encrypted, without tensors, or in need of executing code.
    """
    suffix = kind(path) if suffix is None else suffix
    if path.is_dir():
        from retinue.weights import folders  # which reads its shards through this module

        contents = folders.read(path)
    elif not path.is_file():
        raise UsageError("no such file of weights", where=str(path), mend=nearest(path))
    elif suffix == ".safetensors":
        contents = _safetensors(path)
    else:
        contents = Contents(tensors=_tensors(path, suffix), paths=(path,))
    if not contents.tensors:
        raise RetinueError("no weights in the file", where=str(path))
    return contents


def _tensors(path: Path, suffix: str) -> dict[str, Tensor]:
    if suffix in (".pth", ".pt", ".bin"):
        return _torch(path)
    if suffix == ".npz":
        return _npz(path)
    if suffix in (".h5", ".hdf5"):
        return keras.read_h5(path)
    if suffix == ".keras":
        return keras.read_archive(path)
    if suffix == ".weights":
        return _darknet(path)
    mend = "give one of " + ", ".join(SUFFIXES) + ", or a folder of transformers or timm"
    if path.suffix.lower() == ".json":
        mend = "give the folder that it lies in"
    raise UsageError(
        f"weights are not read from {path.suffix or 'nameless'} files", where=str(path), mend=mend
    )


def _darknet(path: Path) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RetinueError(f"unreadable weights: {error.strerror}", where=str(path)) from error
    return darknet.read(data, where=str(path))


def _safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if modelfile.KEY not in metadata:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return Contents(tensors=tensors, paths=(path,))
    except (SafetensorError, OSError) as error:
        raise RetinueError(f"damaged weights: {error}", where=str(path)) from error
    description, tensors = modelfile.read(path)
    return Contents(
        tensors=tensors,
        paths=(path,),
        preprocessing=description.prepared(),
        network=description.network,
        arguments=description.arguments,
        classes=tuple(description.classes),
    )


def _torch(path: Path) -> dict[str, Tensor]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_archive(archive, path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RetinueError(
            "the weights hold more than tensors, and reading them could execute code",
            where=str(path),
            mend="save the state dict alone: torch.save(model.state_dict(), path)",
        ) from error
    except RetinueError:
        raise
    except Exception as error:  # damaged pickles make torch raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RetinueError(f"damaged weights: {reason}", where=str(path)) from error
    tensors = _unwrap(loaded)
    for key, tensor in tensors.items():
        if reason := _unusual(tensor):
            raise RetinueError(
                f"the tensor {key} {reason}",
                where=str(path),
                mend="save it as an ordinary one, of real numbers",
            )
    return tensors


def _unusual(tensor: Tensor) -> str:
    """Why the values of a pickled tensor cannot be copied into a network's; empty: they can."""
    if tensor.is_meta:
        return "has a shape and no values"
    if tensor.layout != torch.strided:
        return "is sparse"
    if tensor.is_quantized:
        return "is quantised"
    return "is complex" if tensor.is_complex() else ""


_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_MOST_WRAPPED = 4
"""One within another; a damaged one may hold itself."""


def _unwrap(loaded: object) -> dict[str, Tensor]:
    """The state dict itself, out of the wrappers that training scripts put around it."""
    if not isinstance(loaded, Mapping):
        return {}
    for _ in range(_MOST_WRAPPED):
        inner = (loaded.get(wrapper) for wrapper in _WRAPPERS)
        loaded = next((each for each in inner if isinstance(each, Mapping)), loaded)
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):  # DistributedDataParallel
        return {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    return tensors


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
        with np.load(path, allow_pickle=False) as arrays:
            return keras.from_arrays({name: arrays[name] for name in arrays.files}, str(path))
    except (ValueError, KeyError, AttributeError, OSError, EOFError, MemoryError,
            zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "allow_pickle" in reason:
            reason = "it holds Python objects, and reading them could execute code"
        raise RetinueError(f"damaged weights: {reason}", where=str(path)) from error


def sha256(*paths: Path) -> str:
    """The hash of the files' bytes, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()


def md5(path: Path) -> str:
    """That of the file's bytes, in hexadecimal, where nothing better is published."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
