"""A picture is upright whatever says so, and by whichever way it comes."""

from __future__ import annotations

import io

import damaged
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from retinue.data.decode import Encoded
from retinue.data.image_check import check_image
from retinue.data.options import AugmentOptions
from retinue.data.views import EvalView, TrainView
from retinue.inference.predictor import as_sample
from retinue.sample import Preprocessing, Sample

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description {}/></rdf:RDF></x:xmpmeta>'
).format('tiff:Orientation="6"')
ELEMENT = "<rdf:Description><tiff:Orientation>6</tiff:Orientation></rdf:Description>"
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"


def exif(orientation: int | None = 6) -> bytes:
    held = Image.Exif()
    held[0x010F] = "a camera"
    if orientation is not None:
        held[0x0112] = orientation
    return held.tobytes()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def jpeg(*segments: bytes) -> bytes:
    plain = damaged.encoded("JPEG", quality=95)
    return plain[:2] + b"".join(segments) + plain[2:]


def saved(kind: str, **options: object) -> bytes:
    return damaged.encoded(kind, **options)


def png_with_xmp() -> bytes:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP)
    return saved("PNG", pnginfo=info)


def other_maker(size: int) -> bytes:
    return segment(0xE2, b"ICC_" + bytes(size))


LYING = {
    "exif": jpeg(segment(0xE1, exif())),
    "xmp only": jpeg(segment(0xE1, _XMP_HEAD + XMP.encode())),
    "xmp element": jpeg(segment(0xE1, _XMP_HEAD + ELEMENT.encode())),
    "xmp beside exif that does not say": jpeg(
        segment(0xE1, exif(None)), segment(0xE1, _XMP_HEAD + XMP.encode())
    ),
    "exif wins over xmp": jpeg(
        segment(0xE1, _XMP_HEAD + XMP.replace('"6"', '"3"').encode()), segment(0xE1, exif())
    ),
    "exif after 64 KB": jpeg(*[other_maker(60_000)] * 3, segment(0xE1, exif())),
    "exif after a comment with Exif": jpeg(
        segment(0xFE, b"see Exif\0\0II*\0 below"), segment(0xE1, exif())
    ),
    "exif after fill bytes": jpeg(b"\xff\xff" + segment(0xE1, exif())),
    "exif in two segments": jpeg(
        segment(0xE1, exif()[:30]), segment(0xE1, b"Exif\0\0" + exif()[30:])
    ),
    "cmyk": damaged.encoded("JPEG", "CMYK", exif=exif()),
    "png": saved("PNG", exif=exif()),
    "png xmp": png_with_xmp(),
    "webp": saved("WEBP", exif=exif(), lossless=True),
    "webp xmp": saved("WEBP", xmp=XMP.encode(), lossless=True),
    "tiff": saved("TIFF", exif=exif()),
    "tiff lzw": saved("TIFF", exif=exif(), compression="tiff_lzw"),
    "avif": saved("AVIF", exif=exif(), quality=95),
}
"""All say 6: a quarter turn clockwise makes them upright."""

STANDING = {
    "nothing": jpeg(),
    "exif says 1": jpeg(segment(0xE1, exif(1)), segment(0xE1, _XMP_HEAD + XMP.encode())),
    "exif of no sense": jpeg(segment(0xE1, exif(9))),
    "xmp of no sense": jpeg(segment(0xE1, _XMP_HEAD + XMP.replace('"6"', '"9"').encode())),
    "a comment": jpeg(segment(0xFE, exif())),
    "a thumbnail's": jpeg(segment(0xE2, jpeg(segment(0xE1, exif())))),
    "behind the picture": jpeg() + jpeg(segment(0xE1, exif())),
}


def upright(content: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


def seen(view: EvalView | TrainView, sample: Sample) -> np.ndarray:
    size = (80, 64)
    out = np.empty((*size, 3), np.uint8)
    view.render([sample], key=0, epoch=0, size=size, out=out)
    return out.astype(int)


@pytest.mark.parametrize("name", LYING)
def test_lying_pictures_are_turned_alike_by_every_way_in(name: str) -> None:
    content = LYING[name]
    expected = upright(content)
    assert expected.shape == (160, 128, 3)
    assert Encoded(content, path=name).size == (128, 160)
    how = Preprocessing(size=(80, 64), fit="squash", interpolation="bilinear")
    still = AugmentOptions(horizontal_flip=0)
    samples = {
        "file": Sample(name, lambda: content),
        "bytes": as_sample(content, name),
        "pillow": as_sample(Image.open(io.BytesIO(content)), name),
        "array": as_sample(expected, name),
    }
    wanted = seen(EvalView(how), samples["array"])
    for way, sample in samples.items():
        for view in (EvalView(how), TrainView(still, how, 0)):
            assert np.abs(seen(view, sample) - wanted).mean() < 6, way
    assert "EXIF-rotated" in check_image(name, lambda: content).kinds


@pytest.mark.parametrize("name", STANDING)
def test_standing_pictures_stay(name: str) -> None:
    content = STANDING[name]
    assert Encoded(content, path=name).orientation == 1
    assert upright(content).shape == (128, 160, 3)
