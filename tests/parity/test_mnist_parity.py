"""The network of the MNIST quick-starts against Keras' layers."""

from __future__ import annotations

import pytest


def in_keras(keras, size, channels):
    keras.utils.clear_session()  # the numbers in its layers' names begin anew
    return keras.Sequential(
        [
            keras.layers.Input((size, size, channels)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


@pytest.mark.parametrize("size", [28, pytest.param(17, marks=pytest.mark.parity)])
def test_keras(size, references, parity):
    model = parity.randomise(in_keras(references.keras, size, 3))
    network = parity.carry_over(
        "mnist_cnn", parity.keras_state(model), num_classes=10, image_size=size
    )
    reference = parity.from_keras(model)
    assert parity.relative_error(network, reference, (size, size)) <= parity.tolerance
    # places of the map in another order
    weight = network.head.fc1.weight
    side = size - 2
    weight.data = weight.data.unflatten(1, (32, side, side)).transpose(2, 3).flatten(1)
    assert parity.relative_error(network, reference, (size, size)) > 100 * parity.tolerance
