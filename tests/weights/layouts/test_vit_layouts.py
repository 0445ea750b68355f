"""The Vision Transformers' checkpoints: known names, the way back, and what their keys tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinue.errors import RetinueError
from retinue.models.registry import create_model, find
from retinue.weights.layout import layouts, left_out, recognise, translate, untranslate

SMALL = {"width": 32, "depth": 2, "heads": 4, "image_size": 32, "num_classes": 5}
ATTENTION = "Transformer/encoderblock_11/MultiHeadDotProductAttention_1"
KNOWN = {
    ("vit_base_patch16", "timm"): {
        "stem.conv.bias": ("patch_embed.proj.bias",),
        "stem.class_token": ("cls_token",),
        "stem.position": ("pos_embed",),
        "blocks.0.norm1.weight": ("blocks.0.norm1.weight",),
        "blocks.11.attention.qkv.weight": ("blocks.11.attn.qkv.weight",),
        "blocks.11.attention.project.bias": ("blocks.11.attn.proj.bias",),
        "blocks.3.norm2.bias": ("blocks.3.norm2.bias",),
        "blocks.3.mlp.expand.weight": ("blocks.3.mlp.fc1.weight",),
        "blocks.3.mlp.project.weight": ("blocks.3.mlp.fc2.weight",),
        "head.norm.weight": ("norm.weight",),
        "head.pre_logits.weight": ("pre_logits.fc.weight",),
        "head.fc.bias": ("head.bias",),
    },
    ("vit_base_patch16", "torchvision"): {
        "stem.conv.weight": ("conv_proj.weight",),
        "stem.class_token": ("class_token",),
        "stem.position": ("encoder.pos_embedding",),
        "blocks.0.norm1.weight": ("encoder.layers.encoder_layer_0.ln_1.weight",),
        "blocks.11.attention.qkv.bias": (
            "encoder.layers.encoder_layer_11.self_attention.in_proj_bias",
        ),
        "blocks.2.attention.project.weight": (
            "encoder.layers.encoder_layer_2.self_attention.out_proj.weight",
        ),
        "blocks.3.mlp.expand.weight": ("encoder.layers.encoder_layer_3.mlp.0.weight",),
        "blocks.3.mlp.project.bias": ("encoder.layers.encoder_layer_3.mlp.3.bias",),
        "head.norm.weight": ("encoder.ln.weight",),
        "head.fc.weight": ("heads.head.weight",),
    },
    ("vit_base_patch16", "transformers"): {
        "stem.conv.weight": ("vit.embeddings.patch_embeddings.projection.weight",),
        "stem.class_token": ("vit.embeddings.cls_token",),
        "stem.position": ("vit.embeddings.position_embeddings",),
        "blocks.0.attention.qkv.weight": (
            "vit.encoder.layer.0.attention.attention.query.weight",
            "vit.encoder.layer.0.attention.attention.key.weight",
            "vit.encoder.layer.0.attention.attention.value.weight",
        ),
        "blocks.5.attention.project.bias": ("vit.encoder.layer.5.attention.output.dense.bias",),
        "blocks.5.norm2.weight": ("vit.encoder.layer.5.layernorm_after.weight",),
        "blocks.5.mlp.expand.weight": ("vit.encoder.layer.5.intermediate.dense.weight",),
        "blocks.5.mlp.project.weight": ("vit.encoder.layer.5.output.dense.weight",),
        "head.norm.bias": ("vit.layernorm.bias",),
        "head.fc.bias": ("classifier.bias",),
    },
    ("vit_base_patch16", "google"): {
        "stem.conv.weight": ("embedding/kernel",),
        "stem.class_token": ("cls",),
        "stem.position": ("Transformer/posembed_input/pos_embedding",),
        "blocks.11.attention.qkv.weight": (
            f"{ATTENTION}/query/kernel",
            f"{ATTENTION}/key/kernel",
            f"{ATTENTION}/value/kernel",
        ),
        "blocks.11.attention.project.weight": (f"{ATTENTION}/out/kernel",),
        "blocks.0.norm2.bias": ("Transformer/encoderblock_0/LayerNorm_2/bias",),
        "blocks.0.mlp.expand.bias": ("Transformer/encoderblock_0/MlpBlock_3/Dense_0/bias",),
        "blocks.0.mlp.project.weight": ("Transformer/encoderblock_0/MlpBlock_3/Dense_1/kernel",),
        "head.norm.weight": ("Transformer/encoder_norm/scale",),
        "head.pre_logits.bias": ("pre_logits/bias",),
        "head.fc.weight": ("head/kernel",),
    },
    ("vit_base_r50_s16", "timm"): {
        "stem.conv.weight": ("patch_embed.backbone.stem.conv.weight",),
        "stem.norm.bias": ("patch_embed.backbone.stem.norm.bias",),
        "stages.2.8.conv3.conv.weight": ("patch_embed.backbone.stages.2.blocks.8.conv3.weight",),
        "stages.2.8.conv1.norm.weight": ("patch_embed.backbone.stages.2.blocks.8.norm1.weight",),
        "stages.1.0.shortcut.norm.bias": (
            "patch_embed.backbone.stages.1.blocks.0.downsample.norm.bias",
        ),
        "embed.conv.weight": ("patch_embed.proj.weight",),
        "embed.position": ("pos_embed",),
    },
    ("vit_base_r50_s16", "google"): {
        "stem.conv.weight": ("conv_root/kernel",),
        "stem.norm.weight": ("gn_root/scale",),
        "stages.2.8.conv3.conv.weight": ("block3/unit9/conv3/kernel",),
        "stages.0.1.conv2.norm.bias": ("block1/unit2/gn2/bias",),
        "stages.1.0.shortcut.conv.weight": ("block2/unit1/conv_proj/kernel",),
        "stages.1.0.shortcut.norm.weight": ("block2/unit1/gn_proj/scale",),
        "embed.class_token": ("cls",),
        "blocks.0.norm1.weight": ("Transformer/encoderblock_0/LayerNorm_0/scale",),
    },
}


def shapes_of(network):
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("name", "source"), list(KNOWN))
def test_known_names(name, source):
    with torch.device("meta"):
        network = create_model(name, representation_size=768)
    layout = next(x for x in layouts(find(name).family) if x.source == source)
    origins = layout.origins(shapes_of(network))
    for ours, theirs in KNOWN[name, source].items():
        assert origins[ours].keys == theirs


@pytest.mark.parametrize("representation_size", [None, 24])
@pytest.mark.parametrize("layout", layouts("vit"), ids=str)
def test_there_and_back(layout, representation_size):
    network = create_model("vit_base_patch16", representation_size=representation_size, **SMALL)
    tensors = network.state_dict()
    if layout.source == "google":
        with pytest.raises(RetinueError, match="google vit are read, but not written"):
            untranslate(layout, tensors)
        return
    theirs = untranslate(layout, tensors)
    back = translate(layout, theirs, shapes_of(network))
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)


def file_of(source, depth, *keys):
    """The keys of one of that library's checkpoints, of a network of `depth` blocks."""
    with torch.device("meta"):
        network = create_model("vit_base_patch16", width=32, heads=4, depth=depth)
    layout = next(x for x in layouts("vit") if x.source == source)
    origins = layout.origins(shapes_of(network)).values()
    names = [key for origin in origins for key in origin.keys]
    return dict.fromkeys([*names, *keys], torch.zeros(1))


@pytest.mark.parametrize("depth", [12, 24, 32])
@pytest.mark.parametrize(
    ("source", "hidden", "norm_eps"),
    [
        ("timm", "pre_logits.fc.weight", {}),
        ("google", "pre_logits/kernel", {}),
        ("transformers", "vit.pooler.dense.weight", {"norm_eps": 1e-12}),
    ],
)
def test_the_hidden_layer_is_told_from_the_keys(source, hidden, norm_eps, depth):
    width = {12: 768, 24: 1024, 32: 1280}[depth]
    fine_tuned = recognise(file_of(source, depth), "vit")
    assert (fine_tuned.source, dict(fine_tuned.arguments)) == (source, norm_eps)
    pre_trained = recognise(file_of(source, depth, hidden), "vit")
    assert pre_trained.source == source
    assert pre_trained.arguments == {"representation_size": width, **norm_eps}


def test_preprocessing():
    """Each library shows the network images in its own way."""
    shown = {x.source: dict(x.preprocessing) for x in layouts("vit")}
    assert shown["timm"] == shown["google"] == {}
    assert shown["torchvision"]["mean"] == (0.485, 0.456, 0.406)
    assert shown["transformers"] == {"interpolation": "bilinear", "fit": "squash"}
    native = find("vit_base_patch16").preprocessing
    assert (native.mean, native.crop_fraction) == ((0.5, 0.5, 0.5), 0.9)


@torch.no_grad()
def test_google_file_with_the_hidden_layer(tmp_path, caplog):
    """By hand: kernels are (in, out), and those of the attention have an axis for the heads."""
    rng = np.random.default_rng(0)
    width, heads, classes = 32, 4, 6
    block, arrays = "Transformer/encoderblock_0", {}

    def draw(name, *shape):
        arrays[name] = rng.standard_normal(shape, dtype=np.float32)

    attention = f"{block}/MultiHeadDotProductAttention_1"
    for part in ("query", "key", "value"):
        draw(f"{attention}/{part}/kernel", width, heads, width // heads)
        draw(f"{attention}/{part}/bias", heads, width // heads)
    for name, *kernel in [
        (f"{attention}/out", heads, width // heads, width),
        (f"{block}/MlpBlock_3/Dense_0", width, 4 * width),
        (f"{block}/MlpBlock_3/Dense_1", 4 * width, width),
        ("embedding", 16, 16, 3, width),
        ("pre_logits", width, 20),
        ("head", 20, classes),
    ]:
        draw(f"{name}/kernel", *kernel)
        draw(f"{name}/bias", kernel[-1])
    for name in (f"{block}/LayerNorm_0", f"{block}/LayerNorm_2", "Transformer/encoder_norm"):
        draw(f"{name}/scale", width)
        draw(f"{name}/bias", width)
    draw("cls", 1, 1, width)
    draw("Transformer/posembed_input/pos_embedding", 1, 1 + 9, width)
    path = tmp_path / "B_16.npz"
    np.savez(path, **arrays)

    caplog.set_level("INFO", logger="retinue")
    network = create_model(
        "vit_base_patch16",
        weights=str(path),
        **{**SMALL, "depth": 1, "num_classes": classes},
        representation_size=20,
    ).eval()
    assert "adapted: stem.position" in caplog.text  # 3 × 3 positions for 2 × 2 patches
    assert "re-initialised" not in caplog.text

    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    x = torch.randn(3, 7, width)
    qkv = [
        torch.einsum("ntw,whd->nhtd", x, weights[f"{attention}/{part}/kernel"])
        + weights[f"{attention}/{part}/bias"][:, None]
        for part in ("query", "key", "value")
    ]
    mixed = (qkv[0] @ qkv[1].mT / (width // heads) ** 0.5).softmax(-1) @ qkv[2]
    out = torch.einsum("nhtd,hdw->ntw", mixed, weights[f"{attention}/out/kernel"])
    out += weights[f"{attention}/out/bias"]
    assert torch.allclose(network.blocks[0].attention(x), out, rtol=1e-3, atol=1e-3)

    token = network.head.norm(x[:, 0])
    hidden = torch.tanh(token @ weights["pre_logits/kernel"] + weights["pre_logits/bias"])
    logits = hidden @ weights["head/kernel"] + weights["head/bias"]
    assert torch.allclose(network.head(x), logits, rtol=1e-3, atol=1e-3)


def test_a_pooling_head_is_not_taken_for_a_class_tokens():
    """timm's networks that pool over the patches have `fc_norm`, and no final norm."""
    network = create_model("vit_base_patch16", **SMALL)
    layout = next(x for x in layouts("vit") if x.source == "timm")
    theirs = untranslate(layout, network.state_dict())
    theirs["fc_norm.weight"] = theirs.pop("norm.weight")
    translated = translate(recognise(theirs, "vit"), theirs, shapes_of(network))
    assert "head.norm.weight" not in translated
    assert "fc_norm.weight" in translated


@pytest.mark.parametrize("source", ["timm", "transformers"])
def test_the_hidden_layer_of_the_pre_training_can_be_left_out(source):
    with torch.device("meta"):
        whole = create_model("vit_base_patch32", representation_size=768)
        without = create_model("vit_base_patch32", representation_size=0)
    layout = next(x for x in layouts("vit") if x.source == source)
    theirs = untranslate(layout, whole.state_dict())
    found = recognise(theirs, "vit")
    assert found.arguments["representation_size"] == 768
    shapes = {key: tuple(tensor.shape) for key, tensor in without.state_dict().items()}
    assert set(translate(found, theirs, shapes)) == set(shapes)
    assert len(left_out(found, theirs, shapes)) == 2
