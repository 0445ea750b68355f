"""How large images are and which way up, from their headers: of many files, at once.

What stands here is what decoding would say (`decode.Encoded`), at a hundredth of its cost for the
usual files: a few kilobytes of each are read. What is no image has no size; others say why.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from retinue.arrays import ImageSize, Read
from retinue.data import complaints, formats, jpeg, orientation
from retinue.data.decode import Encoded, naming, open_pillow, read_image
from retinue.errors import BadImageError
from retinue.files import open_file

_START = 1 << 13
_MORE = 1 << 17
_TAIL = 1 << 16
_CHUNK = 256
_TURNED = (b"EXIF", b"eXIf", b"Exif", b"rientation")
"""What stands in a file that Pillow might find an orientation in."""
_PLAIN = ("PNG", "BMP", "DIB", "GIF", "PPM", "WEBP")

Dimensions = npt.NDArray[np.int32]
"""(n, 3): width and height as stored, and the EXIF orientation 1–8; 0, 0, 1 of what is no image."""


def dimensions(
    files: Sequence[str | Path], reads: Sequence[Read | None] | None = None, workers: int = 4
) -> Dimensions:
    """Of the images in `files`, or what `reads` give for them."""
    found = np.tile(np.array([0, 0, 1], np.int32), (len(files), 1))

    def look(start: int) -> None:
        for k in range(start, min(start + _CHUNK, len(files))):
            read = None if reads is None else reads[k]
            found[k] = dimensions_of(os.fspath(files[k]), read)

    with complaints.told_once(), ThreadPoolExecutor(max(workers, 1)) as pool:
        list(pool.map(look, range(0, len(files), _CHUNK)))
    return found


def upright(found: Dimensions) -> Dimensions:
    """(n, 2) width and height once each is brought upright."""
    turned = found[:, 2:] >= 5
    return np.where(turned, found[:, [1, 0]], found[:, :2])


def dimensions_of(key: str, read: Read | None = None) -> tuple[int, int, int]:
    """Of one."""
    try:
        with complaints.reading(key):
            quick = _quickly(key) if read is None else None
        if quick is not None:
            return quick
        encoded = Encoded(read_image(key, read), path=key)
    except (BadImageError, OSError, ValueError):
        return 0, 0, 1
    return *encoded.stored_size, encoded.orientation


def header_size(source: bytes, path: str) -> ImageSize:
    """Width and height as stored, of an image called `path`: of what its header says, and nothing
    is decoded. Raises `BadImageError`."""
    with naming(path):
        if not source:
            raise ValueError("zero bytes")
        if jpeg.is_jpeg(source):
            size = jpeg.frame_size(source)
            if size is not None:
                return size
        if formats.extra_for(source[:64]) == "jxl":
            return formats.jxl_size(source)
        return open_pillow(source).size


def _quickly(path: str) -> tuple[int, int, int] | None:
    """From the file's ends; None where they do not say."""
    with open_file(path) as file:
        start = file.read(_START)
        if jpeg.is_jpeg(start):
            size = jpeg.frame_size(start)
            if size is None:
                start += file.read(_MORE)
                size = jpeg.frame_size(start)
            return None if size is None else (*size, orientation.of_jpeg(start))
        start += file.read(_MORE)
        length = os.fstat(file.fileno()).st_size
        file.seek(max(length - _TAIL, 0))
        end = file.read()
    if any(mark in part for mark in _TURNED for part in (start, end)):
        return None
    try:
        image = Image.open(BytesIO(start))
        formats.check_size(*image.size)
    except Exception:  # whatever it is, decoding it says so
        return None
    return (*image.size, 1) if image.format in _PLAIN else None
