"""Photographs on the page: small, upright, as `data:` addresses.

They are read from where the data lies. Images that lie in no file of their own (of a shard, say)
are kept small beside the predictions, as far as the page shows them: `pictures.parquet`. So are
pictures of what an answer rests on: `overlays.parquet`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinue.arrays import Pixels, Read
from retinue.errors import RetinueError
from retinue.page.record import RunRecord
from retinue.text import utf8

if TYPE_CHECKING:
    import pyarrow as pa

PICTURES = "pictures.parquet"
OVERLAYS = "overlays.parquet"
KEPT = 768
"""The longer side in pixels of images that are kept."""


def thumbnail(
    path: str, record: RunRecord, side: int = 240, change: Callable[[Any], Any] | None = None
) -> tuple[str | None, str]:
    """(`data:` address, "") of an image of the run, or (None, why there is no picture). `change`:
    makes another Pillow image of the upright one, whose longer side is at most `side` pixels."""
    found = _find(path, record)
    source = record.derived(_kept).get(path)
    if found is None and source is None:
        record.derived(_lacking)[path] = None
        return None, "file not found"
    try:
        from retinue.data import decode

        image = small(source or decode.read_bytes(str(found)), side, path)
        return data_address(image if change is None else change(image)), ""
    except Exception as error:  # a picture is a comfort: the page goes on without it
        return None, f"cannot be read: {error}"


def lacking(record: RunRecord, builders: Iterable[Callable[[RunRecord], object]]) -> list[str]:
    """The images that the sections made by `builders` show, and that are found nowhere."""
    for build in builders:
        with suppress(Exception):  # which is told where the page is made
            build(record)
    return list(record.derived(_lacking))


def _lacking(record: RunRecord) -> dict[str, None]:
    return {}


def picture(content: bytes, *, most: int, quality: int = 82) -> str:
    """An image file as a `data:` address of a JPEG whose longer side is at most `most` pixels."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        shrunk = image.convert("RGB")
    shrunk.thumbnail((most, most))
    return data_address(shrunk, quality)


def cut(content: bytes, box: tuple[int, int, int, int], *, quality: int = 82) -> str:
    """The part `box` (left, top, right, bottom) of an image file as a `data:` address of a JPEG."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        left, top, right, bottom = box
        if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
            raise ValueError(f"there is no part {box} of {image.width} × {image.height} pixels")
        return data_address(image.crop(box).convert("RGB"), quality)


def data_address(image: Any, quality: int = 82) -> str:
    """A Pillow image as a `data:` address."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return _address(buffer.getvalue())


def overlay(path: str, name: str, record: RunRecord) -> str | None:
    """The `data:` address of the picture that shows what the answer `name` for an image of the run
    rests on; None where none was kept, as in runs of older versions."""
    content = record.derived(_overlays).get((path, name))
    return None if content is None else _address(content)


def _address(content: bytes) -> str:
    """Of a JPEG file."""
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def small(source: bytes | Pixels, side: int, path: str = "") -> Any:
    """A Pillow image, upright, whose longer side is at most `side` pixels; `path`: what the source
    is called where it is broken."""
    from PIL import Image

    from retinue.data import decode, geometry

    encoded = decode.Encoded(source, path=path)
    width, height = encoded.size
    ratio = min(1.0, side / max(width, height))
    size = max(1, round(height * ratio)), max(1, round(width * ratio))
    decoded = encoded.decode(at_least=size)
    matrix = geometry.scale(size[1] / width, size[0] / height) @ decoded.to_original
    entry = geometry.Entry(decoded.image, matrix)
    return Image.fromarray(geometry.render([entry], size, border="reflect"))


def pictures_table(reads: Mapping[str, Read], side: int = KEPT) -> pa.Table:
    """`pictures.parquet`: the images that `reads` gives, by path, as JPEG files (`image`) whose
    longer side is at most `side` pixels. What cannot be read has no row."""
    import pyarrow as pa

    paths, images = [], []
    for path, read in reads.items():
        try:
            picture = small(read(), side, path)
        except (OSError, RetinueError):
            continue
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=90)
        paths.append(utf8(path))
        images.append(buffer.getvalue())
    return pa.table({"path": pa.array(paths, pa.string()), "image": pa.array(images, pa.binary())})


def overlays_table(pictures: Mapping[tuple[str, str], Any]) -> pa.Table:
    """`overlays.parquet`: Pillow images by the path of what they show and the name of the class
    that is asked for, as JPEG files (`image`)."""
    import pyarrow as pa

    images = []
    for image in pictures.values():
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=82, optimize=True)
        images.append(buffer.getvalue())
    return pa.table(
        {
            "path": pa.array([utf8(path) for path, _ in pictures], pa.string()),
            "target": pa.array([utf8(name) for _, name in pictures], pa.string()),
            "image": pa.array(images, pa.binary()),
        }
    )


def _overlays(record: RunRecord) -> dict[tuple[str, str], bytes]:
    """(path, class) → JPEG of those in `overlays.parquet`."""
    table = record.table(OVERLAYS)
    if table is None or not {"path", "target", "image"} <= set(table.column_names):
        return {}
    path, target, image = (table[name].to_pylist() for name in ("path", "target", "image"))
    return dict(zip(zip(path, target, strict=True), image, strict=True))


def _kept(record: RunRecord) -> dict[str, bytes]:
    """Path → JPEG of those in `pictures.parquet`."""
    table = record.table(PICTURES)
    if table is None or not {"path", "image"} <= set(table.column_names):
        return {}
    return dict(zip(table["path"].to_pylist(), table["image"].to_pylist(), strict=True))


def _find(path: str, record: RunRecord) -> Path | None:
    for root in (Path(), *record.data_roots):
        try:
            candidate = root / path
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):  # too long a name, a zero byte
            return None
    return None
