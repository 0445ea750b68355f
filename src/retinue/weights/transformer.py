"""What the layouts of the Vision Transformers share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from retinue.weights.layout import Layout, Origin, Shapes, rename

WIDTHS = ((24, 1280), (12, 1024), (0, 768))
"""The number of a block that only networks of this width or more have, largest first."""


def with_pre_logits(
    layout: Layout, key: str, block: str, widths: Sequence[tuple[int, int]] = WIDTHS
) -> Iterator[Layout]:
    """`layout`, and before it how it is where the pre-training's hidden layer is there, too.

    That layer (one of its keys is `key`) is as wide as the tokens in all that was published; how
    wide they are is told from the number of blocks, of which `block` is a key, with `{}` for the
    number. A network built without the layer (`representation_size=0`) has no use for it.
    """
    layer = re.escape(re.sub(r"\w+$", "", key))
    for number, width in widths:
        yield replace(
            layout,
            marks=(*layout.marks, key, block.format(number)),
            arguments={**layout.arguments, "representation_size": width},
            ignored=(*layout.ignored, layer),
        )
    yield layout


TIMM_MARKS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
TIMM_BLOCK = "blocks.{}.norm1.weight"
TIMM_PRE_LOGITS, GOOGLE_PRE_LOGITS = "pre_logits.fc.weight", "pre_logits/kernel"


def timm(shapes: Shapes, *, embedding: str, before: list[tuple[str, str]]) -> dict[str, Origin]:
    """timm's: `blocks.0.attn.qkv` … `embedding` is our unit that makes the tokens, `before` the
    rules for what lies before it."""
    ours = r"blocks\.(\d+)\."
    return rename(
        shapes,
        [
            *before,
            (embedding + r"\.conv\.", "patch_embed.proj."),
            (embedding + r"\.class_token", "cls_token"),
            (embedding + r"\.position", "pos_embed"),
            (ours + r"norm(\d)\.", r"blocks.\1.norm\2."),
            (ours + r"attention\.qkv\.", r"blocks.\1.attn.qkv."),
            (ours + r"attention\.project\.", r"blocks.\1.attn.proj."),
            (ours + r"mlp\.expand\.", r"blocks.\1.mlp.fc1."),
            (ours + r"mlp\.project\.", r"blocks.\1.mlp.fc2."),
            (r"head\.norm\.", "norm."),
            (r"head\.pre_logits\.", "pre_logits.fc."),
            (r"head\.fc\.", "head."),
        ],
    )


GOOGLE_MARKS = (
    "cls",
    "embedding/kernel",
    "Transformer/posembed_input/pos_embedding",
    "Transformer/encoder_norm/scale",
)
GOOGLE_BLOCK = "Transformer/encoderblock_{}/LayerNorm_0/scale"


def google(shapes: Shapes, *, embedding: str, before: list[tuple[str, str]]) -> dict[str, Origin]:
    """Google's `.npz` files: `Transformer/encoderblock_0/…`; arguments as for `timm`.

    Kernels are (…, in, out); those of the attention are (width, heads, width / heads) and the
    other way round. The number of heads is not in our tensors, so there is no way back.
    """
    ours, theirs = r"blocks\.(\d+)\.", r"Transformer/encoderblock_\1/"
    names = rename(
        shapes,
        [
            *before,
            (embedding + r"\.conv\.", "embedding/"),
            (embedding + r"\.class_token", "cls"),
            (embedding + r"\.position", "Transformer/posembed_input/pos_embedding"),
            (ours + r"norm1\.", theirs + "LayerNorm_0/"),
            (ours + r"norm2\.", theirs + "LayerNorm_2/"),
            (ours + r"attention\.qkv\.", theirs + "MultiHeadDotProductAttention_1/{}/"),
            (ours + r"attention\.project\.", theirs + "MultiHeadDotProductAttention_1/out/"),
            (ours + r"mlp\.expand\.", theirs + "MlpBlock_3/Dense_0/"),
            (ours + r"mlp\.project\.", theirs + "MlpBlock_3/Dense_1/"),
            (r"head\.norm\.", "Transformer/encoder_norm/"),
            (r"head\.pre_logits\.", "pre_logits/"),
            (r"head\.fc\.", "head/"),
        ],
    )
    return {key: _google_origin(origin.keys[0], len(shapes[key])) for key, origin in names.items()}


def _google_origin(name: str, dimensions: int) -> Origin:
    """Of a tensor of ours of that many dimensions; `name` ends in our word for it."""
    norm = re.search(r"(LayerNorm_\d|encoder_norm|gn\w+)/weight$", name)
    name = re.sub("weight$", "scale" if norm else "kernel", name)
    if "{}" in name:
        parts = tuple(name.format(part) for part in ("query", "key", "value"))
        return Origin(parts, _fuse_kernels if dimensions == 2 else _fuse_biases, None)
    if name.endswith("out/kernel"):
        return Origin((name,), lambda t: t.reshape(-1, t.shape[-1]).T, None)
    if dimensions == 4:
        return Origin((name,), lambda t: t.permute(3, 2, 0, 1), lambda t: (t.permute(2, 3, 1, 0),))
    if name.endswith("/kernel"):
        return Origin((name,), lambda t: t.T, lambda t: (t.T,))
    if dimensions == 1:  # the ResNet's norms are (1, 1, 1, channels) there
        return Origin((name,), torch.flatten)
    return Origin((name,))


def _fuse_kernels(*kernels: Tensor) -> Tensor:
    """Queries', keys' and values', (width, heads, width / heads) each, to (3 · width, width)."""
    return torch.cat([kernel.reshape(kernel.shape[0], -1).T for kernel in kernels])


def _fuse_biases(*biases: Tensor) -> Tensor:
    return torch.cat([bias.reshape(-1) for bias in biases])
