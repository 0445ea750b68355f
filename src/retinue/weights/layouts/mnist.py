"""Checkpoints of the network of the MNIST quick-starts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from retinue.weights.flattened import flattened
from retinue.weights.layout import Layout, Origin, Shapes, keras_origins

UNNAMED = {"stem.conv": "conv2d", "head.fc1": "dense", "head.fc": "dense_1"}
ATTRIBUTES = {"stem.conv": "conv1", "head.fc1": "d1", "head.fc": "d2"}


def keras(shapes: Shapes, *, layers: Mapping[str, str]) -> dict[str, Origin]:
    """Layers without names of their own; in a checkpoint of TensorFlow's, by the attributes of the
    quick-start's class."""
    origins = keras_origins(shapes, layers.__getitem__)
    channels = shapes["stem.conv.weight"][0]
    return {**origins, "head.fc1.weight": flattened(origins["head.fc1.weight"], channels)}


LAYOUTS = (
    Layout(
        source="keras",
        family="mnist",
        # Nothing in their names tells them from other small networks of Keras; shapes will.
        marks=("conv2d/kernel", "dense/kernel"),
        origins=partial(keras, layers=UNNAMED),
    ),
    Layout(
        source="tensorflow",
        family="mnist",
        marks=("conv1/kernel", "d1/kernel", "d2/kernel"),
        origins=partial(keras, layers=ATTRIBUTES),
    ),
)
