"""Sizes and numbers of boxes that data, judging and drawing speak of."""

SMALL, LARGE = 32, 96
"""COCO's borders: sides of squares in pixels of the image, below which objects are small, and from
which on they are large."""
FINEST_STRIDE = 8
"""Pixels of the input between the finest predictions of a detector."""
MAX_BOXES = 100
"""COCO's: so many boxes of an image count, the best, unless a recipe says otherwise."""
