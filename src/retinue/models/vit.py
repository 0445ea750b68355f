"""Vision Transformer (Dosovitskiy et al., 2020, "An Image is Worth 16x16 Words: Transformers for
Image Recognition at Scale"): an image as a sequence of patches."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from retinue.errors import UsageError
from retinue.models.network import Level, Unit
from retinue.models.registry import NetworkEntry
from retinue.models.transformer import (
    Embedding,
    TokenHead,
    Transformer,
    encoder,
    initialise_transformer,
)
from retinue.sample import Preprocessing


class VisionTransformer(Transformer):
    """`depth` blocks of `heads` heads on tokens of `width`, one for each `patch` × `patch` pixels.

    Any image that the patches tile is taken. Every block sees the whole image, so there is but one
    feature level: the tokens after the last block as a map, (n, width, height / patch, width /
    patch), without the head's normalisation. A patch whose side is no power of two gives none.

    Args:
        image_size: height and width that the position embeddings are of; those of other sizes are
            interpolated from them. Weights of another size are interpolated as they are loaded.
        representation_size: width of the pre-training's hidden layer before the classifier
            (linear, tanh); None: as the weights have it, else without; 0: without, as the paper
            fine-tunes.
        norm_eps: of the LayerNorms.
        drop_path: stochastic depth at the last block, rising linearly from 0 at the first.

    Raises:
        UsageError: `patch` does not divide `image_size`, or `heads` not `width`.
    """

    def __init__(
        self,
        *,
        patch: int,
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
        side, rest = divmod(image_size, patch)
        if rest or not side:
            raise UsageError(
                f"image_size {image_size} is not a multiple of the patch's {patch} pixels",
                mend=f"choose one, {max(1, round(image_size / patch)) * patch} say",
            )
        self.stride = patch
        self._width = width
        self.stem = Embedding(in_channels, width, patch=patch, side=side)
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
        units = [Unit("stem", self.stem)]
        units += [Unit(f"blocks.{i}", block) for i, block in self.blocks.named_children()]
        units[-1] = units[-1]._replace(level=self._level)
        return units

    @property
    def feature_levels(self) -> list[Level]:
        if self._level is None:
            return []
        return [Level(self._level, self._width, self.stride)]

    @property
    def _level(self) -> int | None:
        k = self.stride.bit_length() - 1
        return k if 2**k == self.stride else None


class Variant(NamedTuple):
    """A row of the paper's table 1 with a patch size, and facts."""

    patch: int
    width: int
    depth: int
    heads: int
    parameters: int
    macs: int


# fmt: off
VARIANTS = {
    "base_patch16":  Variant(16,  768, 12, 12,  86_567_656,  17_563_828_224),
    "base_patch32":  Variant(32,  768, 12, 12,  88_224_232,   4_409_186_304),
    "large_patch16": Variant(16, 1024, 24, 16, 304_326_632,  61_554_712_576),
    "large_patch32": Variant(32, 1024, 24, 16, 306_535_400,  15_377_539_072),
    "huge_patch14":  Variant(14, 1280, 32, 16, 632_045_800, 167_295_109_120),
}
# fmt: on

ENTRIES = [
    NetworkEntry(
        name=f"vit_{variant}",
        family="vit",
        build=partial(
            VisionTransformer, patch=v.patch, width=v.width, depth=v.depth, heads=v.heads
        ),
        preprocessing=Preprocessing(
            mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_fraction=0.9
        ),
        parameters=v.parameters,
        macs=v.macs,
        paper="Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929",
        reference=f"timm vit_{variant}_224; torchvision vit_{variant[0]}_{v.patch}",
    )
    for variant, v in VARIANTS.items()
]
