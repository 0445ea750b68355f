"""Anchors: the widths and heights that predictions start from."""

PUBLISHED: tuple[tuple[tuple[float, float], ...], ...] = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""Of YOLOv3 (Redmon and Farhadi, 2018), in pixels of an input of 416×416, at the strides 8, 16 and
32."""
