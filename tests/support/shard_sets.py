"""Small shards of classified images, written by the formats' descriptions."""

from __future__ import annotations

import io
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
