"""What cached features are found by: the content of images, random draws, and what computes them.

Where an image stands in a list, and what it is called, does not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinue.arrays import Rectangle
from retinue.data.cpus import usable_cpus
from retinue.data.remembered import SETTLED_NS
from retinue.errors import BadImageError
from retinue.files import open_file, replacing
from retinue.training.environment import versions

Image = bytes | npt.NDArray[np.uint8]
Source = tuple[str, Callable[[], Image] | None]
"""What a sample says of its image: a key and how to read it; None: the file called so."""
PIXELS = 3
"""Counts up when decoding, rendering or colour gives other values for the same draws."""
NETWORKS = 2
"""Counts up when a network gives other values for the same weights."""
MEMO_LINES = 100_000
"""A memo of more lines than these, most of them of no use, is written anew."""
_MEMO = re.compile(rb"^([0-9a-f]{32}) ([0-9a-f]{32})$", re.MULTILINE)


def space_key(facts: Any, tensors: Mapping[str, Tensor]) -> str:
    """32 hex digits for what computes features: `tensors` (the trunk's weights and statistics, a
    teacher's) and `facts` (JSON values: structure, cut, input size, engine, precision …)."""
    digest = hashlib.blake2b(_json(facts), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(_json([name, str(value.dtype), list(value.shape)]))
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pixel_code() -> dict[str, Any]:
    """What makes pixels of files and draws, as JSON values: to be among the draws of a view."""
    found = versions()
    packages = ("numpy", "opencv-python-headless", "pillow", "simplejpeg")
    return {"code": PIXELS, **{name: found.get(name) for name in packages}}


def network_code(engine: str) -> dict[str, Any]:
    """What runs a network with `engine`, as JSON values: to be among the facts of a space."""
    found = versions()
    return {"code": NETWORKS, **{name: found.get(name) for name in ("torch", engine)}}


def view_key(contents: Sequence[bytes], draws: Any, size: tuple[int, int]) -> bytes:
    """16 bytes for a composed row: the identities of the images that it is made of, in order;
    `draws` (JSON values: the augmentation, seed, view, key …); and (height, width)."""
    return _hash(_json([[content.hex() for content in contents], draws, list(size)]))


def identity(image: Image) -> bytes:
    """16 bytes for an image: of its file's bytes, or of an array's shape, dtype and values."""
    if isinstance(image, bytes):
        return _hash(image)
    header = _json([list(image.shape), str(image.dtype)])
    return _hash(header + np.ascontiguousarray(image).tobytes())


def identity_of_part(content: bytes, part: Rectangle) -> bytes:
    """The identity of a rectangle of the image that has the identity `content`."""
    return _hash(content + _json(list(map(float, part))))


def identity_of_file(path: str) -> bytes | None:
    """The identity of the image in a file; None where it cannot be read."""
    try:
        return _content_of(path)
    except OSError:
        return None


class Contents:
    """Identities of images; those of files are remembered in the file `memo`.

    A file counts as unchanged while its path, size, inode, time of writing and time of change are
    the same. The last of these nobody can set back (but Windows has the time of making there: who
    writes other bytes of the same number and sets the time of writing back goes unnoticed).
    """

    def __init__(self, memo: Path) -> None:
        self._memo = memo
        data = b""
        with suppress(OSError):
            data = memo.read_bytes()
        # A line that is damaged, or torn between two processes, is none.
        self._known = dict(_from_hex(*pair) for pair in _MEMO.findall(data))
        if data.count(b"\n") > max(MEMO_LINES, 2 * len(self._known)):
            # What others write meanwhile is lost, and read again.
            with suppress(OSError), replacing(memo) as temporary:
                temporary.write_bytes(b"".join(_line(*pair) for pair in self._known.items()))

    def of(self, key: str, read: Callable[[], Image] | None = None) -> bytes:
        """The identity of what `read` gives; without it, of the file called `key`.

        Raises:
            OSError: it cannot be read.
        """
        if read is not None:
            return identity(read())
        path = os.path.abspath(key)
        return self._known.get(_facts(path)) or self._look_at(path)

    def of_all(self, sources: Iterable[Source]) -> list[bytes]:
        """The identities of `sources`, several read at a time.

        Raises:
            BadImageError: names all that cannot be read.
        """
        bad: dict[str, str] = {}

        def recalled(key: str, read: Callable[[], Image] | None) -> bytes | None:
            with suppress(OSError):
                return None if read else self._known.get(_facts(os.path.abspath(key)))
            return None

        def attempt(source: Source) -> bytes:
            try:
                return self.of(*source)
            except OSError as error:
                bad[source[0]] = error.strerror or str(error)
                return b""

        sources = list(sources)
        found = [recalled(*source) for source in sources]
        unknown = [source for source, content in zip(sources, found, strict=True) if not content]
        # Takes its time, so not for what is known.
        with ThreadPoolExecutor(usable_cpus() + 4) as pool:
            fresh = pool.map(attempt, unknown)
        if bad:
            raise BadImageError(dict(sorted(bad.items())))
        return [content or next(fresh) for content in found]

    def _look_at(self, path: str) -> bytes:
        before = _facts(path)
        content = _content_of(path)
        settled = time.time_ns() - os.stat(path).st_mtime_ns > SETTLED_NS
        if settled and _facts(path) == before:
            self._known[before] = content
            line = _line(before, content)
            with suppress(OSError):  # what cannot be remembered is read again
                self._memo.parent.mkdir(parents=True, exist_ok=True)
                with open(self._memo, "ab", buffering=0) as memo:
                    memo.write(line)  # in one piece: other processes write, too
        return content


def _content_of(path: str) -> bytes:
    with open_file(path) as file:
        return hashlib.file_digest(file, _blake).digest()


def _line(facts: bytes, content: bytes) -> bytes:
    return f"{facts.hex()} {content.hex()}\n".encode()


def _from_hex(facts: bytes, content: bytes) -> tuple[bytes, bytes]:
    return bytes.fromhex(facts.decode()), bytes.fromhex(content.decode())


def _facts(path: str) -> bytes:
    """What tells whether a file has changed."""
    stat = os.stat(path)
    facts = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino} "
    return _hash(facts.encode() + os.fsencode(path))


def _json(facts: Any) -> bytes:
    return json.dumps(facts, sort_keys=True, allow_nan=False).encode()


def _blake(data: bytes = b"") -> Any:
    return hashlib.blake2b(data, digest_size=16)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
