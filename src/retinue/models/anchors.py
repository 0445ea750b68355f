"""The boxes that published detectors start from."""

from __future__ import annotations

Anchors = tuple[tuple[tuple[float, float], ...], ...]
"""(width, height) in pixels of the network's input; per level, the finest first."""

YOLOV3_ANCHORS: Anchors = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""For strides 8, 16 and 32, of COCO's boxes at 416 × 416 (Redmon & Farhadi, 2018, section 2.3)."""
