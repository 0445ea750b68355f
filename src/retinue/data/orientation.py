"""Which way up a picture is: the one reader of that, for every format and every way in.

EXIF says it, or where that does not, XMP; Pillow's `getexif` decides the same way for the formats
that Pillow decodes. Containers that turn the picture by themselves (AVIF, HEIC) are asked first, by
their decoders.
"""

from __future__ import annotations

import re

from PIL import Image

from retinue.data.jpeg import segments

_TAG = 0x0112
_APP1 = 0xE1
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def of_jpeg(source: bytes) -> int:
    """EXIF orientation 1–8 of a JPEG, from whichever segment holds it; 1 where none does."""
    exif, xmp = b"", b""
    for segment in segments(source):
        if segment.marker != _APP1:
            continue
        if source.startswith(_EXIF, segment.start):
            exif += source[segment.start + len(_EXIF) : segment.end]  # may go over several
        elif source.startswith(_XMP, segment.start):
            xmp = source[segment.start + len(_XMP) : segment.end]
    if exif:
        held = Image.Exif()
        try:
            held.load(_EXIF + exif)
            value = held.get(_TAG)
        except Exception:  # broken metadata beside good pixels: the picture counts
            value = None
        if value is not None:
            return _valid(value)
    found = _IN_XMP.search(xmp)
    return _valid(int(found[1])) if found else 1


def of_pillow(image: Image.Image) -> int:
    """EXIF orientation 1–8 that Pillow's pixels of a loaded image still need; 1 for none."""
    try:
        return _valid(image.getexif().get(_TAG, 1))
    except Exception:  # as above
        return 1


def _valid(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
