"""Text for pictures, in any script for which this machine has a font.

OpenCV draws ASCII only, so Pillow draws: with DejaVu Sans, which comes with matplotlib and covers
Latin, Greek, Cyrillic, Arabic and more; for what it lacks (Chinese, Japanese, Korean …) with a font
of the system, where one of the usual ones is installed; and what no font covers is written as its
code point, `\\u82b1`, rather than as an empty box.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from retinue.text import visible

_SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "NotoSansSC-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "simsun.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "Arial Unicode.ttf",
)
_UNASSIGNED = "\U0010fffe"
"""A code point without a glyph in any font: shows what a font draws for what it lacks."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def fit(text: str, size: int, width: float) -> tuple[str, Font]:
    """`text` as far as it fits into `width` pixels, with an ellipsis where it is cut, on one line,
    and the font of `size` pixels to draw it with."""
    text = visible(text)
    font = _font_for(text, size)
    if isinstance(font, ImageFont.FreeTypeFont):
        text = "".join(ch if _has(font, ch) else _escape(ch) for ch in text)
    else:
        text = "".join(ch if ord(ch) < 128 else _escape(ch) for ch in text)
    if font.getlength(text) <= width:
        return text, font
    mark = "…" if isinstance(font, ImageFont.FreeTypeFont) else "..."
    while text and font.getlength(text + mark) > width:
        text = text[:-1]
    return text + mark, font


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def _font_for(text: str, size: int) -> Font:
    """The first font that has every character, else the one that lacks the fewest."""
    fonts = [font for path in _font_files() if (font := _load(path, size)) is not None]
    if not fonts:
        return ImageFont.load_default()
    return min(fonts, key=lambda font: sum(not _has(font, ch) for ch in set(text)))


@lru_cache(maxsize=1)
def _font_files() -> tuple[str, ...]:
    found = importlib.util.find_spec("matplotlib")  # located, not imported
    first = []
    if found is not None and found.origin is not None:
        dejavu = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        first = [str(dejavu)] if dejavu.is_file() else []
    return (*first, *_SYSTEM_FONTS)


@lru_cache(maxsize=64)
def _load(path: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(path, size)  # looks in the system's font folders, too
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    if character.isspace():
        return True
    return bytes(font.getmask(character)) != bytes(font.getmask(_UNASSIGNED))
