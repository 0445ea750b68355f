"""Images that are there twice: the same bytes, or nearly the same picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DISTANCE = 3
"""Most differing bits of two fingerprints (of 64) that count as near."""
CORRELATION = 0.99
"""Least correlation of two thumbnails' luma that counts as near."""
_BANDS = 4
LARGEST_BUCKET = 4096
"""Images that share a band of their fingerprints are not compared if they are more than that."""
_AT_ONCE = 4096

Pair = tuple[int, int]
Thumbnails = Callable[[Sequence[int]], npt.NDArray[np.uint8]]
"""(n, k): the luma of small versions of the pictures at these positions."""


class Prints(NamedTuple):
    """What pictures are compared by, a row each."""

    digests: npt.NDArray[np.uint64]
    """(n, 2): of the files' bytes."""
    hashes: npt.NDArray[np.uint64]
    """(n,): near for pictures that look alike."""
    sound: npt.NDArray[np.bool_]
    """(n,): whether it could be read."""
    structured: npt.NDArray[np.bool_]
    """(n,): whether there is anything to compare; plain pictures all look alike."""

    @classmethod
    def empty(cls, n: int) -> Prints:
        """Of `n` pictures that nothing is known of yet."""
        no = np.zeros(n, np.bool_)
        return cls(np.zeros((n, 2), np.uint64), np.zeros(n, np.uint64), no, no.copy())


class NearPairs(NamedTuple):
    """What the search found, and what it passed over."""

    pairs: list[Pair]
    """Positions of two pictures, each pair once, in order."""
    passed_over: list[int]
    """Positions of pictures that were not compared with all that could be near."""


def exact_groups(prints: Prints) -> list[list[int]]:
    """Positions of files with the same bytes, groups of two and more, by their first."""
    rows = np.flatnonzero(prints.sound)
    digests = prints.digests[rows]
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    differs = np.any(digests[order][1:] != digests[order][:-1], axis=1)
    groups = np.split(rows[order], np.flatnonzero(differs) + 1)
    return sorted(sorted(group.tolist()) for group in groups if len(group) > 1)


def near_pairs(prints: Prints, thumbnails: Thumbnails) -> NearPairs:
    """Pictures that look the same but are other files.

    Two fingerprints that differ in at most 3 bits agree in at least one of four bands of 16 bits:
    only images that share a band are compared, and thumbnails settle what the fingerprints suggest.
    """
    usable = np.flatnonzero(prints.sound & prints.structured)
    hashes = prints.hashes[usable]
    found = [np.zeros((0, 2), np.int64)]
    passed_over = [np.zeros(0, np.int64)]
    for band in range(_BANDS):
        keys = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(keys, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            if len(members) > LARGEST_BUCKET:
                passed_over.append(usable[members])
            elif len(members) > 1:
                differing = np.bitwise_count(hashes[members, None] ^ hashes[None, members])
                near = members[np.argwhere(np.triu(differing <= DISTANCE, 1))]
                found.append(usable[near])
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    same = np.all(prints.digests[pairs[:, 0]] == prints.digests[pairs[:, 1]], axis=1)
    pairs = _alike(pairs[~same], thumbnails)
    left = np.unique(np.concatenate(passed_over))
    return NearPairs([(a, b) for a, b in pairs.tolist()], left.tolist())


def _alike(pairs: npt.NDArray[np.int64], thumbnails: Thumbnails) -> npt.NDArray[np.int64]:
    """Those of the pairs, (n, 2), whose thumbnails correlate. Only pictures that have a pair are
    looked at once more: all thumbnails of a large set would fill the memory."""
    if not len(pairs):
        return pairs
    involved, rows = np.unique(pairs, return_inverse=True)
    rows = rows.reshape(-1, 2)
    luma = thumbnails(involved.tolist())
    kept = np.zeros(len(pairs), np.bool_)
    for start in range(0, len(pairs), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        one, other = (luma[rows[part, side]].astype(np.float64) for side in (0, 1))
        one -= one.mean(axis=1, keepdims=True)
        other -= other.mean(axis=1, keepdims=True)
        length = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
        kept[part] = (one * other).sum(axis=1) >= CORRELATION * np.maximum(length, 1e-9)
    return pairs[kept]
