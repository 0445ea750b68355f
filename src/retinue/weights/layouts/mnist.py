"""Checkpoints of the network of the MNIST quick-starts."""

from __future__ import annotations

from retinue.weights.flattened import flattened
from retinue.weights.layout import Layout, Origin, Shapes, keras_origins

LAYERS = {"stem.conv": "conv2d", "head.fc1": "dense", "head.fc": "dense_1"}


def keras(shapes: Shapes) -> dict[str, Origin]:
    """Layers without names of their own: `conv2d`, `dense`, `dense_1`."""
    origins = keras_origins(shapes, LAYERS.__getitem__)
    channels = shapes["stem.conv.weight"][0]
    return {**origins, "head.fc1.weight": flattened(origins["head.fc1.weight"], channels)}


LAYOUTS = (
    Layout(
        source="keras",
        family="mnist",
        # Nothing in their names tells them from other small networks of Keras; shapes will.
        marks=("conv2d/kernel", "dense/kernel"),
        origins=keras,
    ),
)
