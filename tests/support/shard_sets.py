"""Small shards of classified images, written by the formats' descriptions."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from examples import Values, example
from examples import write as write_records
from PIL import Image


def jpeg(number: int = 0, side: int = 8) -> bytes:
    """A small picture; another number, another one."""
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def slim(number: int, label: int, **more: Values) -> bytes:
    """An example as TF-Slim writes it."""
    return example(
        {
            "image/encoded": [jpeg(number)],
            "image/format": [b"png"],
            "image/class/label": [label],
            "image/height": [8],
            **more,
        }
    )


def written_up(number: int, label: int, text: bytes, **more: Values) -> bytes:
    """An example with plain names, boxes beside its class among them."""
    return example(
        {
            "image": [jpeg(number)],
            "height": [8],
            "width": [8],
            "channels": [3],
            "colorspace": [b"RGB"],
            "img_format": [b"PNG"],
            "label": [label],
            "bbox_xmin": [0.25],
            "bbox_xmax": [0.5],
            "bbox_ymin": [0.25],
            "bbox_ymax": [0.5],
            "text": [text],
            "filename": [b"%d.png" % number],
            **more,
        }
    )


def slim_shards(root: Path, *, each: int = 6, shards: int = 2, split: str = "train") -> Path:
    """`shards` files of `each` examples of two classes, with their `labels.txt`."""
    for shard in range(shards):
        numbers = range(shard * each, (shard + 1) * each)
        name = f"{split}-{shard:05d}-of-{shards:05d}"
        write_records(root / name, *(slim(n, n % 2) for n in numbers))
    (root / "labels.txt").write_text("0:lily\n1:rose & 猫/1\n", encoding="utf-8")
    return root


def flip(path: Path, at: int) -> None:
    """Another byte there."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def tar(path: Path, members: Mapping[str, bytes], *, ended: bool = True) -> Path:
    """A POSIX tar (ustar), written header by header; `ended`: with the blocks that end it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b""
    for name, data in members.items():
        head = bytearray(512)
        head[: len(name.encode())] = name.encode()
        head[100:108] = b"0000644\0"
        head[124:136] = b"%011o\0" % len(data)
        head[136:148] = b"00000000000\0"
        head[148:156] = b" " * 8
        head[156:157] = b"0"
        head[257:265] = b"ustar\00000"
        head[148:156] = b"%06o\0 " % sum(head)
        content += bytes(head) + data + bytes(-len(data) % 512)
    path.write_bytes(content + bytes(1024 * ended))
    return path
