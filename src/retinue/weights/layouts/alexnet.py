"""AlexNet's checkpoints."""

from __future__ import annotations

from retinue.weights.flattened import flattened
from retinue.weights.layout import (
    DIVIDED,
    Layout,
    Origin,
    Shapes,
    in_order,
    keras_origins,
    rename,
)

# Ours, and their place among torchvision's layers.
CONVOLUTIONS = {
    "stem.conv": 0,
    "stages.0.0.conv": 3,
    "stages.1.0.conv": 6,
    "stages.1.1.conv": 8,
    "stages.1.2.conv": 10,
}
LINEAR = {"head.fc6": 1, "head.fc7": 4, "head.fc": 6}


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """`features.N` and `classifier.N`, layers by position."""
    places = {"features": CONVOLUTIONS, "classifier": LINEAR}
    rules = [
        (rf"{ours}\.", f"{theirs}.{k}.")
        for theirs, layers in places.items()
        for ours, k in layers.items()
    ]
    return rename(shapes, rules)


def keras(shapes: Shapes) -> dict[str, Origin]:
    """The half-width network as it is taught: layers without names of their own, which Keras
    numbers, `conv2d` to `conv2d_4` and `dense` to `dense_2`."""
    layers = in_order({"conv2d": CONVOLUTIONS, "dense": LINEAR})
    origins = keras_origins(shapes, layers.__getitem__)
    channels = shapes["stages.1.2.conv.weight"][0]
    return {**origins, "head.fc6.weight": flattened(origins["head.fc6.weight"], channels)}


LAYOUTS = (
    Layout(
        source="torchvision",
        family="alexnet",
        marks=tuple(f"features.{k}.bias" for k in CONVOLUTIONS.values()),
        origins=torchvision,
    ),
    Layout(
        source="keras",
        family="alexnet",
        marks=(
            "conv2d/kernel",
            *(f"conv2d_{k}/kernel" for k in range(1, 5)),
            "dense/kernel",
            "dense_1/kernel",
        ),
        origins=keras,
        preprocessing=DIVIDED,
    ),
)
