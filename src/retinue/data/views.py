"""From a sample to the network's input: `TrainView` varies, `EvalView` is the one preprocessing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from retinue.data import geometry
from retinue.data.decode import Encoded, read_bytes
from retinue.data.geometry import Entry, Matrix, Pixels
from retinue.data.options import AugmentOptions
from retinue.data.random import draw
from retinue.errors import BadImageError
from retinue.sample import Preprocessing, Sample

_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MIN_VISIBLE = 0.1
"""A box of which less than this share of the area is left on the canvas is dropped."""


@dataclass(slots=True)
class Item:
    """One row of a batch."""

    image: Pixels
    """uint8 (height, width, 3), of the network's input size."""
    to_original: Matrix
    """float64 (3, 3): from pixels of `image` to pixels of the upright original."""
    original_size: tuple[int, int]
    """Width and height of the upright original."""
    boxes: npt.NDArray[np.float32] | None = None
    """(n, 4) `x1, y1, x2, y2` in pixels of `image`."""
    box_labels: npt.NDArray[np.int64] | None = None
    """(n,)"""


class View(Protocol):
    """A way of looking at samples. Called from several threads at once."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every item's image."""
        ...

    def __call__(
        self, sample: Sample, *, index: int, epoch: int, out: Pixels | None = None
    ) -> Item:
        """The item; its image is written into `out` if given. Raises `BadImageError`."""
        ...


def open_sample(sample: Sample) -> Encoded:
    """The sample's image, its header read."""
    source = sample.image if sample.image is not None else read_bytes(sample.path)
    return Encoded(source, path=sample.path)


class TrainView:
    """Crop, zoom, flip, turn, rotation, shear and shift as one warp, drawn by `data.random`."""

    def __init__(self, augment: AugmentOptions, preprocessing: Preprocessing, seed: int) -> None:
        self.augment = augment
        self.preprocessing = preprocessing
        self.seed = seed
        # A letterbox is grey in evaluation; reflections would teach another picture.
        letterbox = preprocessing.fit == "letterbox" and augment.crop_scale is None
        self._border: geometry.Border = "fill" if letterbox else augment.border

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every item's image."""
        return self.preprocessing.size

    def matrix(self, size: tuple[int, int], *, index: int, epoch: int) -> Matrix:
        """From an upright original of `size` (width, height) to the canvas."""
        options = self.augment
        if options.crop_scale is None:
            matrix = eval_matrix(self.preprocessing, size)
        else:
            matrix = geometry.crop(self._crop(size, index, epoch), self.size)
        return self._pose(index, epoch) @ matrix

    def _crop(self, size: tuple[int, int], index: int, epoch: int) -> tuple[float, ...]:
        """A random box of the image, as Inception's: area and log aspect ratio are uniform."""
        assert self.augment.crop_scale is not None
        width, height = size
        rng = draw(self.seed, epoch, index, "crop")
        low, high = (math.log(ratio) for ratio in self.augment.crop_ratio)
        for _ in range(10):
            area = width * height * rng.uniform(*self.augment.crop_scale)
            ratio = math.exp(rng.uniform(low, high))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if w <= width and h <= height:
                x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
                return self._snapped((x, y, x + w, y + h), size)
        # The image is too long for any allowed ratio: its middle, at the nearest one.
        ratio = min(max(width / height, self.augment.crop_ratio[0]), self.augment.crop_ratio[1])
        w, h = min(width, height * ratio), min(height, width / ratio)
        x, y = (width - w) / 2, (height - h) / 2
        return x, y, x + w, y + h

    def _snapped(
        self, box: tuple[float, float, float, float], size: tuple[int, int]
    ) -> tuple[float, ...]:
        """The box with its sides on whole pixels, as they are after a JPEG's scaled decoding: less
        than a pixel of the canvas away, and `render` is faster for it."""
        x1, y1, x2, y2 = box
        room = min((x2 - x1) / self.size[1], (y2 - y1) / self.size[0])
        grid = next((g for g in (8, 4, 2) if room >= g), 1)
        left, top = (math.floor(v / grid) * grid for v in (x1, y1))
        right = min(max(round(x2 / grid) * grid, left + grid), size[0])
        bottom = min(max(round(y2 / grid) * grid, top + grid), size[1])
        return left, top, right, bottom

    def _pose(self, index: int, epoch: int) -> Matrix:
        """Everything that happens about the middle of the canvas."""
        options, (height, width) = self.augment, self.size
        rng = draw(self.seed, epoch, index, "pose")
        # All are always drawn, so that switching one on leaves the others as they were.
        flips = rng.random(2)
        turn = int(rng.integers(4))
        angle, slant, right, down, zoom = rng.uniform(-1, 1, 5)
        matrix = geometry.identity()
        if flips[0] < options.horizontal_flip:
            matrix = geometry.scale(-1, 1) @ matrix
        if flips[1] < options.vertical_flip:
            matrix = geometry.scale(1, -1) @ matrix
        if options.quarter_turns and turn:
            # On a canvas that is not square, a quarter turn swaps what the sides show.
            fit = (height / width, width / height) if turn % 2 else (1.0, 1.0)
            matrix = geometry.scale(*fit[::-1]) @ np.rint(geometry.rotate(90 * turn)) @ matrix
        if options.shear:
            matrix = geometry.shear(slant * options.shear) @ matrix
        if options.rotation:
            matrix = geometry.rotate(angle * options.rotation) @ matrix
        if options.zoom is not None:
            low, high = (math.log(factor) for factor in options.zoom)
            matrix = geometry.scale(math.exp((low + high + zoom * (high - low)) / 2)) @ matrix
        shift = geometry.translate(
            right * options.translate * width, down * options.translate * height
        )
        return shift @ geometry.about(matrix, width / 2, height / 2)

    def __call__(
        self, sample: Sample, *, index: int, epoch: int, out: Pixels | None = None
    ) -> Item:
        """See `View`."""
        encoded = open_sample(sample)
        width, height = encoded.size
        matrix = self.matrix(encoded.size, index=index, epoch=epoch)
        along_x, along_y = geometry.magnification(matrix, width / 2, height / 2)
        decoded = encoded.decode((math.ceil(height * along_y), math.ceil(width * along_x)))
        image = geometry.render(
            [Entry(decoded.image, matrix @ decoded.to_original)],
            self.size,
            border=self._border,
            fill=self.preprocessing.pad_value,
            smooth=self.preprocessing.interpolation != "nearest",
            out=out,
        )
        boxes, labels = _boxes(sample, matrix, self.size)
        return Item(image, geometry.inverse(matrix), encoded.size, boxes, labels)


class EvalView:
    """The whole or the middle of the image, resized as the weights were published with.

    `orientation` 0–7 is an element of the dihedral group, applied to the finished input
    (`geometry.dihedral`), for test-time augmentation; odd ones need a square input.
    """

    def __init__(self, preprocessing: Preprocessing, orientation: int = 0) -> None:
        if orientation % 2 and preprocessing.size[0] != preprocessing.size[1]:
            raise ValueError("a quarter turn needs a square input")
        self.preprocessing = preprocessing
        self.orientation = orientation

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every item's image."""
        return self.preprocessing.size

    def matrix(self, size: tuple[int, int]) -> Matrix:
        """From an upright original of `size` (width, height) to the input."""
        turned = geometry.dihedral(self.orientation, self.size)
        return turned @ eval_matrix(self.preprocessing, size)

    def __call__(
        self, sample: Sample, *, index: int = 0, epoch: int = 0, out: Pixels | None = None
    ) -> Item:
        """See `View`; nothing is drawn, so `index` and `epoch` change nothing."""
        encoded = open_sample(sample)
        width, height = encoded.size
        box, (top, left, tall, wide) = eval_boxes(self.preprocessing, encoded.size)
        # Twice what is needed: the decoder's own averaging then hides in the filter's support.
        need_h, need_w = tall / (box[3] - box[1]) * height, wide / (box[2] - box[0]) * width
        decoded = encoded.decode((math.ceil(2 * need_h), math.ceil(2 * need_w)))

        # The stored pixels may lie on their side: resize them as they lie, then turn the result.
        stored = geometry.inverse(decoded.to_original)
        lying = bool(stored[0, 0] == 0)
        x1, y1, x2, y2 = geometry.boxes_through(stored, np.array([box]), None)[0].tolist()
        shape = (tall, wide) if lying else (wide, tall)
        height_d, width_d = decoded.image.shape[:2]
        # Float rounding, and a last DCT block that is not whole, must not leave the image.
        window = (max(x1, 0.0), max(y1, 0.0), min(x2, width_d), min(y2, height_d))
        method = _PILLOW[self.preprocessing.interpolation]
        try:
            small = np.asarray(Image.fromarray(decoded.image).resize(shape, method, box=window))
        except (ValueError, MemoryError) as error:
            raise BadImageError({sample.path: f"cannot be resized: {error}"}) from error
        upright = turn(small, encoded.orientation)

        image = np.empty((*self.size, 3), np.uint8) if out is None else out
        if (tall, wide) != self.size:
            canvas = np.full((*self.size, 3), self.preprocessing.pad_value, np.uint8)
            canvas[top : top + tall, left : left + wide] = upright
            upright = canvas
        image[...] = turn(upright, (1, 6, 3, 8, 2, 7, 4, 5)[self.orientation])
        matrix = self.matrix(encoded.size)
        boxes, labels = _boxes(sample, matrix, self.size)
        return Item(image, geometry.inverse(matrix), encoded.size, boxes, labels)


def eval_boxes(
    preprocessing: Preprocessing, size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], tuple[int, int, int, int]]:
    """What is shown of an upright image of `size` (width, height), and where on the input.

    The box `x1, y1, x2, y2` of the original, in fractions of pixels, and the rectangle
    `top, left, height, width` of the input that it fills. `crop` equals resizing the shorter side
    to size / crop_fraction and cutting out the middle in whole pixels, as torchvision and timm do.
    """
    width, height = size
    tall, wide = preprocessing.size
    if preprocessing.fit == "squash":
        return (0.0, 0.0, width, height), (0, 0, tall, wide)
    if preprocessing.fit == "letterbox":
        ratio = min(tall / height, wide / width)
        h, w = max(round(height * ratio), 1), max(round(width * ratio), 1)
        return (0.0, 0.0, width, height), ((tall - h) // 2, (wide - w) // 2, h, w)
    need_h, need_w = preprocessing.covered
    if need_h * width <= need_w * height:
        resized_w, resized_h = need_w, max(int(need_w * height / width), tall)
    else:
        resized_w, resized_h = max(int(need_h * width / height), wide), need_h
    left, top = round((resized_w - wide) / 2), round((resized_h - tall) / 2)
    x, y = width / resized_w, height / resized_h
    return (left * x, top * y, (left + wide) * x, (top + tall) * y), (0, 0, tall, wide)


def eval_matrix(preprocessing: Preprocessing, size: tuple[int, int]) -> Matrix:
    """From an upright original of `size` (width, height) to the input, as `eval_boxes` says."""
    box, (top, left, tall, wide) = eval_boxes(preprocessing, size)
    return geometry.translate(left, top) @ geometry.crop(box, (tall, wide))


def turn(image: Pixels, orientation: int) -> Pixels:
    """Pixels stored with EXIF orientation 1–8, upright; a view, not a copy."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _boxes(
    sample: Sample, matrix: Matrix, size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int64] | None]:
    if sample.boxes is None:
        return None, None
    labels = sample.box_labels
    if labels is None:
        labels = np.zeros(len(sample.boxes), dtype=np.int64)
    whole = geometry.boxes_through(matrix, sample.boxes, None)
    shown = geometry.boxes_through(matrix, sample.boxes, size)
    visible = _area(shown) > _MIN_VISIBLE * _area(whole)
    return shown[visible], labels[visible]


def _area(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    area: npt.NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area
