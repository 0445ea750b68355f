"""Which images are the same files as others, by their bytes, wherever they lie."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from retinue.data.sources.member import Member
from retinue.files import open_file
from retinue.sample import Sample

_BLOCK = 1 << 20


def copies(samples: Sequence[Sample], known: Iterable[Sample], *, once: bool = False) -> list[bool]:
    """Of each of the `samples`, whether it has the bytes of one of the `known` images, or where
    each is wanted `once`, of one before it. A file that is not there is like no other: that is told
    when it is read. Only files of one size are read, and none that is known by its path."""
    sizes: dict[int, list[Sample]] = defaultdict(list)
    paths = set()
    for sample in known:
        sizes[_size(sample)].append(sample)
        paths.add(_path(sample))
    paths.discard("")
    own: dict[int, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        own[_size(sample)].append(place)
    found = [False] * len(samples)
    for size, places in own.items():
        alone = size not in sizes and (len(places) == 1 or not once)
        if size < 0 or alone:
            continue
        others = [place for place in places if _path(samples[place]) not in paths]
        for place in set(places).difference(others):
            found[place] = True
        seen = set(_digests(sizes.get(size, ()))) if others else set()
        digests = _digests([samples[place] for place in others])
        for place, digest in zip(others, digests, strict=True):
            found[place] = digest in seen
            if once:
                seen.add(digest)
    return found


def _path(sample: Sample) -> str:
    """Where its file is; empty for an image that is no file of its own."""
    return os.path.abspath(sample.key) if sample.read is None else ""


def _size(sample: Sample) -> int:
    """Of its file, or of its bytes in another; −1 where there are none."""
    try:
        if sample.read is None:
            return os.stat(sample.key).st_size
        if isinstance(sample.read, Member):
            return sample.read.length
        content = sample.read()
    except OSError:
        return -1
    return len(content) if isinstance(content, bytes) else -1


def _digests(samples: Iterable[Sample]) -> Iterator[bytes]:
    for sample in samples:
        digest = hashlib.blake2b(digest_size=16)
        try:
            if sample.read is not None:
                content = sample.read()
                assert isinstance(content, bytes)  # what has a size here
                digest.update(content)
            else:
                with open_file(Path(sample.key)) as file:
                    while block := file.read(_BLOCK):
                        digest.update(block)
        except OSError:
            digest.update(os.fsencode(sample.key))
        yield digest.digest()
