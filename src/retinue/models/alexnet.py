"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012, "ImageNet Classification with Deep Convolutional
Neural Networks"), in the forms in which it is found.

`alexnet` is torchvision's, after Krizhevsky's later "One weird trick for parallelizing
convolutional neural networks" (2014): one tower, no normalisation. `alexnet_original` is the 2012
paper's: two towers that meet at the third convolution (grouped convolutions compute the same), and
local response normalisation. `alexnet_half` is one of the two alone, as it is taught with Keras.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from retinue.models.blocks import HiddenLayersHead, initialise, relu, require_size
from retinue.models.network import Level, Network, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.sample import Preprocessing


class Form(NamedTuple):
    """What distinguishes the forms of the network."""

    channels: tuple[int, int, int, int, int]
    """Of the five convolutions."""
    padding: tuple[int, int]
    """Zeros before the first convolution: at the top and left, at the bottom and right."""
    least: int
    """Side of the smallest image that leaves a pixel after the last pooling."""
    groups: tuple[int, int, int, int, int] = (1, 1, 1, 1, 1)
    response_norm: bool = False
    """Local response normalisation after the first two convolutions."""
    hidden: tuple[int, int] = (4096, 4096)
    dropped: tuple[bool, bool, bool] = (True, True, False)
    """Which of the three linear layers have dropout in front."""


FORMS = {
    "torchvision": Form((64, 192, 384, 256, 256), padding=(2, 2), least=63),
    # The paper says 224 × 224, but its 55 × 55 first map is that of 227 × 227 without padding.
    "original": Form(
        (96, 256, 384, 384, 256),
        padding=(0, 0),
        least=67,
        groups=(1, 2, 1, 2, 2),
        response_norm=True,
        dropped=(False, True, True),  # section 4.2: outputs of the first two linear layers
    ),
    "half": Form((48, 128, 192, 192, 128), padding=(1, 2), least=64, hidden=(2048, 2048)),
    "half_1024_128": Form((48, 128, 192, 192, 128), padding=(1, 2), least=64, hidden=(1024, 128)),
}
STEM_LEVEL, LEVELS = 3, {0: 4, 1: 5}
"""The feature levels are the pooled maps: the first layer's stride is 8 already."""


def response_norm() -> nn.Module:
    """Local response normalisation with the paper's constants (section 3.3): a / (k + α Σ a²)^β,
    the sum over 5 channels, k = 2, α = 1e-4, β = 0.75.

    torch averages over the 5 channels where the paper adds up, so its α is 5 times the paper's.
    """
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


class Layer(nn.Module):
    """Convolution, ReLU, maybe local response normalisation, maybe 3×3 max pooling with stride 2,
    whose windows overlap (section 3.4)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        kernel: int,
        stride: int = 1,
        padding: tuple[int, int],
        groups: int = 1,
        response_norm: nn.Module | None = None,
        pool: bool = False,
    ) -> None:
        super().__init__()
        before, after = padding
        even = before == after
        self.pad = nn.Identity() if even else nn.ZeroPad2d((before, after, before, after))
        self.conv = nn.Conv2d(
            in_channels, channels, kernel, stride, padding=before if even else 0, groups=groups
        )
        self.act = relu()
        self.norm = response_norm or nn.Identity()
        self.pool = nn.MaxPool2d(3, stride=2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.norm(self.act(self.conv(self.pad(x)))))
        return y


class Stem(Layer):
    """The 11×11 convolution with stride 4; images have at least `least` pixels a side."""

    def __init__(self, in_channels: int, form: Form) -> None:
        super().__init__(
            in_channels,
            form.channels[0],
            kernel=11,
            stride=4,
            padding=form.padding,
            response_norm=response_norm() if form.response_norm else None,
            pool=True,
        )
        self.least = form.least

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, self.least)
        return super().forward(x)


class AlexNet(Network):
    """`form` is one of `FORMS`.

    Images of any size from `least` pixels a side: the last map, 6 × 6 at the native size, is
    averaged on a grid of that size.
    """

    def __init__(
        self,
        *,
        form: str,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self._form = FORMS[form]
        channels, groups = self._form.channels, self._form.groups

        def layer(i: int, *, kernel: int, pool: bool = False, norm: bool = False) -> Layer:
            return Layer(
                channels[i - 1],
                channels[i],
                kernel=kernel,
                padding=(kernel // 2, kernel // 2),
                groups=groups[i],
                response_norm=response_norm() if norm else None,
                pool=pool,
            )

        self.stem = Stem(in_channels, self._form)
        conv2 = layer(1, kernel=5, norm=self._form.response_norm, pool=True)
        conv3, conv4, conv5 = (layer(i, kernel=3, pool=i == 4) for i in (2, 3, 4))
        self.stages = nn.ModuleList([nn.Sequential(conv2), nn.Sequential(conv3, conv4, conv5)])
        first, second, third = (dropout if dropped else 0.0 for dropped in self._form.dropped)
        self.head = HiddenLayersHead(
            channels[-1],
            num_classes,
            side=6,
            hidden=self._form.hidden,
            dropouts=(first, second, third),
        )
        initialise(self)

    def units(self) -> list[Unit]:
        stages = stage_units(self.stages, LEVELS)
        return [Unit("stem", self.stem, STEM_LEVEL), *stages]

    @property
    def feature_levels(self) -> list[Level]:
        """C3 to C5. All windows lie within the image and its few zeros, so that a map's sides are
        one or two pixels short of image side / stride."""
        first, second, *_, last = self._form.channels
        return [Level(3, first, 8), Level(4, second, 16), Level(5, last, 32)]


_PAPER = "Krizhevsky et al., 2012, https://papers.nips.cc/paper/4824"


def _entry(
    name: str, form: str, *, size: int, dropout: float, parameters: int, macs: int, reference: str
) -> NetworkEntry:
    return NetworkEntry(
        name=name,
        family="alexnet",
        build=partial(AlexNet, form=form, dropout=dropout),
        preprocessing=Preprocessing(
            (size, size), interpolation="bilinear", crop_fraction=size / 256
        ),
        parameters=parameters,
        macs=macs,
        paper=_PAPER,
        reference=reference,
    )


ENTRIES = [
    _entry(
        "alexnet",
        "torchvision",
        size=224,
        dropout=0.5,
        parameters=61_100_840,
        macs=714_188_480,
        reference="torchvision alexnet",
    ),
    _entry(
        "alexnet_original",
        "original",
        size=227,
        dropout=0.5,
        parameters=60_965_224,
        macs=724_406_816,
        reference="the paper; Caffe's bvlc_alexnet but for the constants of normalisation",
    ),
    _entry(
        "alexnet_half",
        "half",
        size=224,
        dropout=0.2,
        parameters=16_630_440,
        macs=311_191_824,
        reference="one tower of the paper's two, as taught with Keras",
    ),
    _entry(
        "alexnet_half_1024_128",
        "half_1024_128",
        size=224,
        dropout=0.2,
        parameters=5_925_672,
        macs=300_490_000,
        reference="the same with a lighter classifier",
    ),
]
