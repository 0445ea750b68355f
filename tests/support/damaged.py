"""Image files as people have them: damaged in every way, and odd but sound. Each a name and its
content."""

from __future__ import annotations

import io
import random
import re

import numpy as np
from PIL import Image

LOSSLESS = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffc3000b080010001001011100ffc40016000101010000000000"
    "0000000000000000040008ffda0008010100010000cfe84210842108421084224210842108421084211210842108"
    "42108421089084210842108421084484210842108421084224210842108421084211210842108421084210890842"
    "10842108421084484210842108421084224210842108421084211210842108421084210890842108421084210844"
    "84210842108421084224210842108421084211210842108421084210890842108421084210847fffd9"
)
"""A JPEG with process 14, 16 × 16 grey: columns of 0, 8, 16 …"""
TWELVE_BITS = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300020101010101020101010202020202040302020202"
    "0504040304060506060605060606070908060709070606080b08090a0a0a0a0a06080b0c0b0a0c090a0a0affc100"
    "0b0c0010001001011100ffc4001400010000000000000000000000000000000dffc4001810000203000000000000"
    "00000000000000000c4785c2ffda0008010100003f001bfd6e2816b702000b7140b5b80fff005b8a05adc08002dc"
    "502d6e0fffd9"
)
"""A JPEG of 12 bits, 16 × 16 grey."""

SUFFIXES = {"JPEG2000": "jp2", "TIFF": "tif"}


def photograph(seed: int = 1, size: tuple[int, int] = (160, 128)) -> Image.Image:
    """Detail everywhere, as photographs have: its data is dense."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    noise = rng.integers(-20, 21, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """The photograph as a file of the format `kind`."""
    buffer = io.BytesIO()
    photograph().convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def with_hole(content: bytes, length: int = 200, value: bytes | None = None) -> bytes:
    """Zeros, or bytes drawn at random, in the middle."""
    middle = len(content) // 2
    hole = random.Random(1).randbytes(length) if value is None else value * length
    return content[:middle] + hole + content[middle + length :]


def cut(content: bytes, share: float = 2 / 3, end: bytes = b"") -> bytes:
    """Its first part, with `end` pasted on."""
    return content[: int(len(content) * share)] + end


def damaged() -> dict[str, bytes]:
    """Files that no decoder gets through without a complaint."""
    jpeg = encoded("JPEG", quality=90)
    progressive = encoded("JPEG", quality=90, progressive=True)
    cmyk = encoded("JPEG", "CMYK", quality=90)
    restarts = encoded("JPEG", quality=90, restart_marker_blocks=4)
    grey = encoded("JPEG", "L", quality=90)
    end = b"\xff\xd9"
    found = {
        "zeros inside.jpg": with_hole(jpeg, value=b"\0"),
        "ones inside.jpg": with_hole(jpeg, value=b"\xff"),
        "noise inside.jpg": with_hole(jpeg),
        "half.jpg": cut(jpeg, 0.5),
        "half with an end.jpg": cut(jpeg, 0.5, end),
        "half, then another.jpg": cut(jpeg, 0.5, jpeg),
        "no end.jpg": jpeg[:-2],
        "header only.jpg": jpeg[: jpeg.find(b"\xff\xda")] + end,
        "12 bits.jpg": TWELVE_BITS,
        "lossless, cut.jpg": LOSSLESS[:-20],
        "progressive noise inside.jpg": with_hole(progressive),
        "progressive half with an end.jpg": cut(progressive, 0.5, end),
        "cmyk noise inside.jpg": with_hole(cmyk),
        "cmyk half with an end.jpg": cut(cmyk, 0.5, end),
        "restarts noise inside.jpg": with_hole(restarts),
        "restarts, a part lost.jpg": restarts[: len(restarts) // 2] + restarts[-300:],
        "grey noise inside.jpg": with_hole(grey),
        "trailing and no end.jpg": jpeg[:-2] + bytes(3000),
        "noise inside.png": with_hole(encoded("PNG")),
        "noise inside.gif": with_hole(encoded("GIF")),
        "noise inside lzw.tif": with_hole(encoded("TIFF", compression="tiff_lzw")),
        "noise inside fax.tif": with_hole(encoded("TIFF", "1", compression="group4")),
        "text.jpg": b"<html>404 Not Found</html>",
        "empty.png": b"",
    }
    for kind, options in (
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {}),
        ("PPM", {}),
        ("JPEG2000", {}),
    ):
        more = " lossless" if options else ""
        found[f"two thirds{more}.{SUFFIXES.get(kind, kind.lower())}"] = cut(
            encoded(kind, **options)
        )
    return found


def odd() -> dict[str, bytes]:
    """Files that are not quite as the standards say, and whole."""
    jpeg = encoded("JPEG", quality=90)
    end = jpeg.rfind(b"\xff\xd9")
    tables = jpeg.find(b"\xff\xdb")
    motion = b"\0\0\0\x18ftypmp42" + random.Random(2).randbytes(5000)
    adobe = b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\x07"
    scan = jpeg.find(b"\xff\xda")
    whole_scan = scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    png = encoded("PNG")
    found = {
        "motion photo.jpg": jpeg + motion,
        "two pictures.jpg": jpeg + encoded("JPEG", quality=40),
        "trailing zeros.jpg": jpeg + bytes(9000),
        "padding.jpg": jpeg[:end] + bytes(7) + jpeg[end:],
        "bytes between segments.jpg": jpeg[:tables] + b"\x12\x34" + jpeg[tables:],
        "JFIF 0.00.jpg": re.sub(rb"JFIF\0..", b"JFIF\0\0\0", jpeg, count=1),
        "unknown transform.jpg": jpeg[:2] + adobe + jpeg[2:],
        "odd scan header.jpg": jpeg[: whole_scan - 3] + b"\0\0\0" + jpeg[whole_scan:],
        "all at once.jpg": re.sub(rb"JFIF\0..", b"JFIF\0\0\0", jpeg[:end], count=1)
        + bytes(7)
        + jpeg[end:]
        + motion,
        "lossless.jpg": LOSSLESS,
        "cmyk.jpg": encoded("JPEG", "CMYK"),
        "no IEND.png": png[:-12],
    }
    for kind in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM", "JPEG2000"):
        found[f"trailing.{SUFFIXES.get(kind, kind.lower())}"] = encoded(kind) + bytes(3000)
    return found
