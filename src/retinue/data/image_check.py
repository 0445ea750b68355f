"""One image file, looked at closely: what kind it is, what is unusual, and its fingerprints."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from retinue.data import orientation
from retinue.data.decode import Encoded, has_16_bits, naming, open_pillow, read_image
from retinue.data.views import turn
from retinue.errors import BadImageError
from retinue.sample import Pixels, Read

TINY = 32
"""Images with a side below this many pixels are remarked on."""

THUMBNAIL = 32
_FLAT = 3.0
_SEEN = 2.0
_SCALE = (128, 128)
_SAME_CONTENT = {"MPO": "JPEG", "JPEG2000": "JPEG2000", "DIB": "BMP"}


@dataclass(slots=True)
class ImageCheck:
    """What is known of one file."""

    path: str
    error: str | None = None
    """Why it cannot be read."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the upright image."""
    kinds: list[str] = field(default_factory=list)
    """What is unusual about it: keys of `HANDLING`."""
    digest: bytes = b""
    """16 bytes of the file's bytes."""
    dhash: int | None = None
    """64 bits, near for images that look alike; none for images without any structure."""
    largest: int | None = None
    """Of the values of 16-bit grey."""


HANDLING = {
    "wrong extension": "read by their content",
    "greyscale": "become three equal channels",
    "CMYK": "converted to RGB",
    "palette": "looked up",
    "transparent": "composited on white, or what input.background says",
    "nothing to see on white": "what shows is as white as its background: set"
    " input.background=black",
    "16 bits": "scaled to 8 by value",
    "32 bits": "stretched from their least to their greatest value",
    "floating point": "scaled to 8 bits: 0–1 or 0–255 by value, others stretched",
    "animated": "the first frame is used",
    "EXIF-rotated": "brought upright",
    "tiny": f"a side below {TINY} pixels: enlarged, expect little",
}
"""What is unusual, and what is done with it."""


def check_image(path: str, read: Read | None = None) -> ImageCheck:
    """Reads and fully decodes the file, or what `read` gives; errors are part of the answer."""
    found = ImageCheck(path)
    try:
        source = read_image(path, read)
        content = source if isinstance(source, bytes) else source.tobytes()
        found.digest = hashlib.blake2b(content, digest_size=16).digest()
        # The whole file is decoded at any scale; a small one is enough for the fingerprints.
        encoded = Encoded(source, path=path)
        image = turn(encoded.decode(_SCALE).image, encoded.orientation)
        with naming(path):
            found.kinds = _kinds(source, path, encoded, image)
            found.largest = encoded.largest
            found.dhash = _fingerprint(image)
    except BadImageError as error:
        found.error = next(iter(error.reasons.values()))
        return found
    found.size = encoded.size
    return found


def thumbnail(path: str, read: Read | None = None) -> npt.NDArray[np.uint8]:
    """Luma, uint8 (32, 32), of what `check_image` has found to be sound; black if it is not any
    more."""
    try:
        encoded = Encoded(read_image(path, read), path=path)
        return _small(turn(encoded.decode(_SCALE).image, encoded.orientation))
    except BadImageError:
        return np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)


def _kinds(source: bytes | Pixels, path: str, encoded: Encoded, seen: Pixels) -> list[str]:
    tiny = min(encoded.size) < TINY
    if not isinstance(source, bytes):
        return ["tiny"] if tiny else []
    image = open_pillow(source)
    kinds = {
        "wrong extension": _wrong_extension(image, path),
        "greyscale": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
        "CMYK": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
        "transparent": image.has_transparency_data,
        "nothing to see on white": image.has_transparency_data and _hidden(image, seen),
        "16 bits": has_16_bits(image) or (image.format == "PNG" and source[24] == 16),
        "32 bits": image.mode == "I" and not has_16_bits(image),
        "floating point": image.mode == "F",
        "animated": getattr(image, "n_frames", 1) > 1 and image.format != "MPO",
        # Pillow turns some formats by itself once they are decoded; this one is not.
        "EXIF-rotated": max(encoded.orientation, orientation.of_pillow(image)) != 1,
        "tiny": tiny,
    }
    return [kind for kind, is_so in kinds.items() if is_so]


def _wrong_extension(image: Image.Image, path: str) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    meant = Image.registered_extensions().get(suffix)
    content = image.format or ""
    return bool(suffix) and _SAME_CONTENT.get(content, content) != _SAME_CONTENT.get(
        meant or "", meant
    )


def _hidden(image: Image.Image, seen: Pixels) -> bool:
    """Whether something opaque is there, and nothing shows on white."""
    if float(seen.min()) < 255 - _SEEN:
        return False
    layers = image.convert("RGBA")
    least, most = layers.getchannel("A").getextrema()
    return least != most  # what is wholly transparent has nothing to show anywhere


def _small(image: Pixels) -> npt.NDArray[np.uint8]:
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def _fingerprint(image: Pixels) -> int | None:
    if _small(image).std() < _FLAT:
        return None  # all plain images would look alike
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    rows = cv2.resize(luma, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.packbits((rows[:, 1:] > rows[:, :-1]).ravel())
    return int.from_bytes(bits.tobytes(), "big")
