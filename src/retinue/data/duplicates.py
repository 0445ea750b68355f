"""Images that are there twice: the same bytes, or nearly the same picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retinue.data.image_check import ImageCheck

DISTANCE = 3
"""Most differing bits of two fingerprints (of 64) that count as near."""
CORRELATION = 0.99
"""Least correlation of two thumbnails' luma that counts as near."""
_BANDS = 4
LARGEST_BUCKET = 4096
"""Images that share a band of their fingerprints are not compared if they are more than that."""

Pair = tuple[int, int]


class NearPairs(NamedTuple):
    """What the search found, and what it passed over."""

    pairs: list[Pair]
    """Positions of two pictures, each pair once, in order."""
    passed_over: list[int]
    """Positions of pictures that were not compared with all that could be near."""


def exact_groups(images: Sequence[ImageCheck]) -> list[list[int]]:
    """Positions of files with the same bytes, groups of two and more."""
    groups: dict[str, list[int]] = defaultdict(list)
    for position, image in enumerate(images):
        if image.error is None:
            groups[image.sha256].append(position)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(images: Sequence[ImageCheck]) -> NearPairs:
    """Pictures that look the same but are other files.

    Two fingerprints that differ in at most 3 bits agree in at least one of four bands of 16 bits:
    only images that share a band are compared, and thumbnails settle what the fingerprints suggest.
    """
    usable = [p for p, image in enumerate(images) if image.dhash is not None]
    hashes = np.array([images[p].dhash for p in usable], dtype=np.uint64)
    found: set[Pair] = set()
    passed_over: set[int] = set()
    for band in range(_BANDS):
        keys = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=-1.0))
        for members in np.split(order, starts[1:]) if len(order) else []:
            if len(members) > LARGEST_BUCKET:
                passed_over.update(usable[m] for m in members.tolist())
            elif len(members) > 1:
                found.update(_compare(images, usable, hashes, members))
    return NearPairs(sorted(found), sorted(passed_over))


def _compare(
    images: Sequence[ImageCheck],
    usable: Sequence[int],
    hashes: npt.NDArray[np.uint64],
    members: npt.NDArray[np.int64],
) -> list[Pair]:
    differing = np.bitwise_count(hashes[members, None] ^ hashes[None, members])
    pairs = []
    for a, b in np.argwhere(np.triu(differing <= DISTANCE, 1)).tolist():
        i, j = sorted((usable[members[a]], usable[members[b]]))
        if images[i].sha256 == images[j].sha256:
            continue
        one, other = images[i].thumbnail, images[j].thumbnail
        assert one is not None
        assert other is not None
        if float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) >= CORRELATION:
            pairs.append((i, j))
    return pairs
