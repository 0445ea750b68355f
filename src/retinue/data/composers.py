"""Where each source of a training image lies on its canvas.

One mechanism for the plain view, a paste on another image, splices, mosaics and masks: a list of
(source, matrix, region), drawn from counter-based streams, from the sizes of the upright originals
alone. Nothing here sees a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from retinue.data import geometry
from retinue.data.erasing import erased
from retinue.data.framing import eval_boxes, eval_matrix, fitted, snapped
from retinue.data.geometry import Border, Paint, Region
from retinue.data.options import AugmentOptions
from retinue.data.policies import Policy
from retinue.data.population import Indices, Population
from retinue.data.random import draw
from retinue.sample import ImageSize, Matrix, Polygon, Preprocessing, Size

Kind = Literal["plain", "splice", "mosaic", "copy_paste", "blend"]


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """One source on the canvas."""

    source: int
    """Index into the row's samples."""
    matrix: Matrix
    """From pixels of the upright original to pixels of the canvas."""
    region: Region | Polygon | None
    """What it may paint; None: everything."""
    share: float
    """Its part in the row's target; 0: scenery that the target does not speak of."""
    opacity: float = 1.0
    """Its part in the pixels that it paints; what lies below has the rest."""

    def needed(self, size: ImageSize) -> Size:
        """Height and width to which the upright original of `size` (width, height) may be shrunk
        in decoding without the canvas showing less."""
        width, height = size
        along_x, along_y = geometry.magnification(self.matrix, width / 2, height / 2)
        return math.ceil(height * along_y), math.ceil(width * along_x)


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """What `geometry.render` is to paint, in this order: the placements, then what is `painted`."""

    placements: list[Placement]
    """Their shares add up to 1."""
    border: Border
    """What lies beyond a source, within its region."""
    painted: list[Paint] = field(default_factory=list)
    """Parts of the canvas that hide what is there."""


class _Pose(NamedTuple):
    """The numbers that a pose is made from; all are always drawn, so that switching one on leaves
    the others as they were."""

    flips: tuple[float, float]
    turn: int
    angle: float
    slant: float
    right: float
    down: float
    zoom: float


class Composer:
    """Training images by `augment`. Safe to call from several threads.

    `preprocessing` says how evaluation frames an image, `population` which other samples there
    are. Raises ValueError if `augment` needs others and there is no population.
    """

    def __init__(
        self,
        augment: AugmentOptions,
        preprocessing: Preprocessing,
        seed: int,
        population: Population | None = None,
    ) -> None:
        if augment.composes_several and population is None:
            raise ValueError("this augmentation needs other samples, so a population")
        self.augment = augment
        self.preprocessing = preprocessing
        self.seed = seed
        self.population = population
        # Where objects have places, nothing marks those that are reflected.
        places = population is not None and population.places
        self._border: Border = "fill" if places else augment.border
        self._policy = None if augment.policy is None else Policy(augment.policy, seed)

    def cast(self, position: int, key: int, epoch: int) -> tuple[int, ...]:
        """The positions of all samples that the row of sample `position` needs, its own first.

        Others come from the whole population, for a splice from the stratum, uniformly; the sample
        itself is drawn only into a mosaic, where there is no other.
        """
        options, population = self.augment, self.population
        if population is None or not options.composes_several:
            return (position,)
        kind = self._kind(key, epoch)
        rng = draw(self.seed, epoch, key, "cast")
        if kind == "splice":
            members = population.strata.members(int(population.stratum[position]))
            return (position, *_others(rng, position, 1, members))
        if kind == "mosaic":
            others = _others(rng, position, 3, len(population))
            return (position, *(others or (position,) * 3))
        if kind in ("copy_paste", "blend") or self._pastes(key, epoch):
            return (position, *_others(rng, position, 1, len(population)))
        return (position,)

    def compose(
        self, sizes: Sequence[ImageSize], *, key: int, epoch: int, size: Size | None = None
    ) -> Composition:
        """Upright originals of `sizes` (width, height), in the order of `cast`, on a canvas of
        `size` (height, width; default: the preprocessing's).

        With fewer sizes than the kind of image that was drawn needs, the row is a plain view.
        """
        size = size or self.preprocessing.size
        made = self._composed(sizes, key, epoch, size)
        if not self.augment.erasing.probability:
            return made
        hidden = erased(
            self.augment.erasing,
            self.preprocessing.mean,
            seed=self.seed,
            epoch=epoch,
            key=key,
            size=size,
        )
        return replace(made, painted=[*made.painted, *hidden])

    def _composed(
        self, sizes: Sequence[ImageSize], key: int, epoch: int, size: Size
    ) -> Composition:
        kind = self._kind(key, epoch)
        if kind == "splice" and len(sizes) >= 2:
            return self._splice(sizes, key, epoch, size)
        if kind == "mosaic" and len(sizes) >= 4:
            return self._mosaic(sizes, key, epoch, size)
        if kind == "copy_paste" and len(sizes) >= 2:
            return self._copy_paste(sizes, key, epoch, size)
        if kind == "blend" and len(sizes) >= 2:
            return self._blend(sizes, key, epoch, size)
        return self._plain(sizes, key, epoch, size, paste=kind == "plain")

    def _kind(self, key: int, epoch: int) -> Kind:
        options = self.augment
        if not options.joins:
            return "plain"
        chance = draw(self.seed, epoch, key, "composition").random()
        kinds: tuple[Kind, ...] = ("splice", "mosaic", "copy_paste", "blend")
        reached = 0.0
        for kind in kinds:
            reached += getattr(options, kind)
            if chance < reached:
                return kind
        return "plain"

    # One image

    def matrix(
        self, source: ImageSize, *, key: int, epoch: int, size: Size | None = None
    ) -> Matrix:
        """The plain view: from an upright original of size `source` (width, height) to a canvas of
        `size` (height, width)."""
        return self._alone(source, key, epoch, size or self.preprocessing.size)[0]

    def _alone(
        self, source: ImageSize, key: int, epoch: int, size: Size, called: str = ""
    ) -> tuple[Matrix, Region | None]:
        """The plain view's matrix, and what of the canvas the image covers if that is known to be a
        rectangle of whole pixels. `called` goes before the names of the draws."""
        pose = self._posed(self._pose(key, epoch, f"{called}pose"), size)
        if self._policy is not None:
            pose = self._policy.matrix(key, epoch, size) @ pose
        if self.augment.fits:
            rng = draw(self.seed, epoch, key, f"{called}fit")
            stretch = self._stretch(rng)
            grow = rng.uniform(*(self.augment.fit_scale or (1.0, 1.0)))
            right, down = rng.random(2)
            matrix, window = fitted(self._preprocessing(size), source, stretch, grow, (right, down))
            return pose @ matrix, geometry.upright(
                geometry.apply(pose, geometry.corners(window)), size
            )
        if self.augment.crop_scale is None:
            return pose @ self._framed(source, size), None
        rng = draw(self.seed, epoch, key, f"{called}crop")
        return pose @ geometry.crop(self._crop(source, rng, size), size), None

    def _plain(
        self, sizes: Sequence[ImageSize], key: int, epoch: int, size: Size, *, paste: bool
    ) -> Composition:
        matrix, shown = self._alone(sizes[0], key, epoch, size)
        placements = [Placement(0, matrix, shown, 1.0)]
        # A letterbox is grey in evaluation; reflections would teach another picture.
        letterbox = self.preprocessing.fit == "letterbox" and self.augment.crop_scale is None
        border: Border = "fill" if letterbox or self.augment.fits else self._border
        if paste and len(sizes) >= 2 and self._pastes(key, epoch):
            covered = geometry.clip(_outline(matrix, sizes[0]), size)
            if geometry.area(covered) < size[0] * size[1] * (1 - 1e-9):
                # As published, the label stays that of the image itself.
                behind = Placement(1, _covering(sizes[1], size), None, 0.0)
                placements = [behind, Placement(0, matrix, covered, 1.0)]
                border = "reflect"  # grey would shine through at the image's edges
        return Composition(placements, border, self._mask(key, epoch, size))

    def _pastes(self, key: int, epoch: int) -> bool:
        """Whether this row's zoom leaves room around the image that another is to fill."""
        options = self.augment
        return options.zoom_paste and self._zoom(self._pose(key, epoch, "pose")) < 1

    def _mask(self, key: int, epoch: int, size: Size) -> list[Paint]:
        """One quarter in the colour that becomes 0 by normalisation."""
        probability = self.augment.mixing.quarter_mask
        if not probability:
            return []
        rng = draw(self.seed, epoch, key, "quarter mask")
        if rng.random() >= probability:
            return []
        quarter = _quarters(size[1] // 2, size[0] // 2, size)[int(rng.integers(4))]
        red, green, blue = (round(mean * 255) for mean in self.preprocessing.mean)
        return [Paint(quarter, (red, green, blue))]

    def _framed(self, source: ImageSize, size: Size) -> Matrix:
        return eval_matrix(self._preprocessing(size), source)

    def _preprocessing(self, size: Size) -> Preprocessing:
        same = size == self.preprocessing.size
        return self.preprocessing if same else replace(self.preprocessing, size=size)

    def _crop(self, source: ImageSize, rng: np.random.Generator, size: Size) -> tuple[float, ...]:
        """A random box of the image, as Inception's: area and log aspect ratio are uniform."""
        assert self.augment.crop_scale is not None
        width, height = source
        low, high = (math.log(ratio) for ratio in self.augment.crop_ratio)
        for _ in range(10):
            area = width * height * rng.uniform(*self.augment.crop_scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if w <= width and h <= height:
                x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
                return snapped((x, y, x + w, y + h), source, size)
        # The image is too long for any allowed ratio: its middle, at the nearest one.
        ratio = min(max(width / height, self.augment.crop_ratio[0]), self.augment.crop_ratio[1])
        w, h = min(width, height * ratio), min(height, width / ratio)
        x, y = (width - w) / 2, (height - h) / 2
        return x, y, x + w, y + h

    def _stretch(self, rng: np.random.Generator) -> float:
        """What an aspect ratio is multiplied with."""
        jitter = self.augment.jitter
        across, along = rng.uniform(1 - jitter, 1 + jitter, 2)
        return float(across / along)

    def _pose(self, key: int, epoch: int, operation: str) -> _Pose:
        rng = draw(self.seed, epoch, key, operation)
        across, along = rng.random(2)
        turn = int(rng.integers(4))
        return _Pose((across, along), turn, *rng.uniform(-1, 1, 5))

    def _posed(self, pose: _Pose, size: Size) -> Matrix:
        """Everything that happens about the middle of the canvas."""
        options, (height, width) = self.augment, size
        # On a canvas that is not square, a quarter turn swaps what the sides show.
        fit = (width / height, height / width) if pose.turn % 2 else (1.0, 1.0)
        matrix = self._slanted(pose, self._turned(pose, fit))
        if options.zoom is not None:
            matrix = geometry.scale(self._zoom(pose)) @ matrix
        shift = geometry.translate(
            pose.right * options.translate * width, pose.down * options.translate * height
        )
        return shift @ geometry.about(matrix, width / 2, height / 2)

    def _turned(self, pose: _Pose, fit: tuple[float, float] = (1.0, 1.0)) -> Matrix:
        """Flips, then the quarter turn and, with it, a scaling by `fit`."""
        options, matrix = self.augment, geometry.identity()
        if pose.flips[0] < options.horizontal_flip:
            matrix = geometry.scale(-1, 1) @ matrix
        if pose.flips[1] < options.vertical_flip:
            matrix = geometry.scale(1, -1) @ matrix
        if options.quarter_turns and pose.turn:
            matrix = geometry.scale(*fit) @ np.rint(geometry.rotate(90 * pose.turn)) @ matrix
        return matrix

    def _slanted(self, pose: _Pose, matrix: Matrix) -> Matrix:
        """`matrix`, then shear and rotation."""
        if self.augment.shear:
            matrix = geometry.shear(pose.slant * self.augment.shear) @ matrix
        if self.augment.rotation:
            matrix = geometry.rotate(pose.angle * self.augment.rotation) @ matrix
        return matrix

    def _zoom(self, pose: _Pose) -> float:
        if self.augment.zoom is None:
            return 1.0
        low, high = (math.log(factor) for factor in self.augment.zoom)
        return math.exp((low + high + pose.zoom * (high - low)) / 2)

    # Several images

    def _splice(self, sizes: Sequence[ImageSize], key: int, epoch: int, size: Size) -> Composition:
        """Both images as evaluation frames them; each keeps its part of the canvas."""
        height, width = size
        rng = draw(self.seed, epoch, key, "splice")
        way, swapped, cut = int(rng.integers(4)), bool(rng.random() < 0.5), rng.uniform(0.25, 0.75)
        regions: list[Region | Polygon]
        if way == 0:
            x = round(cut * width)
            regions = [Region(0, 0, x, height), Region(x, 0, width, height)]
            share = x / width
        elif way == 1:
            y = round(cut * height)
            regions = [Region(0, 0, width, y), Region(0, y, width, height)]
            share = y / height
        else:
            corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
            diagonal = corners if way == 2 else np.roll(corners, -1, axis=0)
            regions = [diagonal[[0, 1, 2]], diagonal[[0, 2, 3]]]
            share = 0.5
        parts = zip(regions, (share, 1 - share), (1, 0) if swapped else (0, 1), strict=True)
        placements = [
            Placement(source, self._framed(sizes[source], size), region, part)
            for region, part, source in parts
        ]
        return Composition(placements, self._several_border())

    def _mosaic(self, sizes: Sequence[ImageSize], key: int, epoch: int, size: Size) -> Composition:
        """Four images, each in its quarter around a point that is uniform in the middle half of
        the canvas (YOLOv4, Bochkovskiy et al., 2020; the centre as in YOLOv5).

        Which image lies where is drawn; flips, quarter turns, shear and rotation are drawn for
        each, and its aspect ratio is jittered. Its magnification is log-uniform from where it just
        fits into the quarter to where it just covers it, times its `zoom`. Along an axis on which
        it is shorter than the quarter, it touches the point; on one on which it is longer, the part
        that shows is drawn uniformly. `crop_scale`, `fit_scale` and `translate` have no part in it.
        Shares are the areas of the quarters.
        """
        height, width = size
        rng = draw(self.seed, epoch, key, "mosaic")
        x, y = (round(side * rng.uniform(0.25, 0.75)) for side in (width, height))
        order = rng.permutation(4)
        placements = []
        for k, region in enumerate(_quarters(x, y, size)):
            source = int(order[k])
            grow, along_x, along_y = rng.random(3)
            pose = self._pose(key, epoch, f"mosaic {source}")
            w, h = sizes[source]
            jittered = draw(self.seed, epoch, key, f"mosaic {source} jitter")
            stretch = math.sqrt(self._stretch(jittered)) if self.augment.jitter else 1.0
            turned = self._turned(pose) @ geometry.scale(stretch, 1 / stretch)
            upright_w, upright_h = np.abs(turned[:2, :2]) @ (w, h)
            room_w, room_h = region.x2 - region.x1, region.y2 - region.y1
            fit, cover = sorted((room_w / upright_w, room_h / upright_h))
            scale = fit * (cover / fit) ** grow * self._zoom(pose)
            left = _slide(region.x1, room_w, scale * upright_w, along_x, ends=k % 2 == 0)
            top = _slide(region.y1, room_h, scale * upright_h, along_y, ends=k < 2)
            matrix = self._slanted(pose, geometry.scale(scale) @ turned)
            middle = geometry.translate(left + scale * upright_w / 2, top + scale * upright_h / 2)
            matrix = middle @ matrix @ geometry.translate(-w / 2, -h / 2)
            placements.append(Placement(source, matrix, region, room_w * room_h / (width * height)))
        return Composition(placements, self._several_border())

    def _copy_paste(
        self, sizes: Sequence[ImageSize], key: int, epoch: int, size: Size
    ) -> Composition:
        """The plain view with a rectangle of another image pasted in.

        The rectangle covers 1/16 to 1/4 of the canvas, with an aspect ratio of 1/2 to 2 times the
        canvas's, area and log ratio uniform. It comes from anywhere in the other image as
        evaluation frames it, and goes to anywhere on the canvas, neither scaled nor turned. Shares
        are areas.
        """
        height, width = size
        rng = draw(self.seed, epoch, key, "copy-paste")
        area, stretch = rng.uniform(1 / 16, 1 / 4), 2 ** rng.uniform(-0.5, 0.5)
        from_x, from_y, to_x, to_y = rng.random(4)
        _, (top, left, tall, wide) = eval_boxes(self._preprocessing(size), sizes[1])
        w = min(max(round(width * math.sqrt(area) * stretch), 1), wide)
        h = min(max(round(height * math.sqrt(area) / stretch), 1), tall)
        x, y = math.floor(to_x * (width - w + 1)), math.floor(to_y * (height - h + 1))
        from_x = left + math.floor(from_x * (wide - w + 1))
        from_y = top + math.floor(from_y * (tall - h + 1))
        matrix = geometry.translate(x - from_x, y - from_y) @ self._framed(sizes[1], size)
        plain = self._plain(sizes[:1], key, epoch, size, paste=False)
        share = w * h / (width * height)
        own = replace(plain.placements[0], share=1 - share)
        pasted = Placement(1, matrix, Region(x, y, x + w, y + h), share)
        return Composition([own, pasted], plain.border)

    def _blend(self, sizes: Sequence[ImageSize], key: int, epoch: int, size: Size) -> Composition:
        """Two plain views, half and half where both are; elsewhere the one that is."""
        own = self._plain(sizes[:1], key, epoch, size, paste=False)
        matrix, shown = self._alone(sizes[1], key, epoch, size, "blended ")
        region = shown or geometry.clip(_outline(matrix, sizes[1]), size)
        below = replace(own.placements[0], share=0.5)
        return Composition([below, Placement(1, matrix, region, 0.5, 0.5)], own.border)

    def _several_border(self) -> Border:
        return "fill" if self.preprocessing.fit == "letterbox" else self._border


def _others(
    rng: np.random.Generator, position: int, count: int, pool: Indices | int
) -> tuple[int, ...]:
    """`count` draws with replacement from `pool` (a number: from so many positions), without
    `position`, which is in it; none if it is alone."""
    size = pool if isinstance(pool, int) else len(pool)
    if size < 2:
        return ()
    drawn = rng.integers(size - 1, size=count)
    if isinstance(pool, int):
        return tuple((drawn + (drawn >= position)).tolist())
    own = int(np.searchsorted(pool, position))
    return tuple(pool[drawn + (drawn >= own)].tolist())


def _quarters(x: int, y: int, size: Size) -> list[Region]:
    """The four parts of the canvas around a point, row by row."""
    height, width = size
    return [
        Region(left, top, right, bottom)
        for top, bottom in ((0, y), (y, height))
        for left, right in ((0, x), (x, width))
    ]


def _slide(start: int, room: int, length: float, chance: float, *, ends: bool) -> float:
    """Where something of `length` begins: it touches the end (or start) of the room if it is
    shorter, and covers the room anyhow if it is longer."""
    if length < room:
        return start + (room - length if ends else 0)
    return start - chance * (length - room)


def _outline(matrix: Matrix, source: ImageSize) -> Polygon:
    """Where the four corners of an image of size `source` (width, height) lie on the canvas."""
    width, height = source
    return geometry.apply(
        matrix, np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    )


def _covering(source: ImageSize, size: Size) -> Matrix:
    """The largest centred window of the canvas's shape, on the whole canvas."""
    (width, height), (tall, wide) = source, size
    scale = max(wide / width, tall / height)
    return (
        geometry.translate(wide / 2, tall / 2)
        @ geometry.scale(scale)
        @ geometry.translate(-width / 2, -height / 2)
    )
