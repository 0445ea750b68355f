"""The hybrid Vision Transformer (Dosovitskiy et al., 2020, section 3.1): a ResNet's map as tokens.

The ResNet is Big Transfer's (Kolesnikov et al., 2019) with the blocks in their first order:
convolutions with standardised weights, GroupNorm, TensorFlow's SAME padding, and the fourth
stage's blocks moved into the third, so that it ends at stride 16 (appendix B.2).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from retinue.models.blocks import Activation, SameConv2d, SameMaxPool2d, relu
from retinue.models.network import Level, Unit, stage_units
from retinue.models.registry import NetworkEntry
from retinue.models.transformer import (
    Embedding,
    TokenHead,
    Transformer,
    at_least_float32,
    encoder,
    initialise_transformer,
)
from retinue.sample import Preprocessing

DEPTHS = (3, 4, 9)
WIDTHS = (256, 512, 1024)
LEVELS = {0: 2, 1: 3}
"""Which stage ends which feature level; at stride 16 the tokens do."""


class StdConv2d(SameConv2d):
    """A convolution whose weights have mean 0 and variance 1 for each output channel (Qiao et al.,
    2019, "Weight Standardization", equation 2)."""

    eps = 1e-8

    def forward(self, x: Tensor) -> Tensor:
        kernel = at_least_float32(self.weight)
        centred = kernel - kernel.mean((1, 2, 3), keepdim=True)
        variance = centred.square().mean((1, 2, 3), keepdim=True)
        kernel = centred * (variance + self.eps).rsqrt()
        return self._conv_forward(x, kernel.to(self.weight.dtype), self.bias)


class ConvNormAct(nn.Module):
    """Standardised convolution, normalisation over 32 groups of channels, activation (None:
    linear)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        act: Activation | None = None,
    ) -> None:
        super().__init__()
        self.conv = StdConv2d(in_channels, out_channels, kernel, stride, bias=False)
        self.norm = nn.GroupNorm(32, out_channels)
        self.act = act() if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class Stem(ConvNormAct):
    """7×7 convolution and 3×3 max pooling, a stride of 2 each, with SAME padding."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, 64, kernel=7, stride=2, act=relu)
        self.pool = SameMaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(super().forward(x))
        return y


class Bottleneck(nn.Module):
    """1×1 down to a quarter of the channels, 3×3 with the stride, 1×1 up, beside a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        width = channels // 4
        self.conv1 = ConvNormAct(in_channels, width, act=relu)
        self.conv2 = ConvNormAct(width, width, kernel=3, stride=stride, act=relu)
        self.conv3 = ConvNormAct(width, channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels:  # the first of each stage, the only ones with a stride, too
            self.shortcut = ConvNormAct(in_channels, channels, stride=stride)
        self.act = relu()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.conv2(self.conv1(x)))
        out: Tensor = self.act(self.shortcut(x) + y)
        return out


class HybridVisionTransformer(Transformer):
    """A ResNet's map of stride 16, a token for each of its places, then a Vision Transformer.

    Images of any size; the map of (height, width) is (⌈height / 16⌉, ⌈width / 16⌉). The feature
    levels are the first two stages' maps, and at stride 16 the tokens after the last block as a
    map, without the head's normalisation. `drop_path` concerns the transformer alone.
    Weights for images of other channels are standardised anew like all others, so that grey images
    give but nearly what they would give as RGB.

    Args: as in `VisionTransformer`.
    """

    stride = 16
    embedding = "embed"

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        image_size: int = 224,
        representation_size: int | None = None,
        norm_eps: float = 1e-6,
        num_classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self._width = width
        self.stem = Stem(in_channels)
        self.stages = nn.ModuleList()
        channels = 64
        for i, (repeats, wide) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            blocks = [Bottleneck(channels, wide, stride=1 if i == 0 else 2)]
            blocks += [Bottleneck(wide, wide, stride=1) for _ in range(1, repeats)]
            self.stages.append(nn.Sequential(*blocks))
            channels = wide
        self.embed = Embedding(channels, width, patch=1, side=-(-image_size // self.stride))
        self.blocks = encoder(depth, width, heads=heads, norm_eps=norm_eps, drop_path=drop_path)
        self.head = TokenHead(
            width,
            num_classes,
            representation_size=representation_size,
            norm_eps=norm_eps,
            dropout=dropout,
        )
        initialise_transformer(self)

    def units(self) -> list[Unit]:
        units = [Unit("stem", self.stem), *stage_units(self.stages, LEVELS)]
        units.append(Unit("embed", self.embed))
        units += [Unit(f"blocks.{i}", block) for i, block in self.blocks.named_children()]
        units[-1] = units[-1]._replace(level=4)
        return units

    @property
    def feature_levels(self) -> list[Level]:
        maps = [Level(k, WIDTHS[i], 2**k) for i, k in LEVELS.items()]
        return [*maps, Level(4, self._width, self.stride)]


ENTRIES = [
    NetworkEntry(
        name="vit_base_r50_s16",
        family="hybrid_vit",
        build=partial(HybridVisionTransformer, width=768, depth=12, heads=12),
        preprocessing=Preprocessing(
            mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_fraction=0.9
        ),
        parameters=98_659_112,
        macs=21_535_358_976,
        paper="Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929",
        reference="timm vit_base_r50_s16_224",
    )
]
