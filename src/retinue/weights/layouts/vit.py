"""The Vision Transformer's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

import torch

from retinue.weights.layout import Layout, Origin, Shapes, StateDict, rename
from retinue.weights.transformer import (
    GOOGLE_BLOCK,
    GOOGLE_MARKS,
    GOOGLE_PRE_LOGITS,
    TIMM_BLOCK,
    TIMM_MARKS,
    TIMM_PRE_LOGITS,
    google,
    timm,
    with_pre_logits,
)

TIMM = Layout(
    source="timm",
    family="vit",
    marks=TIMM_MARKS,
    origins=partial(timm, embedding="stem", before=[]),
)
GOOGLE = Layout(
    source="google",
    family="vit",
    marks=GOOGLE_MARKS,
    origins=partial(google, embedding="stem", before=[]),
)


def torchvision(shapes: Shapes) -> dict[str, Origin]:
    """`encoder.layers.encoder_layer_0.ln_1` …"""
    ours, theirs = r"blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."
    return rename(
        shapes,
        [
            (r"stem\.conv\.", "conv_proj."),
            (r"stem\.class_token", "class_token"),
            (r"stem\.position", "encoder.pos_embedding"),
            (ours + r"norm(\d)\.", theirs + r"ln_\2."),
            (ours + r"attention\.qkv\.", theirs + "self_attention.in_proj_"),
            (ours + r"attention\.project\.", theirs + "self_attention.out_proj."),
            (ours + r"mlp\.expand\.", theirs + "mlp.0."),
            (ours + r"mlp\.project\.", theirs + "mlp.3."),
            (r"head\.norm\.", "encoder.ln."),
            (r"head\.pre_logits\.", "heads.pre_logits."),
            (r"head\.fc\.", "heads.head."),
        ],
    )


def _newer_names(state: StateDict, shapes: Shapes) -> StateDict:
    """The first release called the MLP's layers `linear_1` and `linear_2`."""
    numbers = {".mlp.linear_1.": ".mlp.0.", ".mlp.linear_2.": ".mlp.3."}
    renamed = {}
    for key, tensor in state.items():
        for older, newer in numbers.items():
            key = key.replace(older, newer)
        renamed[key] = tensor
    return renamed


TORCHVISION = Layout(
    source="torchvision",
    family="vit",
    marks=(
        "class_token",
        "conv_proj.weight",
        "encoder.pos_embedding",
        "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
    ),
    origins=torchvision,
    prepare=_newer_names,
    preprocessing={
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bilinear",
        "crop_fraction": 0.875,
    },
)


class Names(NamedTuple):
    """What transformers calls the parts of a block."""

    blocks: str
    query: str
    key: str
    value: str
    project: str
    mlp: tuple[str, str]


IN_FILES = Names(
    "encoder.layer",
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    ("intermediate.dense", "output.dense"),
)
IN_MEMORY = Names(
    "layers",
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.o_proj",
    ("mlp.fc1", "mlp.fc2"),
)
"""The names of release 5; it still writes the older ones into files."""


def transformers(shapes: Shapes, *, prefix: str, names: Names) -> dict[str, Origin]:
    """`vit.encoder.layer.0.attention.attention.query` …; without the prefix in a `ViTModel`."""
    ours, theirs = r"blocks\.(\d+)\.", rf"{prefix}{names.blocks}.\1."
    found = rename(
        shapes,
        [
            (r"stem\.conv\.", f"{prefix}embeddings.patch_embeddings.projection."),
            (r"stem\.class_token", f"{prefix}embeddings.cls_token"),
            (r"stem\.position", f"{prefix}embeddings.position_embeddings"),
            (ours + r"norm1\.", theirs + "layernorm_before."),
            (ours + r"norm2\.", theirs + "layernorm_after."),
            (ours + r"attention\.qkv\.", theirs + "{}."),
            (ours + r"attention\.project\.", f"{theirs}{names.project}."),
            (ours + r"mlp\.expand\.", f"{theirs}{names.mlp[0]}."),
            (ours + r"mlp\.project\.", f"{theirs}{names.mlp[1]}."),
            (r"head\.norm\.", f"{prefix}layernorm."),
            (r"head\.pre_logits\.", f"{prefix}pooler.dense."),
            (r"head\.fc\.", "classifier."),
        ],
    )
    for key, origin in found.items():
        if "{}" in origin.keys[0]:
            parts = (names.query, names.key, names.value)
            found[key] = Origin(
                tuple(origin.keys[0].format(part) for part in parts),
                lambda *tensors: torch.cat(tensors),
                lambda tensor: tensor.chunk(3),
            )
    return found


def _transformers() -> Iterator[Layout]:
    for prefix, names in product(("vit.", ""), (IN_FILES, IN_MEMORY)):
        block = f"{prefix}{names.blocks}.{{}}.layernorm_before.weight"
        layout = Layout(
            source="transformers",
            family="vit",
            marks=(
                f"{prefix}embeddings.cls_token",
                f"{prefix}embeddings.position_embeddings",
                f"{prefix}{names.blocks}.0.{names.query}.weight",
            ),
            origins=partial(transformers, prefix=prefix, names=names),
            arguments={"norm_eps": 1e-12},
            preprocessing={"interpolation": "bilinear", "fit": "squash"},
        )
        yield from with_pre_logits(layout, f"{prefix}pooler.dense.weight", block)


LAYOUTS = (
    *with_pre_logits(TIMM, TIMM_PRE_LOGITS, TIMM_BLOCK),
    TORCHVISION,
    *with_pre_logits(GOOGLE, GOOGLE_PRE_LOGITS, GOOGLE_BLOCK),
    *_transformers(),
)
