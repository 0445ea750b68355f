"""What Vision Transformers are made of (Dosovitskiy et al., 2020, "An Image is Worth 16x16 Words").

Tokens are float (n, 1 + rows · columns, width): the class token, then the patches row by row.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinue.errors import UsageError
from retinue.models.blocks import DropPath, Pooling, initialise
from retinue.models.dense import Linear
from retinue.models.network import Halves, Network, Tokens, split
from retinue.sample import Size


class Attention(nn.Module):
    """Multi-head self-attention (appendix A): every token takes in all others.

    `qkv` gives the queries of all heads, then the keys, then the values, head by head.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.project = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (n, heads, tokens, width/heads)
        y = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.project(y.transpose(1, 2).reshape(n, tokens, width))
        return out


class MLP(nn.Module):
    """Two layers with a GELU between them, four times as wide there, for each token alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = Linear(width, 4 * width)
        self.act = nn.GELU()
        self.project = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.act(self.expand(x)))
        return y


class EncoderBlock(nn.Module):
    """Attention, then the MLP, each normalised before and added to what comes in (equations 2, 3).

    `drop_path` is the probability with which each of the two leaves out a sample in training.
    """

    def __init__(self, width: int, *, heads: int, norm_eps: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attention = Attention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


def encoder(
    depth: int, width: int, *, heads: int, norm_eps: float, drop_path: float
) -> nn.Sequential:
    """`depth` blocks; stochastic depth rises linearly from 0 at the first to `drop_path` at the
    last. Raises UsageError if `heads` does not divide `width`."""
    if heads < 1 or width % heads:
        raise UsageError(f"{heads} heads cannot share a width of {width}", mend="choose a divisor")
    rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
    return nn.Sequential(
        *(EncoderBlock(width, heads=heads, norm_eps=norm_eps, drop_path=rate) for rate in rates)
    )


class Embedding(nn.Module):
    """A map (n, channels, height, width) to tokens (equation 1).

    Each square of `patch` × `patch` becomes a token, the class token goes before them, and each
    place has a learned position, those of a grid of `side` × `side`; another grid's are
    interpolated from them. Raises UsageError for a map that the patches do not tile.
    """

    def __init__(self, channels: int, width: int, *, patch: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.position = nn.Parameter(torch.empty(1, 1 + side * side, width))

    def forward(self, x: Tensor) -> Tensor:
        patch = self.conv.stride[0]
        # Plain numbers even while an engine traces: inputs of a compiled network are of one size.
        height, width = int(x.shape[-2]), int(x.shape[-1])
        if height % patch or width % patch:
            near = " × ".join(str(max(patch, round(s / patch) * patch)) for s in (height, width))
            raise UsageError(
                f"an image of {height} × {width} is not made of patches of {patch} × {patch}",
                mend=f"use multiples of {patch}, {near} say",
            )
        patches = self.conv(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches], 1)
        return tokens + resample_positions(self.position, height // patch, width // patch)


def resample_positions(position: Tensor, rows: int, columns: int) -> Tensor:
    """The positions (1, 1 + side², width) of a square grid for one of `rows` × `columns`.

    Bicubic, antialiased where the grid shrinks; the class token's stays as it is (section 3.2).
    """
    side = math.isqrt(position.shape[1] - 1)
    if (rows, columns) == (side, side):
        return position
    first, places = position[:, :1], position[:, 1:]
    grid = at_least_float32(places).transpose(1, 2).reshape(1, -1, side, side)
    grid = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
    return torch.cat([first, grid.flatten(2).transpose(1, 2).to(position.dtype)], 1)


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, in float32 if its type is of less precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class ClassToken(Pooling):
    """The class token out of all, (n, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] if x.ndim == 3 else x


class PreLogits(nn.Linear):
    """The hidden layer of the pre-training's classifier, with tanh (section 3.1)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


class TokenHead(nn.Module):
    """The class token normalised (equation 4), dropout, linear: tokens, or the class token alone
    (n, width), to logits (n, classes). `representation_size` is the width of `PreLogits` between
    them, None: without."""

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        representation_size: int | None,
        norm_eps: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pool = ClassToken()
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.pre_logits = (
            PreLogits(width, representation_size) if representation_size else nn.Identity()
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(representation_size or width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.dropout(self.pre_logits(self.norm(self.pool(x)))))
        return y


class Transformer(Network):
    """A network whose last units work on tokens. Set `stride`, and `embedding` to the unit that
    makes them."""

    stride: int
    """Pixels of the image to a token, along each side; a part of a patch is one, too."""
    embedding = "stem"
    blocks: nn.Sequential

    def features(self, x: Tensor) -> list[Tensor]:
        """As for every network; the tokens without the class token as a map, as they leave the last
        block: the final normalisation belongs to the head, which only the class token passes."""
        height, width = x.shape[-2:]
        tokens = self.tokens((height, width))
        return [m if m.ndim == 4 else tokens.as_map(m) for m in super().features(x)]

    def tokens(self, size: Size) -> Tokens:
        """See `Network`: the class token, which the answer is read off, comes first."""
        rows, columns = (-(-side // self.stride) for side in size)
        return Tokens(1, rows, columns, read=0)

    def positions(self) -> Tensor:
        """See `Network`: without that of the class token."""
        places = self.get_parameter(f"{self.embedding}.position")[0, 1:]
        side = math.isqrt(len(places))
        return places.reshape(side, side, -1)

    def halves(self, size: Size, cut: int | None = None) -> Halves:
        """See `Network`: before the last block, behind which only the class token is looked at."""
        last = len(self.units()) - 1
        return Halves(
            lambda x: split(self.run(x, stop=last))[0],
            self.tokens(size).as_map,
            lambda x: self.forward(x, start=last),
        )

    def adapt(self, key: str, tensor: Tensor) -> Tensor | None:
        """As for every network; the positions of another grid are interpolated."""
        own = self.get_parameter(key) if key == f"{self.embedding}.position" else None
        if own is None:
            return super().adapt(key, tensor)
        places = tensor.shape[1] - 1 if tensor.ndim == 3 else 0
        if places < 1 or math.isqrt(places) ** 2 != places or tensor.shape[2] != own.shape[2]:
            return None
        side = math.isqrt(own.shape[1] - 1)
        return resample_positions(tensor, side, side)


@torch.no_grad()
def initialise_transformer(network: nn.Module) -> None:
    """Fresh weights: convolutions normal with variance 1 / fan-in; linear layers, class token and
    positions normal with std 0.02, cut off at twice that; biases zero; classifiers as in every
    other network (`blocks.initialise`). On the meta device there is nothing to draw."""
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Embedding):
            nn.init.trunc_normal_(module.class_token, std=0.02, a=-0.04, b=0.04)
            nn.init.trunc_normal_(module.position, std=0.02, a=-0.04, b=0.04)
        elif isinstance(module, TokenHead):
            head = module
    initialise(head.fc)
