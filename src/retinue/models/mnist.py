"""The network of the MNIST quick-starts: one convolution and two dense layers.

It is what TensorFlow's beginner pages train on handwritten digits of 28 × 28 pixels, grey
(`in_channels=1, num_classes=10`): the smallest network that is still convolutional.
"""

from __future__ import annotations

from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.blocks import initialise, relu
from retinue.models.network import Level, Network, Unit
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing

WIDTH, HIDDEN = 32, 128
NATIVE = 28


class Stem(nn.Module):
    """3×3 convolution without padding and ReLU: (n, 32, size − 2, size − 2)."""

    def __init__(self, in_channels: int, image_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, WIDTH, 3)
        self.act = relu()
        self.image_size = image_size

    def forward(self, x: Tensor) -> Tensor:
        size = self.image_size
        height, width = x.shape[-2:]
        if (height, width) != (size, size):
            raise UsageError(
                f"this network takes images of {size} × {size} pixels, not {height} × {width}",
                mend=f"build it with image_size={height}" if height == width else None,
            )
        y: Tensor = self.act(self.conv(x))
        return y


class Head(nn.Module):
    """Every place of the map to `HIDDEN` units, and these to logits (n, classes)."""

    def __init__(self, features: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.pool = nn.Flatten()  # what is flat already passes
        self.fc1 = nn.Linear(features, HIDDEN)
        self.act = relu()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(HIDDEN, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.dropout(self.act(self.fc1(self.pool(x)))))
        return y


class MnistCNN(Network):
    """Takes images of `image_size` × `image_size` pixels (at least 3) and no others, because its
    first dense layer sees every place of the map. It has no feature levels."""

    def __init__(
        self,
        *,
        image_size: int = NATIVE,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size < 3:
            raise UsageError(f"image_size must be at least 3, not {image_size}")
        self.stem = Stem(in_channels, image_size)
        self.head = Head(WIDTH * (image_size - 2) ** 2, num_classes, dropout=dropout)
        initialise(self)

    def units(self) -> list[Unit]:
        return [Unit("stem", self.stem)]

    @property
    def feature_levels(self) -> list[Level]:
        return []


ENTRIES = [
    NetworkEntry(
        name="mnist_cnn",
        family="mnist",
        build=MnistCNN,
        # The quick-starts divide by 255, and that is all.
        preprocessing=Preprocessing(
            (NATIVE, NATIVE),
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            interpolation="bilinear",
            crop_fraction=1.0,
        ),
        parameters=2_898_920,
        macs=3_480_960,
        paper="none; TensorFlow's quick-start for experts",
        reference="https://www.tensorflow.org/tutorials/quickstart/advanced",
    )
]
