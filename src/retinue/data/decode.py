"""Encoded bytes to RGB pixels: every common format, upright, and never a surprise.

What is done with the unusual, so that two programs never see two different pictures:

- Greyscale becomes three equal channels; 16-bit grey is value / 257, rounded, or where `depth` says
  that fewer bits are used, its share of those.
- Floating-point grey within 0–1 is scaled by 255, within 0–255 taken as it is; other float and
  32-bit integer images are stretched from their least to their greatest value. What is not a number
  counts as the least one, infinities as the ends.
- Palettes are looked up; transparency is composited on white, or another `background`.
- CMYK (also Adobe's inverted one) goes through Pillow's conversion; colour profiles are ignored.
- Of an animation or a multi-page file, the first frame.
- The orientation (EXIF's, or XMP's) is not applied to the pixels: it is part of
  `Decoded.to_original`, so that the one warp that follows brings the image upright, too.
- More than 178,956,970 pixels (Pillow's limit) are refused from the header.

A file is broken if its decoder fails or warns of damage, at whatever scale it is decoded; nothing
else makes it so. That is the one definition, for `data check`, the scan before a training, the
loader and prediction.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from retinue.arrays import ImageSize, Matrix, Pixels, Read, Size
from retinue.data import complaints, formats, geometry, jpeg, orientation
from retinue.errors import BadImageError
from retinue.files import open_file

WHITE = (255, 255, 255)
"""What shows through transparent pixels, where nothing else is asked for."""
DEPTH = 16
"""Bits that 16-bit grey images use, where nothing else is asked for."""

_LARGE = 8_000_000
_NOT_READ: dict[type[Exception], str] = {
    FileNotFoundError: "no such file",
    PermissionError: "permission denied",
    IsADirectoryError: "is a folder, not a file",
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels as they came, and how they lie in the upright original."""

    image: Pixels
    """uint8 (height, width, 3), RGB."""
    to_original: Matrix
    """float64 (3, 3): from pixels of `image` to pixels of the upright original."""
    size: ImageSize


class Encoded:
    """An image whose header has been read: its size is known, its pixels are not decoded yet."""

    def __init__(
        self,
        source: bytes | Pixels,
        *,
        path: str,
        background: tuple[int, int, int] = WHITE,
        depth: int = DEPTH,
    ) -> None:
        """`background`: RGB 0–255 behind transparent pixels; `depth`: how many bits 16-bit grey
        images use. Raises `BadImageError` for what is no image, or too large a one."""
        self.path = path
        self._source = source
        self._background, self._depth = background, depth
        self._jpeg: jpeg.Header | None = None
        self._pillow: Image.Image | None = None
        self.orientation = 1
        with naming(path):
            if isinstance(source, np.ndarray):
                _check_array(source)
                height, width = source.shape[:2]
            elif not source:
                raise ValueError("zero bytes")
            else:
                if jpeg.is_jpeg(source):
                    self._jpeg = jpeg.read_header(source)
                if self._jpeg is None:
                    width, height = self._open_pillow(source)
                else:
                    height, width = self._jpeg[:2]
                    self.orientation = orientation.of_jpeg(source)
            formats.check_size(width, height)
        self.stored_size = (width, height)
        self.size = (height, width) if self.orientation >= 5 else (width, height)

    def _open_pillow(self, source: bytes) -> tuple[int, int]:
        image = open_pillow(source)
        # Only now may anything be decoded: looking for a PNG's or TIFF's orientation does that.
        formats.check_size(*image.size)
        load(image)
        self.orientation = orientation.of_pillow(image)
        self._pillow = image
        return image.size

    @property
    def largest(self) -> int | None:
        """The largest value of 16-bit grey; None for other images."""
        if self._pillow is None or not has_16_bits(self._pillow):
            return None
        return int(np.asarray(self._pillow).max(initial=0))

    @property
    def nbytes(self) -> int:
        """What it holds in memory, about: a JPEG's bytes; of what Pillow opens, pixels, too."""
        held = self._source.nbytes if isinstance(self._source, np.ndarray) else len(self._source)
        width, height = self.stored_size
        return held if self._pillow is None else held + 4 * width * height

    def decode(self, at_least: Size | None = None) -> Decoded:
        """The pixels. `at_least` (height, width) of the upright image is all that is needed: a JPEG
        is then decoded at the smallest of the scales 1, ½, ¼, ⅛ that covers it."""
        shrink = self.scale(at_least)
        with naming(self.path):
            if isinstance(self._source, np.ndarray):
                image = self._source
            elif self._jpeg is None:
                assert self._pillow is not None
                image = to_rgb(self._pillow, background=self._background, depth=self._depth)
            else:
                image = jpeg.decode(self._source, self._jpeg, shrink)
                if image.shape[2] == 4:
                    whole = Image.frombytes("CMYK", image.shape[1::-1], image.tobytes())
                    image = to_rgb(whole)
        to_original = geometry.orient(self.orientation, self.stored_size)
        if shrink > 1:
            to_original = to_original @ geometry.scale(shrink)
        return Decoded(image, to_original, self.size)

    def scale(self, at_least: Size | None) -> int:
        """What `decode` divides the sides by: 1, 2, 4 or 8."""
        if at_least is None or self._jpeg is None:
            return 1
        need_h, need_w = at_least[::-1] if self.orientation >= 5 else at_least
        width, height = self.stored_size
        for shrink in (8, 4, 2):
            if -(-width // shrink) >= need_w and -(-height // shrink) >= need_h:
                return shrink
        return 1


def read_image(key: str, read: Read | None = None) -> bytes | Pixels:
    """What `read` gives; without it, the content of the file called `key`. Raises `BadImageError`
    naming `key`."""
    if read is None:
        return read_bytes(key)
    with naming(key):
        return read()


def read_bytes(path: str | Path) -> bytes:
    """The content of a file; `BadImageError` if it cannot be read, or is large and no image."""
    with naming(str(path)), open_file(path) as file:
        if os.fstat(file.fileno()).st_size > _LARGE:
            _refuse_from_header(file)
        return file.read()


def _refuse_from_header(file: BinaryIO) -> None:
    """So that not all of a video or a database is read to learn that it is no image."""
    if formats.extra_for(file.read(64)) is None:
        file.seek(0)
        formats.check_size(*Image.open(file).size)
    file.seek(0)


def open_pillow(source: bytes) -> Image.Image:
    """The image with its header read, at its first frame."""
    extra = formats.extra_for(source[:64])
    if extra is not None:
        return formats.open_with_extra(source, extra)
    image = Image.open(io.BytesIO(source))
    if getattr(image, "is_animated", False):
        image.seek(0)
    return image


def load(image: Image.Image) -> None:
    """Decodes it. Raises nearly anything for one that is not sound."""
    if image.format == "TIFF":
        with complaints.libtiff_raises():
            image.load()
    else:
        image.load()


def to_rgb(
    image: Image.Image, *, background: tuple[int, int, int] = WHITE, depth: int = DEPTH
) -> Pixels:
    """uint8 (height, width, 3) of any Pillow image, as the module's docstring says."""
    load(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return np.repeat(_to_8_bit(image, depth)[..., None], 3, axis=2)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        flat = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(flat, layers)
    return np.asarray(image.convert("RGB"))


def has_16_bits(image: Image.Image) -> bool:
    """Of one channel; Pillow has one mode for 32 bits and for netpbm's 16."""
    return image.mode.startswith("I;") or (image.mode == "I" and image.format == "PPM")


def _to_8_bit(image: Image.Image, depth: int) -> npt.NDArray[np.uint8]:
    values = np.asarray(image)
    if has_16_bits(image):
        most = (1 << depth) - 1
        used = np.minimum(values.astype(np.uint32), most)
        return ((used * 255 + most // 2) // most).astype(np.uint8)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    wide = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif image.mode == "F" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    if high == low:
        return np.zeros(values.shape, np.uint8)
    scaled = (wide - low) * (255 / (high - low))
    result: npt.NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return result


def _check_array(array: Pixels) -> None:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            f"an array must be RGB uint8 (height, width, 3), not {array.dtype} {array.shape}"
        )


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a `BadImageError` that names the file."""
    try:
        with complaints.reading(path):
            yield
    except BadImageError:
        raise
    except MemoryError as error:
        raise BadImageError({path: "too large for the memory that is left"}) from error
    except Exception as error:  # decoders raise nearly anything: struct.error, SyntaxError, …
        raise BadImageError({path: reason(error)}) from error


def reason(error: Exception) -> str:
    """A few words on why an image could not be read."""
    known = _NOT_READ.get(type(error))
    if known:
        return known
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"decompression bomb? {text.split(',')[0]}"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    if ("remature end" in text or "truncated" in text.lower()) and text[:9] != "truncated":
        return f"truncated: {text}"
    # A decoder's bare number tells nobody anything.
    return text if any(c.isalpha() for c in text) else "damaged, or cut off"
