"""What a file of weights is by its first bytes, where its name says something else.

Downloads go wrong in few ways (a web page, a pointer, half an archive), and each has its own
remedy; what a library's reader says of such a file is rarely it.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path

from retinue.errors import RetinueError
from retinue.files import open_file
from retinue.weights.guard import check_archive

_HEAD = 512
"""Bytes: a tar archive says what it is at 257."""
_AGAIN = "copy or download it again"

_SAME = {".pt": ".pth", ".bin": ".pth", ".ckpt": ".pth", ".tar": ".pth", ".hdf5": ".h5"}
"""Suffixes for what another suffix stands for, too."""

_CALLED = {
    ".safetensors": "a safetensors file",
    ".h5": "an HDF5 file",
    ".npz": "an archive of NumPy's",
    ".keras": "an archive of Keras'",
    ".pth": "one of PyTorch's",
}

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7-Zip",
}

_TORCH_BEFORE_ZIP = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""PyTorch's magic number, pickled."""


def check(path: Path, suffix: str) -> None:
    """Refuse a file that is not what `suffix`, one of `files.SUFFIXES` or none, stands for.

    Raises:
        RetinueError: empty, unreadable, a pointer, a web page, text, packed, cut short, encrypted,
            implausibly large, or of another kind; says which.
    """
    try:
        with open_file(path) as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise RetinueError(f"unreadable weights: {error.strerror}", where=str(path)) from error
    for signature, name in _PACKED.items():
        if head.startswith(signature):
            raise _refused(
                f"the file is packed with {name}", path, "unpack it, and give what it holds"
            )
    if suffix:
        _check_download(path, head)
    held = _held_by_archive(path, suffix) if head.startswith(b"PK\x03\x04") else _held(path, head)
    if held and held != _SAME.get(suffix, suffix):
        kind = f"the file is {_CALLED[held]}"
        raise _refused(kind, path, f"rename it, so that it ends in {held}")


def _refused(what: str, path: Path, mend: str) -> RetinueError:
    return RetinueError(what, where=str(path), mend=mend)


def _check_download(path: Path, head: bytes) -> None:
    """Refuse what is no file of weights at all."""
    if not head:
        raise _refused("the file is empty", path, _AGAIN)
    if head.startswith(b"version https://git-lfs"):
        raise _refused(
            "the file is a Git LFS pointer, not the weights",
            path,
            "run `git lfs pull` in its repository, or download the file itself",
        )
    if head[257:262] == b"ustar":
        raise _refused("the file is a tar archive", path, "unpack it, and give the file in it")
    if head.startswith(b"\x93NUMPY"):
        raise _refused(
            "the file is a single array, without a name", path, "save all by name: numpy.savez"
        )
    if b"\0" not in head and re.match(rb"(\xef\xbb\xbf)?\s*<[!?a-z]", head, re.IGNORECASE):
        raise _refused("the file is a web page, not the weights", path, "download the file itself")
    if text := _text(head):
        begins = " ".join(text[:60].split())
        raise _refused(f"the file is plain text, not weights: {begins!r}", path, _AGAIN)


def _text(head: bytes) -> str:
    """`head`, if it is text; weights have zeros or other control characters early."""
    try:
        text = head[: _HEAD - 4].decode("utf-8-sig")  # a character may be cut at the end
    except UnicodeDecodeError as error:
        if error.start < _HEAD - 8:
            return ""
        text = head[: error.start].decode("utf-8-sig")
    text = text.strip()
    return text if all(each.isprintable() or each in "\t\n\r\f" for each in text) else ""


def _held(path: Path, head: bytes) -> str:
    """The suffix for a file that is no archive; empty: nobody knows."""
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return ".h5"
    if head.startswith(_TORCH_BEFORE_ZIP):
        return ".pth"
    if head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= path.stat().st_size - 8:
        return ".safetensors"
    return ""


def _held_by_archive(path: Path, suffix: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            names = archive.namelist()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError,
            RecursionError) as error:  # fmt: skip
        what = "damaged weights: an archive that is cut short, or altered"
        raise RetinueError(what, where=str(path), mend=_AGAIN) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise _refused(
            "the file is a program in TorchScript, not only tensors",
            path,
            "where it was made, save those: torch.save(model.state_dict(), 'model.pth')",
        )
    if any(name.endswith("/data.pkl") for name in names):
        return ".pth"
    if "model.weights.h5" in names:
        return ".keras"
    if any(name.endswith(".npy") for name in names):
        return ".npz"
    if names and suffix not in (".npz", ".keras"):  # whose readers say what they lack
        some = ", ".join(names[:3]) + " …" * (len(names) > 3)
        raise _refused(
            f"the file is a zip archive of {some}", path, "unpack it, and give the file in it"
        )
    return ""
