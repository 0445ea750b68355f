"""Reading files of weights; nothing in them is ever executed.

Here are safetensors and NumPy's archives; `pickled`, `keras`, `checkpoint`, `darknet` and `folders`
have the rest, and `signatures` tells beforehand what is not what its name says.
"""

from __future__ import annotations

import hashlib
import logging
import re
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from retinue import modelfile
from retinue.errors import RetinueError, UsageError, some
from retinue.files import nearest, open_file, read_file
from retinue.files import sha256 as sha256
from retinue.text import first_line
from retinue.weights import checkpoint, darknet, folders, keras, pickled, signatures
from retinue.weights.contents import Contents
from retinue.weights.prefixes import without_wrappers

log = logging.getLogger("retinue")

_TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")
"""`.tar`, as in `.pth.tar`, is what PyTorch's examples call what is no such archive."""
_CALLED = {".model": ".h5"}
"""What people call files of a kind, too: `model.save_weights('NAME.model')` writes HDF5."""
SUFFIXES = (".safetensors", *_TORCH, ".npz", ".h5", ".hdf5", ".keras", ".weights")


def kind(path: Path) -> str:
    """The one of `SUFFIXES` that tells how the file is read; empty: none does.

    Darknet calls the first N layers of a network `NAME.conv.N`; of a checkpoint of TensorFlow's,
    each of its files will do, and what they begin with.
    """
    if re.search(r"\.conv\.\d+$", path.name):
        return ".weights"
    if path.name.endswith(checkpoint.INDEX) or checkpoint.DATA.search(path.name):
        return ".ckpt"
    suffix = path.suffix.lower()
    return suffix if suffix in SUFFIXES else _CALLED.get(suffix, "")


def read(path: Path, *, suffix: str | None = None) -> Contents:
    """The weights in a file or folder, whichever kind it is (docs/weights.md lists them).

    `suffix` tells the kind of a file whose name does not.

    Raises:
        UsageError: nothing there, or of a kind that is not read.
        RetinueError: damaged, encrypted, without tensors, or in need of executing code.
    """
    suffix = kind(path) if suffix is None else suffix
    if (named := checkpoint.stem(path)) is not None:
        tensors, paths = checkpoint.read(named)
        contents = Contents(tensors=tensors, paths=paths)
        _warn_of_no_numbers(tensors, path)
    elif path.is_dir():
        contents = folders.read(path, read)
    elif not path.is_file():
        raise UsageError("no such file of weights", where=str(path), mend=nearest(path))
    else:
        signatures.check(path, suffix)
        if suffix == ".safetensors":
            contents = _safetensors(path)
        else:
            tensors = _tensors(path, suffix)
            remark = keras.output(path) if suffix in (".h5", ".hdf5", ".keras") else ""
            contents = Contents(tensors=tensors, paths=(path,), remark=remark)
        _warn_of_no_numbers(contents.tensors, path)
    if not contents.tensors:
        raise RetinueError("no weights in the file", where=str(path))
    return contents


def _warn_of_no_numbers(tensors: Mapping[str, Tensor], path: Path) -> None:
    keys = [key for key, tensor in tensors.items() if not _finite(tensor)]
    if keys:
        log.warning("%s: NaN or infinity in %s", path, some(keys, 8, between=", "))


def _finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # 8 bits are only stored
    return bool(wide.isfinite().all())


def _named(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`tensors` without wrappers' prefixes; a shard's keep the names that its index has."""
    return tensors if re.search(r"-of-\d+$", path.stem) else without_wrappers(tensors, path)


def _tensors(path: Path, suffix: str) -> dict[str, Tensor]:
    if suffix in _TORCH:
        return _named(pickled.read(path), path)
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
        data = read_file(path)
    except OSError as error:
        raise RetinueError(f"unreadable weights: {error.strerror}", where=str(path)) from error
    return darknet.read(data, where=str(path))


def _safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, framework="pt") as file:
            if len(file.keys()) > modelfile.MOST_TENSORS:
                raise RetinueError(f"it has {len(file.keys()):,} tensors", where=str(path))
            metadata = file.metadata() or {}
            if modelfile.KEY not in metadata:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return Contents(tensors=_named(tensors, path), paths=(path,))
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


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return keras.from_arrays({name: arrays[name] for name in arrays.files}, str(path))
    except (ValueError, KeyError, AttributeError, OSError, EOFError, MemoryError,
            zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        reason = first_line(error, type(error).__name__)
        if "allow_pickle" in reason:
            reason = "it holds Python objects, and reading them could execute code"
        raise RetinueError(f"damaged weights: {reason}", where=str(path)) from error


def md5(path: Path) -> str:
    """That of the file's bytes, in hexadecimal, where nothing better is published."""
    with open_file(path) as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
