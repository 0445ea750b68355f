"""From the images of a row to the network's input: `TrainView` varies and combines, `EvalView` is
the one preprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from PIL import Image

from retinue.data import geometry
from retinue.data.decode import Decoded, Encoded, read_image
from retinue.data.framing import eval_boxes, eval_matrix
from retinue.data.geometry import Entry, Region
from retinue.data.options import AugmentOptions
from retinue.errors import BadImageError
from retinue.sample import ImageSize, Matrix, Pixels, Polygon, Preprocessing, Sample, Size, Target

if TYPE_CHECKING:
    from retinue.data.composers import Composition
    from retinue.data.population import Population

_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Seen(NamedTuple):
    """What there is to know of a row's picture, beside its pixels."""

    target: Target | None
    """Of everything that it shows, in its pixels."""
    to_original: Matrix
    """float64 (3, 3): from its pixels to those of the row's own upright original."""
    original_size: ImageSize


class View(Protocol):
    """A way of looking at the images of a row. Called from several threads at once."""

    def cast(self, position: int, *, key: int, epoch: int) -> tuple[int, ...]:
        """Positions of the samples that a row for the one at `position` shows, that one first."""
        ...

    def see(
        self, samples: Sequence[Sample], sizes: Sequence[ImageSize], *, key: int, epoch: int,
        size: Size,
    ) -> Seen:  # fmt: skip
        """What `render` would tell of images of these sizes; nothing is read."""
        ...

    def render(
        self, samples: Sequence[Sample], *, key: int, epoch: int, size: Size, out: Pixels
    ) -> tuple[Seen, list[ImageSize]]:
        """Paints `out`, uint8 (height, width, 3) of `size` (height, width). Gives also the sizes of
        the upright originals. Raises `BadImageError`."""
        ...


class Source(Protocol):
    """An image whose pixels can be had."""

    @property
    def size(self) -> ImageSize:
        """Width and height of the upright original."""
        ...

    @property
    def nbytes(self) -> int:
        """What it holds in memory, about."""
        ...

    def scale(self, at_least: Size | None) -> int:
        """What `decode` divides the sides by (1, 2, 4 or 8): the same pixels for the same
        number."""
        ...

    def decode(self, at_least: Size | None = None) -> Decoded:
        """The pixels. `at_least` (height, width) of the upright image is all that is needed. Raises
        `BadImageError`."""
        ...


def open_image(sample: Sample, how: Preprocessing | None = None) -> Encoded:
    """The sample's image, its header read, to be seen as `how` says. Raises `BadImageError`."""
    how = how or _PLAIN
    source = read_image(sample.key, sample.read)
    return Encoded(source, path=sample.key, background=how.background, depth=how.depth)


_PLAIN = Preprocessing()


class Opening:
    """How the images of samples are opened, and what of them a composer is told of: all of the
    file's, here, or the part that a sample is."""

    def open(self, sample: Sample, how: Preprocessing) -> Source:
        """Raises `BadImageError`."""
        return open_image(sample, how)

    def frame(self, sample: Sample, size: ImageSize) -> tuple[ImageSize, Matrix]:
        """Width and height of what a composer is told of, and the matrix to its pixels, of the
        upright original of `size` (width, height)."""
        return sample.frame(size), _to_part(sample)


class TrainView:
    """What the composer says, painted: each source is decoded at the smallest sufficient scale and
    resampled once."""

    def __init__(
        self,
        augment: AugmentOptions,
        preprocessing: Preprocessing,
        seed: int,
        population: Population | None = None,
        opening: Opening | None = None,
    ) -> None:
        # With torch behind it, for which processes that only look at images need not wait.
        from retinue.data.composers import Composer

        self.preprocessing = preprocessing
        self.composer = Composer(augment, preprocessing, seed, population)
        self.opening = opening or Opening()

    def cast(self, position: int, *, key: int, epoch: int) -> tuple[int, ...]:
        """See `View`."""
        return self.composer.cast(position, key, epoch)

    def see(
        self, samples: Sequence[Sample], sizes: Sequence[ImageSize], *, key: int, epoch: int,
        size: Size,
    ) -> Seen:  # fmt: skip
        """See `View`."""
        composition = self._composed(samples, sizes, key, epoch, size)
        return _seen(samples, sizes, composition, size)

    def render(
        self, samples: Sequence[Sample], *, key: int, epoch: int, size: Size, out: Pixels
    ) -> tuple[Seen, list[ImageSize]]:
        """See `View`."""
        images = [self.opening.open(sample, self.preprocessing) for sample in samples]
        sizes = [image.size for image in images]
        composition = self._composed(samples, sizes, key, epoch, size)
        entries = []
        for placement in composition.placements:
            source = placement.source
            decoded = images[source].decode(placement.needed(sizes[source]))
            matrix = placement.matrix @ decoded.to_original
            entries.append(Entry(decoded.image, matrix, placement.region, placement.opacity))
        geometry.render(
            [*entries, *composition.painted],
            size,
            border=composition.border,
            fill=self.preprocessing.pad_value,
            smooth=self.preprocessing.interpolation != "nearest",
            out=out,
        )
        return _seen(samples, sizes, composition, size), sizes

    def _composed(
        self,
        samples: Sequence[Sample],
        sizes: Sequence[ImageSize],
        key: int,
        epoch: int,
        size: Size,
    ) -> Composition:
        """What the composer says of the samples' frames, told of the originals."""
        frames = [self.opening.frame(s, whole) for s, whole in zip(samples, sizes, strict=True)]
        told = [frame for frame, _ in frames]
        composition = self.composer.compose(told, key=key, epoch=epoch, size=size)
        if told == list(sizes):
            return composition
        placements = [
            replace(p, matrix=p.matrix @ frames[p.source][1]) for p in composition.placements
        ]
        return replace(composition, placements=placements)


def _to_part(sample: Sample) -> Matrix:
    """From the whole image to the sample's part of it."""
    x, y = _corner(sample)
    return geometry.translate(-x, -y)


def _corner(sample: Sample) -> tuple[float, float]:
    """Where the sample's part of the image begins."""
    return (0.0, 0.0) if sample.part is None else sample.part[:2]


def _seen(
    samples: Sequence[Sample],
    sizes: Sequence[ImageSize],
    composition: Composition,
    size: Size,
) -> Seen:
    own = next(p for p in composition.placements if p.source == 0)
    whole = Region(0, 0, size[1], size[0])
    # What is painted later covers what is there.
    regions = [p.region for p in composition.placements]
    regions += [p.region for p in composition.painted]
    outlines = [whole if region is None else region for region in regions]
    hides = [placement.opacity == 1 for placement in composition.placements]
    hides += [True] * len(composition.painted)
    known, open_, parts = False, False, []
    for number, placement in enumerate(composition.placements):
        target, share = samples[placement.source].target, placement.share
        later = [
            cover
            for cover in compress(outlines[number + 1 :], hides[number + 1 :])
            if _meet(outlines[number], cover)
        ]
        known = known or (target is not None and share > 0)
        open_ = open_ or (target is None and share > 0)
        if target is not None and target.places:
            # What lies there shows, whatever the image as a whole is said to be of.
            share = geometry.visible_area(geometry.corners(outlines[number]), later)
        if target is not None and share > 0:
            parts.append((target.through(placement.matrix, size, placement.region, later), share))
    if not (known and parts) or (open_ and not parts[0][0].places):
        target = None  # what shows of an image without a label may be anything
    elif len(parts) == 1:
        target = parts[0][0]
    else:
        total = sum(share for _, share in parts)
        target = type(parts[0][0]).mix([(t, share / total) for t, share in parts])
    return Seen(target, geometry.inverse(own.matrix), sizes[own.source])


def _meet(one: Region | Polygon, other: Region | Polygon) -> bool:
    """Whether the two may share a part of the canvas: parts of a mosaic do not."""
    (a, b), (c, d) = ((c.min(axis=0), c.max(axis=0)) for c in map(geometry.corners, (one, other)))
    return bool((np.maximum(a, c) < np.minimum(b, d)).all())


class _AsItIs:
    """Of a row the image of its sample alone, in which nothing is drawn: `key` and `epoch` change
    nothing."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def cast(self, position: int, *, key: int, epoch: int) -> tuple[int, ...]:
        """See `View`."""
        return (position,)


class EvalView(_AsItIs):
    """The whole or the middle of the image, resized as the weights were published with."""

    def see(
        self, samples: Sequence[Sample], sizes: Sequence[ImageSize], *, key: int = 0,
        epoch: int = 0, size: Size,
    ) -> Seen:  # fmt: skip
        """See `View`."""
        sample, how = samples[0], replace(self.preprocessing, size=size)
        frame = sample.frame(sizes[0])
        matrix = eval_matrix(how, frame) @ _to_part(sample)
        target, region = sample.target, None
        if sample.part is not None:  # nothing shows beyond it
            _, (top, left, tall, wide) = eval_boxes(how, frame)
            region = (left, top, left + wide, top + tall)
        shown = None if target is None else target.through(matrix, size, region)
        return Seen(shown, geometry.inverse(matrix), sizes[0])

    def render(
        self,
        samples: Sequence[Sample],
        *,
        key: int = 0,
        epoch: int = 0,
        size: Size,
        out: Pixels,
    ) -> tuple[Seen, list[ImageSize]]:
        """See `View`."""
        encoded, decoded, box, (top, left, tall, wide) = self._opened(samples[0], size)
        x, y = _corner(samples[0])
        box = (box[0] + x, box[1] + y, box[2] + x, box[3] + y)

        # The stored pixels may lie on their side: resize them as they lie, then turn the result.
        stored = geometry.inverse(decoded.to_original)
        lying = bool(stored[0, 0] == 0)
        x1, y1, x2, y2 = geometry.boxes_through(stored, np.array([box]))[0].tolist()
        shape = (tall, wide) if lying else (wide, tall)
        height_d, width_d = decoded.image.shape[:2]
        # Float rounding, and a last DCT block that is not whole, must not leave the image.
        window = (max(x1, 0.0), max(y1, 0.0), min(x2, width_d), min(y2, height_d))
        method = _PILLOW[self.preprocessing.interpolation]
        try:
            small = np.asarray(Image.fromarray(decoded.image).resize(shape, method, box=window))
        except (ValueError, MemoryError) as error:
            raise BadImageError({encoded.path: f"cannot be resized: {error}"}) from error
        upright = turn(small, encoded.orientation)
        if (tall, wide) != size:
            out[...] = self.preprocessing.pad_value
        out[top : top + tall, left : left + wide] = upright
        return self.see(samples, [encoded.size], size=size), [encoded.size]

    def decoded(self, sample: Sample, size: Size) -> tuple[Encoded, Decoded]:
        """The sample's image at the scale from which `render` goes on, for an input of `size`
        (height, width). Raises `BadImageError`."""
        encoded, decoded, _, _ = self._opened(sample, size)
        return encoded, decoded

    def _opened(
        self, sample: Sample, size: Size
    ) -> tuple[Encoded, Decoded, tuple[float, float, float, float], tuple[int, int, int, int]]:
        """What `decoded` gives, and `eval_boxes` of the sample's part."""
        encoded = open_image(sample, self.preprocessing)
        width, height = encoded.size
        how = replace(self.preprocessing, size=size)
        box, place = eval_boxes(how, sample.frame(encoded.size))
        # Twice what is needed: the decoder's own averaging then hides in the filter's support.
        need_h = place[2] / (box[3] - box[1]) * height
        need_w = place[3] / (box[2] - box[0]) * width
        return encoded, encoded.decode((math.ceil(2 * need_h), math.ceil(2 * need_w))), box, place


def turn(image: Pixels, orientation: int) -> Pixels:
    """Pixels stored with EXIF orientation 1–8, upright; a view, not a copy."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


class WholeView(_AsItIs):
    """All of the upright image, or of the sample's part of it, pixel by pixel."""

    def see(
        self, samples: Sequence[Sample], sizes: Sequence[ImageSize], *, key: int = 0,
        epoch: int = 0, size: Size,
    ) -> Seen:  # fmt: skip
        """See `View`."""
        x, y = map(round, _corner(samples[0]))
        matrix = geometry.translate(-x, -y)
        target = samples[0].target
        shown = None if target is None else target.through(matrix, size)
        return Seen(shown, geometry.inverse(matrix), sizes[0])

    def render(
        self, samples: Sequence[Sample], *, key: int = 0, epoch: int = 0, size: Size, out: Pixels
    ) -> tuple[Seen, list[ImageSize]]:
        """See `View`."""
        encoded = open_image(samples[0], self.preprocessing)
        image = turn(encoded.decode().image, encoded.orientation)
        x, y = map(round, _corner(samples[0]))
        part = image[y : y + size[0], x : x + size[1]]
        if part.shape[:2] != size:
            raise BadImageError({encoded.path: "its size is not what its header says"})
        out[...] = part
        return self.see(samples, [encoded.size], size=size), [encoded.size]
