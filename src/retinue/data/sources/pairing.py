"""Which label file belongs to which image: by what both are called, and where they lie."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from retinue.data.formats import is_image_name
from retinue.data.sources.walking import normal
from retinue.data.sources.words import split_in, split_of


@dataclass(slots=True)
class Paired:
    """What label files came to."""

    image: dict[int, list[int]] = field(default_factory=dict)
    """Label file → its images; several where they are called alike but for the suffix."""
    lost: list[int] = field(default_factory=list)
    """Label files without an image."""
    torn: dict[int, list[int]] = field(default_factory=dict)
    """Label files that could be of several images which lie in different places."""
    loosely: list[int] = field(default_factory=list)
    """Label files whose image is called so in other capitals, or as the file itself says."""


def pair(
    labels: Sequence[str],
    images: Sequence[str],
    said: Callable[[int], str] = lambda k: "",
) -> Paired:
    """Of paths with `/` from one root. `said`: what a label file itself calls its image."""
    found = Paired()
    exact, folded = _by_stem(images, normal), _by_stem(images, lambda s: normal(s).casefold())
    for k, label in enumerate(labels):
        split, stem = folder_split(label), os.path.splitext(os.path.basename(label))[0]
        named = os.path.splitext(said(k).replace("\\", "/").rsplit("/", 1)[-1])[0]
        ways = [(exact, normal(stem))]
        if is_image_name(stem):  # `a.jpg.xml`
            ways.append((exact, normal(os.path.splitext(stem)[0])))
        ways += [(exact, normal(named))] if named else []
        ways += [(folded, normal(word).casefold()) for word in (stem, named) if word]
        for tried, (known, key) in enumerate(ways):
            candidates = known.get((split, key), [])
            if not candidates:
                continue
            best = _nearest(label, candidates, images)
            if len({os.path.dirname(images[i]) for i in best}) > 1:
                found.torn[k] = best
            else:
                found.image[k] = best
                if tried:
                    found.loosely.append(k)
            break
        else:
            found.lost.append(k)
    return found


def folder_split(path: str) -> str | None:
    """The split that one of the folders in `path` is called like, the first of them."""
    return _split_of_folder(path.rpartition("/")[0])


def file_split(path: str, stem: str) -> str | None:
    """The split that a file of labels for many images is called like, by `stem`, its name without
    what tells its kind; or else the one that a folder in its `path` is."""
    return split_in(stem) or folder_split(path)


@lru_cache(maxsize=10_000)
def _split_of_folder(folder: str) -> str | None:
    """Also with a number behind: `train2017`."""
    parts = folder.split("/")
    return next(
        filter(None, (split_of(p) or split_of(p.rstrip("0123456789")) for p in parts)), None
    )


def _by_stem(
    paths: Sequence[str], key: Callable[[str], str]
) -> Mapping[tuple[str | None, str], list[int]]:
    found: dict[tuple[str | None, str], list[int]] = defaultdict(list)
    for k, path in enumerate(paths):
        stem = os.path.splitext(os.path.basename(path))[0]
        found[folder_split(path), key(stem)].append(k)
    return found


def _nearest(label: str, candidates: list[int], images: Sequence[str]) -> list[int]:
    """Those of the candidates whose folder is most like the label's: the same, or one that differs
    in a name, as `labels/` from `images/`."""
    if len(candidates) == 1:
        return candidates
    own = label.split("/")[:-1]
    alike = [_alike(own, images[k].split("/")[:-1]) for k in candidates]
    return [k for k, score in zip(candidates, alike, strict=True) if score == max(alike)]


def _alike(one: list[str], other: list[str]) -> tuple[bool, int]:
    start = sum(1 for _ in _agreeing(one, other))
    end = sum(1 for _ in _agreeing(one[start:][::-1], other[start:][::-1]))
    return one == other, start + end


def _agreeing(one: Sequence[str], other: Sequence[str]) -> Iterator[str]:
    for a, b in zip(one, other, strict=False):
        if a != b:
            return
        yield a
