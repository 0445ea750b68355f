"""Encoded bytes to RGB pixels: every common format, upright, and never a surprise.

What is done with the unusual, so that two programs never see two different pictures:

- Greyscale becomes three equal channels; 16-bit grey is value / 257, rounded.
- Floating-point grey within 0–1 is scaled by 255, within 0–255 taken as it is; other float and
  32-bit integer images are stretched from their least to their greatest value. What is not a number
  counts as the least one, infinities as the ends.
- Palettes are looked up; transparency is composited on white.
- CMYK (also Adobe's inverted one) goes through Pillow's conversion; colour profiles are ignored.
- Of an animation or a multi-page file, the first frame.
- EXIF orientation is not applied to the pixels: it is part of `Decoded.to_original`, so that the
  one warp that follows brings the image upright, too.
- More than 178,956,970 pixels (Pillow's limit) are refused from the header.
- A file that ends early is refused, not filled with grey.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from retinue.arrays import ImageSize, Matrix, Pixels, Read, Size
from retinue.data import geometry
from retinue.errors import BadImageError

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused; a 1 GiB RGB image has twice as many."""

EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif"),
        *(".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k"),
    }
)
"""File names that are taken for images, in lower case."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels."""

_ORIENTATION = 0x0112
_NOT_READ: dict[type[Exception], str] = {
    FileNotFoundError: "no such file",
    PermissionError: "permission denied",
    IsADirectoryError: "is a folder, not a file",
}
_HARMLESS = ("extraneous bytes", "Invalid SOS", "JFIF revision", "progression", "Adobe", "ICC")


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

    def __init__(self, source: bytes | Pixels, *, path: str) -> None:
        """Raises `BadImageError` for what is no image, or too large a one."""
        self.path = path
        self._source = source
        self._pillow: Image.Image | None = None
        self.orientation = 1
        with naming(path):
            if isinstance(source, np.ndarray):
                _check_array(source)
                height, width = source.shape[:2]
            elif not source:
                raise ValueError("zero bytes")
            elif is_jpeg(source):
                height, width = self._open_jpeg(source)
            else:
                height, width = self._open_pillow(source)
            check_size(width, height)
        self.stored_size = (width, height)
        self.size = (height, width) if self.orientation >= 5 else (width, height)

    def _open_jpeg(self, source: bytes) -> tuple[int, int]:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(source, strict=False)
        except ValueError:
            return self._open_pillow(source)
        if colours in ("CMYK", "YCCK"):
            return self._open_pillow(source)
        self.orientation = jpeg_orientation(source)
        return height, width

    def _open_pillow(self, source: bytes) -> tuple[int, int]:
        image = open_pillow(source)
        # Only now may anything be decoded: looking for a PNG's or TIFF's orientation does that.
        check_size(*image.size)
        image.load()
        self.orientation = _valid_orientation(image.getexif().get(_ORIENTATION, 1))
        self._pillow = image
        return image.height, image.width

    def decode(self, at_least: Size | None = None) -> Decoded:
        """The pixels. `at_least` (height, width) of the upright image is all that is needed: a JPEG
        is then decoded at the smallest of the scales 1, ½, ¼, ⅛ that covers it."""
        shrink = 1
        with naming(self.path):
            if isinstance(self._source, np.ndarray):
                image = self._source
            elif self._pillow is not None:
                image = to_rgb(self._pillow)
            else:
                if at_least is not None:
                    shrink = self._shrink_for(at_least)
                image = self._decode_jpeg(self._source, shrink)
        to_original = geometry.orient(self.orientation, self.stored_size)
        if shrink > 1:
            to_original = to_original @ geometry.scale(shrink)
        return Decoded(image, to_original, self.size)

    def _shrink_for(self, at_least: Size) -> int:
        need_h, need_w = at_least[::-1] if self.orientation >= 5 else at_least
        width, height = self.stored_size
        for shrink in (8, 4, 2):
            if -(-width // shrink) >= need_w and -(-height // shrink) >= need_h:
                return shrink
        return 1

    def _decode_jpeg(self, source: bytes, shrink: int) -> Pixels:
        width, height = self.stored_size
        # The least size that the decoder accepts is the exact scale, for any but tiny images.
        smaller = (-(-height // shrink), -(-width // shrink)) if shrink > 1 else (0, 0)
        try:
            image: Pixels = simplejpeg.decode_jpeg(
                source, "RGB", min_height=smaller[0], min_width=smaller[1]
            )
        except ValueError as error:
            if not any(words in str(error) for words in _HARMLESS):
                raise
            image = to_rgb(open_pillow(source))
            if shrink > 1:
                image = geometry.average(image, shrink)
        if shrink > 1 and image.shape[:2] != smaller:
            raise ValueError(f"decoded to {image.shape[:2]} instead of {smaller}")
        return image


def read_image(key: str, read: Read | None = None) -> bytes | Pixels:
    """What `read` gives; without it, the content of the file called `key`. Raises `BadImageError`
    naming `key`."""
    if read is None:
        return read_bytes(key)
    with naming(key):
        return read()


def read_bytes(path: str | Path) -> bytes:
    """The content of a file; `BadImageError` if it cannot be read."""
    with naming(str(path)), open(path, "rb") as file:
        return file.read()


def is_jpeg(source: bytes) -> bool:
    """By content, whatever the name says."""
    return source[:3] == b"\xff\xd8\xff"


def open_pillow(source: bytes) -> Image.Image:
    """The image with its header read, at its first frame."""
    image = Image.open(io.BytesIO(source))
    if getattr(image, "is_animated", False):
        image.seek(0)
    return image


def jpeg_orientation(source: bytes) -> int:
    """EXIF orientation 1–8 of a JPEG; 1 where there is none."""
    start = source.find(b"Exif\x00\x00", 0, 1 << 16)
    if start < 4 or source[start - 4 : start - 2] != b"\xff\xe1":
        return 1
    length = int.from_bytes(source[start - 2 : start], "big") - 2
    exif = Image.Exif()
    try:
        exif.load(source[start : start + length])
        return _valid_orientation(exif.get(_ORIENTATION, 1))
    except Exception:  # broken metadata beside good pixels: the picture counts
        return 1


def to_rgb(image: Image.Image) -> Pixels:
    """uint8 (height, width, 3) of any Pillow image, as the module's docstring says."""
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return np.repeat(_to_8_bit(image)[..., None], 3, axis=2)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        flat = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(flat, layers)
    return np.asarray(image.convert("RGB"))


def has_16_bits(image: Image.Image) -> bool:
    """Of one channel; Pillow has one mode for 32 bits and for netpbm's 16."""
    return image.mode.startswith("I;") or (image.mode == "I" and image.format == "PPM")


def _to_8_bit(image: Image.Image) -> npt.NDArray[np.uint8]:
    values = np.asarray(image)
    if has_16_bits(image):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    wide = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif image.mode == "F" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (wide - low) * (255 / max(high - low, np.finfo(np.float64).tiny))
    result: npt.NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return result


def _valid_orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def check_size(width: int, height: int) -> None:
    """Raises `ValueError` for images without pixels and for decompression bombs."""
    if width < 1 or height < 1:
        raise ValueError(f"has no pixels ({width} × {height})")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"decompression bomb? {width} × {height} pixels are more than {MAX_PIXELS:,}"
        )


def _check_array(array: Pixels) -> None:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            f"an array must be RGB uint8 (height, width, 3), not {array.dtype} {array.shape}"
        )


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a `BadImageError` that names the file."""
    try:
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
    text = str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"decompression bomb? {text.split(',')[0]}"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    if ("remature end" in text or "truncated" in text.lower()) and text[:9] != "truncated":
        return f"truncated: {text}"
    # A decoder's bare number tells nobody anything.
    return text if any(c.isalpha() for c in text) else "damaged, or cut off"
