"""Which files are images: by their names, by their content, and what those need that only an extra
of the package reads."""

from __future__ import annotations

import importlib.util
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from retinue.text import counted

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused; a 1 GiB RGB image has twice as many."""

EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".avifs", ".gif"),
        *(".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k"),
    }
)
"""File names that are taken for images, in lower case."""

EXTRAS = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "heic"),
    **dict.fromkeys((".jxl",), "jxl"),
}
"""Extensions of images that an extra of the package reads: `pip install 'retinue[heic]'`."""

_MODULES = {"heic": "pi_heif", "jxl": "imagecodecs"}
_NAMES = {"heic": "HEIC", "jxl": "JPEG XL"}
_HEIF = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_JXL = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
_HEADS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"BM"),
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
)


def suffix_of(name: str) -> str:
    """The extension, in lower case, blanks around it put aside: `.jpg` of `a.JPG `."""
    return os.path.splitext(name.strip())[1].lower()


def installed(extra: str) -> bool:
    """Whether what the extra brings is there; nothing is imported."""
    return importlib.util.find_spec(_MODULES[extra]) is not None


def is_image_name(name: str) -> bool:
    """By its extension, in any case; those of extras where they are installed."""
    suffix = suffix_of(name)
    return suffix in EXTENSIONS or (suffix in EXTRAS and installed(EXTRAS[suffix]))


def meant_as_image(name: str) -> bool:
    """The same whether the extra is installed or not, for where it is told what each lacks."""
    return suffix_of(name) in EXTENSIONS or suffix_of(name) in EXTRAS


def looks_like_image(head: bytes) -> bool:
    """By the first 32 bytes: an image of a usual format, whatever its name."""
    if head.startswith(_HEADS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    return head[4:12] in (b"ftypavif", b"ftypavis") or extra_for(head) is not None


def extra_for(head: bytes) -> str | None:
    """The extra that reads an image which begins so; None: none is needed."""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF and b"avif" not in head[8:64]:
        return "heic"
    return "jxl" if head.startswith(_JXL) else None


def not_read(names: Iterable[str]) -> list[str]:
    """What to say of files among `names` that are images of a format whose extra is not installed:
    the suffix, how many, and what to install."""
    counts = Counter(map(suffix_of, names))
    return [
        f"{counted(count, f'{suffix} file')} left out: {needs(extra)}"
        for suffix, count in sorted(counts.items())
        if (extra := EXTRAS.get(suffix)) is not None and not installed(extra)
    ]


def needs(extra: str) -> str:
    """What to say of an image that is read by an extra which is not installed."""
    return f"{_NAMES[extra]} needs pip install 'retinue[{extra}]'"


def check_size(width: int, height: int) -> None:
    """Raises `ValueError` for images without pixels and for decompression bombs."""
    if width < 1 or height < 1:
        raise ValueError(f"has no pixels ({width} × {height})")
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"decompression bomb? {width} × {height} pixels are more than {MAX_PIXELS:,}"
        )


def open_with_extra(source: bytes, extra: str) -> Image.Image:
    """The image, upright as its container says. Raises `ValueError` where the extra is absent."""
    if not installed(extra):
        raise ValueError(needs(extra))
    if extra == "heic":
        import pi_heif

        _refuse_cut_boxes(source)
        opened: Image.Image = pi_heif.HeifImageFile(io.BytesIO(source))
        return opened
    import imagecodecs

    check_size(*jxl_size(source))
    values = np.asarray(imagecodecs.jpegxl_decode(source))
    if values.ndim == 4:  # of an animation, the first frame
        values = values[0]
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype == np.uint16 and values.ndim == 3:
        values = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif values.dtype.kind == "f":
        values = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(values)


def _boxes(source: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of its content, end) of each box on the top level of an ISO media file."""
    at = 0
    while at + 8 <= len(source):
        length, kind = int.from_bytes(source[at : at + 4], "big"), source[at + 4 : at + 8]
        start = at + 8
        if length == 1:
            length, start = int.from_bytes(source[at + 8 : at + 16], "big"), at + 16
        end = at + length if length else len(source)
        if end < start:
            return
        yield kind, start, end
        at = end


def _refuse_cut_boxes(source: bytes) -> None:
    """libheif paints what it has and leaves out the tiles that it lacks."""
    for kind, _, end in _boxes(source):
        if kind in (b"ftyp", b"meta", b"mdat") and end > len(source):
            raise ValueError(f"truncated: {end - len(source)} bytes are missing")


_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jxl_size(source: bytes) -> tuple[int, int]:
    """Width and height that a JPEG XL says it has (ISO/IEC 18181-1, SizeHeader). Raises
    `ValueError`."""
    if not source.startswith(_JXL[0]):
        skipped = {b"jxlc": 0, b"jxlp": 4}
        starts = [start + skipped[kind] for kind, start, _ in _boxes(source) if kind in skipped]
        if not starts:
            raise ValueError("damaged: no picture in it")
        source = source[starts[0] :]
    bits, at = int.from_bytes(source[2:16], "little"), 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return (bits >> (at - count)) & ((1 << count) - 1)

    in_eights = read(1)

    def side() -> int:
        return (1 + read(5)) * 8 if in_eights else 1 + read((9, 13, 18, 30)[read(2)])

    height = side()
    ratio = read(3)
    if ratio == 0:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height
