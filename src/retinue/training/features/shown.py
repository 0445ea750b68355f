"""What each view of a split shows, of which images, and what it is found by in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from retinue.data.colour import Colour
from retinue.data.loader import Loader
from retinue.data.views import Seen
from retinue.errors import RetinueError
from retinue.sample import Row, Sample
from retinue.training.features.frozen import Size
from retinue.training.features.keys import (
    Contents,
    identity_of_file,
    identity_of_part,
    view_key,
)

MOST_REMEMBERED = 500_000
"""Views whose geometry is kept in memory; that of others is worked out again each time."""
NOBODY = bytes(16)
"""The content of a file that cannot be read."""
Place = tuple[int, int]
"""(view, position)"""


@dataclass(frozen=True)
class Views:
    """Which views there are of the samples of `loader`, and what their pixels depend on.

    View v of a sample is what the loader's view renders with the image's content as its key and v
    as its epoch: an image has the same views in whatever list it stands.
    """

    loader: Loader
    colour: Colour
    draws: Any
    """JSON values of all that the pixels depend on besides images, key and view."""
    sizes: Sequence[Size]
    """Every (height, width) that will be asked for."""
    count: int = 1
    """Of each sample. With several, it goes on to the next with every epoch, so that each batch
    holds all of them."""


class Shown:
    """What `views` show, and what they are found by."""

    def __init__(self, views: Views, contents: Contents) -> None:
        """`contents`: tells images by what is in them. Raises `BadImageError` where one cannot be
        read and bad images are to stop the training."""
        self.samples = list(views.loader.samples)  # held: they are told apart by identity
        self._loader = views.loader
        self._draws = views.draws
        self._count = views.count
        self._contents = self._read(contents)
        self._position = {id(sample): k for k, sample in enumerate(self.samples)}
        self._keys: tuple[frozenset[str], dict[Size, list[bytes]]] = (frozenset(), {})
        self._remembered: dict[tuple[Place, Size], tuple[tuple[Sample, ...], Seen]] = {}

    def position(self, sample: Sample) -> int:
        """Where the sample stands among all. KeyError for another one."""
        return self._position[id(sample)]

    def row(self, place: Place) -> Row:
        """The view, to be rendered: readable images in place of those that are known to be bad.
        Raises `BadImageError` if none is left."""
        view, position = place
        key = int.from_bytes(self._contents[position][:7], "little")
        cast = self._loader.view.cast(position, key=key, epoch=view)
        samples = tuple(self.samples[p] for p in cast)
        return Row(key, self._loader.readable(samples, key))

    def seen(self, row: Row, place: Place, sizes: Any, size: Size) -> tuple[Row, Seen]:
        """`row` with the samples that the view in fact shows, and what is seen of them, whose
        upright originals are of `sizes`, (sources, 2) of (width, height); for up to
        `MOST_REMEMBERED` views it is worked out once."""
        known = self._remembered.get((place, size))
        if known is None:
            key, shown, _ = self.row(place)
            pairs = [(int(w), int(h)) for w, h in sizes[: len(shown)]]
            seen = self._loader.view.see(shown, pairs, key=key, epoch=place[0], size=size)
            known = shown, seen
            if len(self._remembered) < MOST_REMEMBERED:
                self._remembered[place, size] = known
        return row._replace(samples=known[0]), known[1]

    def is_dropped(self, position: int) -> bool:
        """Whether the image is known to be bad, and nothing stands in for it."""
        bad = self.samples[position].key in self._loader.skipped
        return bad and self._loader.bad_images == "drop"

    def key(self, row: Row, view: int, size: Size) -> bytes:
        """What a rendered row is found by."""
        contents = [self._contents[self._position[id(sample)]] for sample in row.samples]
        return view_key(contents, [self._draws, row.key, view], size)

    def wanted(self, size: Size) -> list[bytes]:
        """The keys of all views, view after view: position p of view v at v × samples + p."""
        bad, keys = self._keys
        if bad != self._loader.skipped.keys():  # others are shown in the place of bad ones
            bad, keys = frozenset(self._loader.skipped), {}
            self._keys, self._remembered = (bad, keys), {}
        if size not in keys:
            places = [(v, p) for v in range(self._count) for p in range(len(self.samples))]
            keys[size] = [self.key(self.row(place), place[0], size) for place in places]
        return keys[size]

    def refuse_changed(self, rows: Iterable[Row]) -> None:
        """Raise RetinueError for an image that is another one than when its content was looked at:
        its features would be found under the name of the old one for ever."""
        for sample in {id(s): s for row in rows for s in row.samples}.values():
            known = self._contents[self._position[id(sample)]]
            now = identity_of_file(sample.key) if sample.read is None else None
            if sample.read is None and (now is None or _of_part(now, sample) != known):
                raise RetinueError(
                    "the image was changed while its features were computed",
                    where=repr(sample.key),
                    mend="let the images be while a training runs",
                    resumable=True,
                )

    def _read(self, known: Contents) -> list[bytes]:
        """The identity of the image of each sample, and of the part that it is."""
        if self._loader.bad_images == "stop":
            contents = known.of_all((sample.key, sample.read) for sample in self.samples)
        else:
            contents = [self._content(known.of, sample) for sample in self.samples]
        return list(map(_of_part, contents, self.samples))

    def _content(self, of: Callable[..., bytes], sample: Sample) -> bytes:
        try:
            return of(sample.key, sample.read)
        except OSError as error:
            self._loader.skipped.setdefault(sample.key, error.strerror or str(error))
            return NOBODY


def _of_part(content: bytes, sample: Sample) -> bytes:
    """The identity of what the sample shows of the image that has the identity `content`."""
    return content if sample.part is None else identity_of_part(content, sample.part)
