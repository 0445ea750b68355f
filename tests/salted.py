"""A folder of images salted with what goes wrong in real ones."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("dog's", "猫 & co")


@dataclass
class SaltedFolder:
    """Two class folders with 8 plain photographs each, and the odd and the bad among them."""

    root: Path
    good: list[Path] = field(default_factory=list)
    """Everything that can be read."""
    bad: dict[Path, str] = field(default_factory=dict)
    """What cannot, with a word that the reason must contain."""


def picture(seed: int, size: tuple[int, int] = (64, 64), hue: int = 0) -> Image.Image:
    """A smooth pattern, another one for each seed, tinted by `hue` 0–2."""
    height, width = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 160, (5, 5, 3), dtype=np.uint8)
    coarse[..., hue] += 90
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file's content."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_bomb(side: int = 20_000) -> bytes:
    """A valid PNG of `side` × `side` black pixels in a few dozen kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    row = bytes(1 + (side + 7) // 8)
    pixels = zlib.compress(row * side, 1)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def odd_files() -> dict[str, bytes]:
    """Name → content of files that are unusual and must be read."""
    rgb = picture(100)
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    palette = rgb.quantize(16)
    palette.info["transparency"] = bytes([0, 128] + [255] * 14)
    frames = [picture(101).quantize(), picture(102).quantize()]
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "cmyk.jpg": encoded(picture(103).convert("CMYK"), "JPEG"),
        "palette alpha.png": encoded(palette, "PNG", transparency=palette.info["transparency"]),
        "grey16.png": encoded(Image.fromarray(ramp), "PNG"),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "rotated.jpg": encoded(picture(104, (48, 64)), "JPEG", exif=exif),
        "one pixel.png": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
        "really a jpeg.png": encoded(picture(105), "JPEG"),
        "with space.JPG": encoded(picture(106), "JPEG"),
        'it\'s "quoted".jpg': encoded(picture(107), "JPEG"),
        "new\nline.jpg": encoded(picture(108), "JPEG"),
        "中文 图像.jpeg": encoded(picture(109), "JPEG"),
    }


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Name → content and a word of the reason, of files that nobody can read."""
    jpeg = encoded(picture(110, (96, 96)), "JPEG", quality=95)
    return {
        "truncated.jpg": (jpeg[: len(jpeg) * 2 // 3], "truncated"),
        "text.jpg": (b"this is no image at all\n", "not an image"),
        "empty.jpg": (b"", "zero bytes"),
        "bomb.png": (png_bomb(), "bomb"),
    }


def build(root: Path, *, per_class: int = 8) -> SaltedFolder:
    """Writes the folder below `root` and says what is in it."""
    folder = SaltedFolder(root)
    for number, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for k in range(per_class):
            path = root / name / f"{k}.jpg"
            path.write_bytes(encoded(picture(10 * number + k, hue=number), "JPEG", quality=90))
            folder.good.append(path)
    for number, (name, content) in enumerate(odd_files().items()):
        path = root / CLASSES[number % 2] / name
        path.write_bytes(content)
        folder.good.append(path)
    for number, (name, (content, word)) in enumerate(bad_files().items()):
        path = root / CLASSES[number % 2] / name
        path.write_bytes(content)
        folder.bad[path] = word
    # The superuser may read anything; a folder in the place of a file nobody can.
    unreadable = root / CLASSES[0] / "folder.jpg"
    unreadable.mkdir()
    folder.bad[unreadable] = "folder"
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        locked = root / CLASSES[1] / "locked.jpg"
        locked.write_bytes(encoded(picture(111), "JPEG"))
        locked.chmod(0)
        folder.bad[locked] = "permission"
    return folder
