"""Small data sets of COCO's kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from box_sets import picture, write

CAT, DOG = {"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}


def image(number: Any, name: str = "a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 64, "height": 48, **more}


def box(number: Any, of_image: Any, of: Any, *bbox: float, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": of_image, "category_id": of, "bbox": list(bbox), **more}


def coco(
    root: Path,
    images: list[Any],
    annotations: list[Any],
    categories: list[Any] | None = None,
    *,
    name: str = "labels.json",
    below: str = "",
) -> Path:
    for entry in images:
        if isinstance(entry, dict) and "file_name" in entry:
            picture(root / below / entry["file_name"])
    text = {"images": images, "annotations": annotations, "categories": categories or [CAT, DOG]}
    return write(root / name, json.dumps(text))
