"""Makes `write_ups.zip`: files as the code of four write-ups saves them, of narrow networks.

Needs TensorFlow and tf-keras (`pip install tensorflow-cpu tf-keras`, nothing of which is needed to
read the files): `TF_USE_LEGACY_KERAS=1 python make_write_ups.py write_ups.zip`. Beside each there
is `NAME.npy`: the probabilities that TensorFlow answers for `picture(SIDE)`.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf  # type: ignore[import-not-found]

L, keras = tf.keras.layers, tf.keras
RNG = np.random.default_rng(0)
CLASSES = 5


def picture(side):
    """(1, side, side, 3), the same on every machine."""
    values = np.sin(0.7 * np.arange(side * side * 3) ** 1.1)
    return values.astype(np.float32).reshape(1, side, side, 3)


def randomise(model):
    """Numbers of few digits, so that they pack well; no branch and no statistic is trivial."""
    for variable in model.weights:
        shape = tuple(variable.shape)
        if "variance" in variable.name or "gamma" in variable.name:
            drawn = RNG.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            depthwise = "depthwise" in variable.name
            fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
            drawn = RNG.normal(0, (1.5 / fan_in) ** 0.5, shape)
        else:
            drawn = RNG.normal(0, 0.2, shape)
        variable.assign(np.round(drawn * 64) / 64)


def alexnet():
    """The functional form; `ZeroPadding2D(((1, 2), (1, 2)))` before the first convolution."""
    inputs = L.Input((224, 224, 3))
    x = L.ZeroPadding2D(((1, 2), (1, 2)))(inputs)
    x = L.Conv2D(8, 11, 4, activation="relu")(x)
    x = L.MaxPool2D(3, 2)(x)
    x = L.MaxPool2D(3, 2)(L.Conv2D(8, 5, padding="same", activation="relu")(x))
    for width in (12, 12, 8):
        x = L.Conv2D(width, 3, padding="same", activation="relu")(x)
    x = L.Flatten()(L.MaxPool2D(3, 2)(x))
    for width in (16, 12):
        x = L.Dense(width, activation="relu")(L.Dropout(0.2)(x))
    return keras.Model(inputs, L.Softmax()(L.Dense(CLASSES)(x)))


def vgg():
    """Configuration A, its features a model within the model."""
    layers = []
    for width, repeats in zip((4, 4, 6, 6, 4), (1, 1, 2, 2, 2), strict=True):
        layers += [L.Conv2D(width, 3, padding="SAME", activation="relu") for _ in range(repeats)]
        layers.append(L.MaxPool2D(2, 2))
    inputs = L.Input((224, 224, 3))
    x = L.Flatten()(keras.Sequential(layers, name="feature")(inputs))
    for width in (8, 6):
        x = L.Dense(width, activation="relu")(L.Dropout(0.5)(x))
    return keras.Model(inputs, L.Softmax()(L.Dense(CLASSES)(x)))


class Bottleneck(L.Layer):
    """A layer of layers, which a checkpoint names by the attributes."""

    def __init__(self, width, stride, downsample, **keywords):
        super().__init__(**keywords)

        def norm(name):
            return L.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}/BatchNorm")

        self.conv1 = L.Conv2D(width, 1, use_bias=False, name="conv1")
        self.bn1 = norm("conv1")
        self.conv2 = L.Conv2D(width, 3, stride, "SAME", use_bias=False, name="conv2")
        self.bn2 = norm("conv2")
        self.conv3 = L.Conv2D(4 * width, 1, use_bias=False, name="conv3")
        self.bn3 = norm("conv3")
        self.downsample = downsample

    def call(self, inputs, training=False):
        x = tf.nn.relu(self.bn1(self.conv1(inputs), training=training))
        x = tf.nn.relu(self.bn2(self.conv2(x), training=training))
        x = self.bn3(self.conv3(x), training=training)
        return tf.nn.relu(x + (inputs if self.downsample is None else self.downsample(inputs)))


def resnet(top=False):
    """Stages of 2, 1, 1 and 1 bottlenecks."""
    inputs = L.Input((70, 70, 3))
    x = L.Conv2D(64, 7, 2, "SAME", use_bias=False, name="conv1")(inputs)
    x = L.ReLU()(L.BatchNormalization(momentum=0.9, epsilon=1e-5, name="conv1/BatchNorm")(x))
    x = L.MaxPool2D(3, 2, "SAME")(x)
    for k, (width, repeats) in enumerate(zip((2, 3, 4, 5), (2, 1, 1, 1), strict=True)):
        stride = 1 if k == 0 else 2
        down = keras.Sequential(
            [
                L.Conv2D(4 * width, 1, stride, use_bias=False, name="conv1"),
                L.BatchNormalization(momentum=0.9, epsilon=1e-5, name="BatchNorm"),
            ],
            name="shortcut",
        )
        units = [Bottleneck(width, stride, down, name="unit_1")]
        units += [Bottleneck(width, 1, None, name=f"unit_{i}") for i in range(2, repeats + 1)]
        x = keras.Sequential(units, name=f"block{k + 1}")(x)
    if top:
        x = L.Softmax()(L.Dense(CLASSES, name="logits")(L.GlobalAvgPool2D()(x)))
    return keras.Model(inputs, x)


def with_hidden_layer(feature):
    """The frozen network, and what is trained on it."""
    feature.trainable = False
    head = [L.GlobalAvgPool2D(), L.Dropout(0.5), L.Dense(7, activation="relu"), L.Dropout(0.5)]
    return keras.Sequential([feature, *head, L.Dense(CLASSES), L.Softmax()])


def xception():
    """Two of the eight middle blocks, narrow; a gated unit and two classifiers; class centres."""

    def conv(x, width, name, stride=1):
        x = L.Conv2D(width, 3, stride, use_bias=False, name=name)(x)
        return L.ReLU()(L.BatchNormalization(name=f"{name}_bn")(x))

    def separable(x, width, name):
        x = L.SeparableConv2D(width, 3, padding="same", use_bias=False, name=name)(x)
        return L.BatchNormalization(name=f"{name}_bn")(x)

    picture_ = L.Input((71, 71, 3))
    x = conv(conv(picture_, 32, "block1_conv1", 2), 64, "block1_conv2")

    def halving(x, widths, number):
        shortcut = L.BatchNormalization()(L.Conv2D(widths[1], 1, 2, "same", use_bias=False)(x))
        for k, width in enumerate(widths, start=1):
            if number > 2 or k > 1:
                x = L.ReLU()(x)
            x = separable(x, width, f"block{number}_sepconv{k}")
        return L.MaxPool2D(3, 2, "same")(x) + shortcut

    for number, width in ((2, 6), (3, 7), (4, 8)):
        x = halving(x, (width, width), number)
    for number in (5, 6):
        before = x
        for k in (1, 2, 3):
            x = separable(L.ReLU()(x), 8, f"block{number}_sepconv{k}")
        x = x + before
    x = halving(x, (8, 9), 13)
    for k, width in ((1, 10), (2, 12)):
        x = L.ReLU()(separable(x, width, f"block14_sepconv{k}"))
    pooled = L.GlobalAvgPool2D()(x)
    feature = L.Dense(3)(pooled) * L.Dense(3, activation="sigmoid")(pooled)
    main = L.Dense(CLASSES, activation="softmax", name="softmax")(feature)
    auxiliary = L.Dense(CLASSES, activation="softmax", name="auxiliary")(pooled)
    label = L.Input((1,))
    distance = tf.reduce_sum((feature - L.Embedding(CLASSES, 3)(label)[:, 0]) ** 2, 1)
    return keras.Model([picture_, label], [main, distance, auxiliary])


def efficientnet():
    """One block a stage, a tenth as wide, as one write-up builds it: expanding in every stage."""

    def conv(x, width, kernel=1, stride=1, norm=True, act=tf.nn.swish):
        x = L.Conv2D(width, kernel, stride, "same", use_bias=not norm)(x)
        return act(L.BatchNormalization()(x) if norm else x)

    inputs = L.Input((40, 40, 3))
    x = conv(inputs, 8, 3, 2)
    rows = ((1, 8, 1, 3), (6, 8, 2, 3), (6, 8, 2, 5), (6, 8, 2, 3), (6, 16, 1, 5), (6, 24, 2, 5),
            (6, 32, 1, 3))  # fmt: skip
    for expansion, width, stride, kernel in rows:
        channels, before = x.shape[-1], x
        x = conv(x, channels * expansion)
        x = L.DepthwiseConv2D(kernel, stride, "same", use_bias=False)(x)
        x = tf.nn.swish(L.BatchNormalization()(x))
        weights = conv(tf.reduce_mean(x, [1, 2], keepdims=True), channels // 4, norm=False)
        x = x * conv(weights, channels * expansion, norm=False, act=tf.nn.sigmoid)
        x = conv(x, width, act=tf.identity)
        if stride == 1 and channels == width:
            x = x + before
    x = tf.reduce_mean(conv(x, 128), [1, 2])
    return keras.Model(inputs, L.Dense(CLASSES, name="output")(L.Dropout(0.2)(x)))


def by_name(model):
    """Saves the tensors of `resnet(top=True)` by names, as a course turns those of TF-Slim."""
    stem, norm, *blocks, logits = (layer for layer in model.layers if layer.weights)
    layers = {"conv1": stem, "conv1/BatchNorm": norm, "logits": logits}
    for k, block in enumerate(blocks, start=1):
        for i, unit in enumerate(block.layers, start=1):
            at = f"block{k}/unit_{i}"
            for j in (1, 2, 3):
                layers[f"{at}/conv{j}"] = getattr(unit, f"conv{j}")
                layers[f"{at}/conv{j}/BatchNorm"] = getattr(unit, f"bn{j}")
            if unit.downsample is not None:
                conv, norm = unit.downsample.layers
                layers |= {f"{at}/shortcut/conv1": conv, f"{at}/shortcut/BatchNorm": norm}
    parts = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    return tf.compat.v1.train.Saver({
        f"{name}/{part}": variable for name, layer in layers.items() for part in parts
        if (variable := getattr(layer, part, None)) is not None
    })  # fmt: skip


class QuickStart(keras.Model):
    """MNIST's: one convolution, two dense layers, by attributes."""

    def __init__(self):
        super().__init__()
        self.conv1 = L.Conv2D(32, 3, activation="relu")
        self.d1 = L.Dense(128, activation="relu")
        self.d2 = L.Dense(CLASSES, activation="softmax")

    def call(self, x):
        return self.d2(self.d1(L.Flatten()(self.conv1(x))))


def main(target):
    """Everything into one archive."""
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = {
            "myAlex.h5": (alexnet(), 224),
            "myVGG.h5": (vgg(), 224),
            "epoch_3.h5": (efficientnet(), 40),
            "main_29_8165_8075_8165_10000.model": (xception(), 71),
            "resNet_50.ckpt": (with_hidden_layer(resnet()), 70),
            "whole.ckpt": (resnet(top=True), 70),
            "quick_start.ckpt": (QuickStart(), 4),
        }
        for file, (model, side) in made.items():
            if not model.built:
                model(picture(side))
            randomise(model)
            if file.startswith("epoch"):
                model.compile("sgd", "mse")  # a whole model, as ModelCheckpoint saves it
                model.save(folder / file)
            elif file.endswith(".ckpt"):
                model.save_weights(folder / file, save_format="tf")
            else:
                model.save_weights(folder / file, save_format="h5")
            given = picture(side)
            answer = model([given, np.zeros((1, 1))] if file.startswith("main") else given)
            answers = [answer[0], answer[2]] if file.startswith("main") else [answer]
            np.save(folder / f"{file}.npy", np.stack([a.numpy()[0] for a in answers]))
        made["myAlex.h5"][0].save_weights(folder / "myAlex.ckpt", save_format="tf")
        by_name(made["whole.ckpt"][0]).save(None, str(folder / "pretrain_weights.ckpt"),
                                            write_meta_graph=False, write_state=False)  # fmt: skip
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for file in sorted(folder.iterdir()):
                info = zipfile.ZipInfo(file.name)  # without the time, so that it is made again
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, file.read_bytes())


if __name__ == "__main__":
    main(sys.argv[1])
