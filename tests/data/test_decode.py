"""Every kind of file comes out as the pixels that it means, or as an error that names it."""

from __future__ import annotations

import builtins
import io
import logging
import struct
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import damaged
import numpy as np
import pytest
from PIL import Image, ImageOps

from retinue.data import complaints, formats, geometry
from retinue.data.decode import Decoded, Encoded, read_bytes
from retinue.data.views import turn
from retinue.errors import BadImageError

if TYPE_CHECKING:
    from salted import SaltedFolder

salted_module = sys.modules["salted"]
picture, encoded = salted_module.picture, salted_module.encoded


def decode(
    source: bytes | np.ndarray, *, path: str, at_least: tuple[int, int] | None = None
) -> Decoded:
    return Encoded(source, path=path).decode(at_least)


def pixels(content: bytes) -> np.ndarray:
    return decode(content, path="it").image


def test_salted_files_are_read_or_named(salted: SaltedFolder) -> None:
    for path in salted.good:
        assert decode(read_bytes(path), path=str(path)).image.ndim == 3
    for path, word in salted.bad.items():
        with pytest.raises(BadImageError) as caught:
            decode(read_bytes(path), path=str(path))
        assert caught.value.reasons.keys() == {str(path)}
        assert word in caught.value.reasons[str(path)]


def test_jpeg_equals_pillow() -> None:
    content = encoded(picture(1, (50, 70)), "JPEG", quality=95)
    reference = np.asarray(Image.open(io.BytesIO(content)))
    assert np.abs(pixels(content).astype(int) - reference).max() <= 2


@pytest.mark.parametrize(("side", "shrink"), [(800, 1), (401, 1), (400, 2), (200, 4), (100, 8)])
def test_jpeg_at_the_smallest_sufficient_scale(side: int, shrink: int) -> None:
    content = encoded(picture(1, (799, 801)), "JPEG")
    result = decode(content, path="it", at_least=(min(side, 799), side))
    assert result.image.shape == (-(-799 // shrink), -(-801 // shrink), 3)
    assert result.size == (801, 799)
    assert np.array_equal(result.to_original, np.diag([shrink, shrink, 1]))


def test_wide_image_is_limited_by_its_shorter_side() -> None:
    content = encoded(picture(1, (100, 800)), "JPEG")
    assert decode(content, path="it", at_least=(60, 60)).image.shape == (100, 800, 3)


def test_what_is_needed_is_meant_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(picture(1, (800, 400)), "JPEG", exif=exif)  # upright: 400 high, 800 wide
    assert decode(content, path="it", at_least=(200, 400)).image.shape == (400, 200, 3)
    assert decode(content, path="it", at_least=(400, 200)).image.shape == (800, 400, 3)


def test_grey_jpeg_has_three_equal_channels() -> None:
    result = pixels(encoded(picture(1).convert("L"), "JPEG"))
    assert (result == result[..., :1]).all()


def test_cmyk_equals_pillow_and_is_not_inverted() -> None:
    original = Image.new("RGB", (16, 16), (220, 40, 10))
    result = pixels(encoded(original.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(result.astype(int) - (220, 40, 10)).max() < 12


def test_16_bit_grey_is_scaled_by_value() -> None:
    values = np.array([[0, 257, 128 * 257, 65535, 1000]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        result = pixels(encoded(Image.fromarray(values), kind))
        assert result[0, :, 0].tolist() == [0, 1, 128, 255, 4]


def test_float_tiff() -> None:
    unit = np.array([[0, 0.5, 1]], dtype=np.float32)
    byte = unit * 255
    wide = np.array([[-1000, 0, 1000]], dtype=np.float32)
    odd = np.array([[0, np.nan, 1]], dtype=np.float32)
    assert pixels(encoded(Image.fromarray(unit), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(encoded(Image.fromarray(byte), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(encoded(Image.fromarray(wide), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(encoded(Image.fromarray(odd), "TIFF"))[0, :, 0].tolist() == [0, 0, 255]


def test_infinities_are_the_ends_and_no_number_is_the_least() -> None:
    odd = np.array([[-np.inf, 2000, 3000, np.inf, np.nan]], dtype=np.float32)
    result = pixels(encoded(Image.fromarray(odd), "TIFF"))
    assert result[0, :, 0].tolist() == [0, 0, 255, 255, 0]
    nothing = np.full((1, 2), np.nan, dtype=np.float32)
    assert pixels(encoded(Image.fromarray(nothing), "TIFF")).max() == 0


def test_32_bit_integers_are_stretched_and_netpbms_16_bits_are_not() -> None:
    values = np.array([[0, 50, 200]], dtype=np.int32)
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 64, 255]
    deep = np.array([[0, 257, 128 * 257]], dtype=np.uint16)
    content = b"P5 3 1 65535\n" + deep.astype(">u2").tobytes()
    assert pixels(content)[0, :, 0].tolist() == [0, 1, 128]


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (255, 0, 0, 128))
    assert pixels(encoded(image, "PNG"))[0].tolist() == [[0, 0, 0], [255] * 3, [255, 127, 127]]
    grey = Image.new("LA", (1, 1), (7, 0))
    assert pixels(encoded(grey, "PNG"))[0].tolist() == [[255, 255, 255]]


def test_palette_with_alpha() -> None:
    content = salted_module.odd_files()["palette alpha.png"]
    image = Image.open(io.BytesIO(content))
    assert image.mode == "P"
    layers = np.asarray(image.convert("RGBA")).astype(float)
    alpha = layers[..., 3:] / 255
    expected = layers[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(content) - expected).max() <= 1


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(content)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(picture(3, (40, 64)), kind, exif=exif, **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    source = Encoded(content, path="it")
    result = source.decode()
    assert result.size == (upright.shape[1], upright.shape[0]) == source.size
    assert np.abs(turn(result.image, source.orientation).astype(int) - upright).max() <= 2
    shape = (upright.shape[0], upright.shape[1])
    entry = geometry.Entry(result.image, result.to_original)
    assert np.abs(geometry.render([entry], shape).astype(int) - upright).max() <= 2


def test_broken_exif_does_not_matter() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(encoded(picture(3), "JPEG", exif=exif))
    start = content.find(b"Exif\0\0") + 6
    content[start : start + 8] = b"\xff" * 8
    assert Encoded(bytes(content), path="it").orientation == 1


def test_content_counts_not_the_name() -> None:
    content = encoded(picture(5), "JPEG")
    assert np.array_equal(decode(content, path="a.png").image, decode(content, path="a.jpg").image)


def test_bomb_is_refused_at_once() -> None:
    content = salted_module.png_bomb()
    started = time.perf_counter()
    with pytest.raises(BadImageError, match="bomb"):
        decode(content, path="bomb.png")
    assert time.perf_counter() - started < 0.5


def test_jpeg_bomb_is_refused_from_its_header() -> None:
    content = bytearray(encoded(picture(5), "JPEG"))
    frame = content.find(b"\xff\xc0")
    content[frame + 5 : frame + 9] = (60_000).to_bytes(2, "big") * 2
    with pytest.raises(BadImageError, match=r"bomb.*60000 × 60000"):
        decode(bytes(content), path="it")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_anywhere(kind: str) -> None:
    content = encoded(picture(7, (80, 80)), kind)
    for cut in (0.1, 0.3, 0.6, 0.9):
        with pytest.raises(BadImageError, match="it"):
            decode(content[: int(len(content) * cut)], path="it")


def test_harmless_jpeg_warnings_are_no_errors() -> None:
    content = encoded(picture(8), "JPEG", quality=90)
    end = content.rfind(b"\xff\xd9")
    odd = content[:end] + b"\x00" * 7 + content[end:]
    assert np.abs(pixels(odd).astype(int) - pixels(content)).max() <= 2
    small = decode(odd, path="it", at_least=(16, 16))
    assert small.image.shape == (16, 16, 3)


def test_arrays_are_rgb_uint8() -> None:
    array = np.zeros((4, 5, 3), dtype=np.uint8)
    assert decode(array, path="it").size == (5, 4)
    for wrong in (np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(BadImageError, match="it"):
            decode(wrong, path="it")


def test_reading_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadImageError, match="no such file"):
        read_bytes(tmp_path / "gone.jpg")
    with pytest.raises(BadImageError, match="folder"):
        read_bytes(tmp_path)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", denied)
    with pytest.raises(BadImageError, match=r"x\.jpg.*permission denied"):
        read_bytes("x.jpg")


# --- what the preprocessing says of decoding -----------------------------------------------------


def test_background_of_transparency() -> None:
    image = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    image.putpixel((1, 0), (9, 9, 9, 0))
    content = encoded(image, "PNG")
    for background in ((255, 255, 255), (0, 0, 0), (10, 20, 30)):
        shown = Encoded(content, path="it", background=background).decode().image[0]
        assert shown.tolist() == [[255, 255, 255], list(background)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_depth_of_16_bit_grey(kind: str) -> None:
    values = np.array([[0, 16, 2048, 4095, 5000]], dtype=np.uint16)
    content = encoded(Image.fromarray(values), kind)
    source = Encoded(content, path="it", depth=12)
    assert source.decode().image[0, :, 0].tolist() == [0, 1, 128, 255, 255]
    assert source.largest == 5000
    full = Encoded(content, path="it").decode().image[0, :, 0]
    assert full.tolist() == [(v + 128) // 257 for v in values[0].tolist()]
    byte = Encoded(encoded(picture(1).convert("L"), kind), path="it", depth=12)
    assert byte.largest is None
    assert np.array_equal(byte.decode().image[..., 0], np.asarray(picture(1).convert("L")))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_images_of_one_value_are_black(mode: str) -> None:
    """Nothing is divided by nothing."""
    content = encoded(Image.new(mode, (3, 2), 700), "TIFF")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(content).max() == 0


# --- formats -------------------------------------------------------------------------------------

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
JXL = bytes.fromhex("ff0a98401009080401004400") + bytes(17)


@pytest.mark.parametrize(
    ("content", "extra", "module"), [(HEIC, "heic", "pi_heif"), (JXL, "jxl", "imagecodecs")]
)
def test_formats_of_extras_say_what_is_missing(content: bytes, extra: str, module: str) -> None:
    if formats.installed(extra):
        pytest.skip(f"{module} is installed")
    with pytest.raises(BadImageError, match=rf"pip install 'retinue\[{extra}\]'"):
        decode(content, path="photo")
    assert not formats.is_image_name(f"a.{extra}")
    names = [f"a.{extra}", f"b.{extra.upper()}", "c.jpg", "d.txt"]
    (said,) = formats.not_read(names)
    assert said.startswith(f"2 .{extra} files left out: ")
    assert f"pip install 'retinue[{extra}]'" in said


def test_size_of_jpeg_xl() -> None:
    """The first is what libjxl writes for 30 × 20 pixels."""
    assert formats.jxl_size(JXL) == (30, 20)
    assert formats.jxl_size(b"\xff\x0a" + (1 | 3 << 1 | 1 << 6).to_bytes(4, "little")) == (32, 32)
    side = (1 << 30) - 1
    huge = (0 | 3 << 1 | side << 3 | 1 << 33).to_bytes(14, "little")
    assert formats.jxl_size(b"\xff\x0a" + huge) == (side + 1, side + 1)
    box = b"\0\0\0\x0cJXL \r\n\x87\n" + (8 + len(JXL)).to_bytes(4, "big") + b"jxlc" + JXL
    assert formats.jxl_size(box) == (30, 20)
    with pytest.raises(ValueError, match="no picture"):
        formats.jxl_size(box[:12])


def test_a_cut_heic_is_refused_though_libheif_paints_it() -> None:
    whole = HEIC + (24).to_bytes(4, "big") + b"mdat" + bytes(16)
    formats._refuse_cut_boxes(whole)
    formats._refuse_cut_boxes(whole + b"trailing bytes")
    with pytest.raises(ValueError, match="truncated: 5 bytes"):
        formats._refuse_cut_boxes(whole[:-5])


def test_avif_is_read() -> None:
    assert formats.is_image_name("a.AVIF")
    content = encoded(picture(3), "AVIF", quality=95)
    assert np.abs(pixels(content).astype(int) - np.asarray(picture(3))).mean() < 6
    assert formats.extra_for(content[:64]) is None


@pytest.mark.parametrize("name", ["a.JPG ", "b.jfif", "c.JpEg", "d.tif"])
def test_names_of_images(name: str) -> None:
    assert formats.is_image_name(name)


@pytest.mark.parametrize("name", ["a.jpg_large", "b", "jpg", ".jpg", "c.jpg.txt"])
def test_names_that_are_none(name: str) -> None:
    assert not formats.is_image_name(name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_content_that_looks_like_an_image(kind: str) -> None:
    assert formats.looks_like_image(encoded(picture(1), kind)[:32])
    assert not formats.looks_like_image(b"path,label\na.jpg,cat\n"[:32])


# --- what decoders say ---------------------------------------------------------------------------


def test_warnings_of_decoders_are_told_once_and_with_the_file(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    content = damaged.encoded("TIFF", compression="tiff_lzw")
    cut = content[: len(content) * 2 // 3]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with caplog.at_level("INFO", "retinue"), complaints.told_once():
            for k in range(5):
                with pytest.raises(BadImageError):
                    decode(cut, path=f"{k}.tif")
            with pytest.warns(UserWarning, match="not a decoder's"):
                warnings.warn("not a decoder's", stacklevel=1)
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 1
    assert "'0.tif': Corrupt EXIF data" in said[0]
    assert capfd.readouterr() == ("", "")
    assert warnings.showwarning is not complaints._show


def test_what_pillow_logs_is_told_once(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """2048 samples a pixel."""
    content = damaged.encoded("TIFF", compression="tiff_lzw")
    tag = struct.pack("<HHI", 277, 3, 1)
    at = content.find(tag) + len(tag)
    odd = content[:at] + (2048).to_bytes(2, "little") + content[at + 2 :]
    with caplog.at_level("INFO", "retinue"), complaints.told_once():
        for k in range(3):
            with pytest.raises(BadImageError):
                decode(odd, path=f"{k}.tif")
    assert [r.name for r in caplog.records] == ["retinue"]
    assert "'0.tif': More samples per pixel" in caplog.text
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("PIL").propagate


@pytest.mark.parametrize("name", ["noise inside lzw.tif", "noise inside fax.tif"])
def test_libtiff_prints_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadImageError, match="damaged"):
        decode(damaged.damaged()[name], path=name)
    assert capfd.readouterr() == ("", "")
