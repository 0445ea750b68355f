"""Vision Transformers: logits equal to timm's, torchvision's and transformers', and to those that
timm computes from files in Google's form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from retinue.models.registry import create_model
from retinue.models.transformer import resample_positions
from retinue.weights import files
from retinue.weights.layout import recognise, translate
from retinue.weights.loading import load_into

SMALL = {"width": 96, "depth": 3, "heads": 4}
"""A network that is drawn and computed in no time, in our words and in timm's."""
SMALL_TIMM = {"embed_dim": 96, "depth": 3, "num_heads": 4}

TIMM = {
    "vit_base_patch16": "vit_base_patch16_224",
    "vit_base_patch32": "vit_base_patch32_224",
    "vit_large_patch16": "vit_large_patch16_224",
    "vit_large_patch32": "vit_large_patch32_224",
}
TORCHVISION = {
    "vit_base_patch16": "vit_b_16",
    "vit_base_patch32": "vit_b_32",
    "vit_large_patch16": "vit_l_16",
    "vit_large_patch32": "vit_l_32",
}


@pytest.mark.parametrize("size", [64, 96])
def test_small_timm(size, references, parity):
    """At the size of its positions, and at another one."""
    reference = references.timm.create_model(
        "vit_base_patch16_224", img_size=64, dynamic_img_size=True, num_classes=50, **SMALL_TIMM
    )
    parity.randomise(reference)
    network = parity.carry_over(
        "vit_base_patch16", reference.state_dict(), image_size=64, num_classes=50, **SMALL
    )
    assert parity.relative_error(network, reference, (64, size)) <= parity.tolerance


@pytest.mark.parity
@pytest.mark.parametrize("name", TIMM)
def test_timm(name, references, parity):
    size = 224 if "base" in name else 64
    reference = references.timm.create_model(TIMM[name], img_size=size, num_classes=1000)
    parity.randomise(reference)
    network = parity.carry_over(name, reference.state_dict(), image_size=size)
    assert parity.relative_error(network, reference, (size, size)) <= parity.tolerance


@pytest.mark.parity
def test_timm_huge(references, parity):
    """Its width and patch; of its 32 blocks two."""
    reference = references.timm.create_model(
        "vit_huge_patch14_224", depth=2, img_size=56, num_classes=1000
    )
    parity.randomise(reference)
    network = parity.carry_over("vit_huge_patch14", reference.state_dict(), depth=2, image_size=56)
    assert parity.relative_error(network, reference, (56, 56)) <= parity.tolerance


def small_hybrid(references, parity, **options):
    reference = references.timm.create_model(
        "vit_base_r50_s16_224",
        img_size=64,
        dynamic_img_size=True,
        num_classes=50,
        **SMALL_TIMM,
        **options,
    )
    parity.randomise(reference)
    return reference, parity.carry_over(
        "vit_base_r50_s16", reference.state_dict(), image_size=64, num_classes=50, **SMALL
    )


def test_small_hybrid(references, parity):
    reference, network = small_hybrid(references, parity)
    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance


def whole_hybrid(references, parity):
    reference = references.timm.create_model(
        "vit_base_r50_s16_224", dynamic_img_size=True, num_classes=1000
    )
    parity.randomise(reference)
    return reference, parity.carry_over("vit_base_r50_s16", reference.state_dict())


@pytest.mark.parity
@pytest.mark.parametrize("size", [(96, 64), (80, 112)])
def test_hybrid(size, references, parity):
    reference, network = whole_hybrid(references, parity)
    assert parity.relative_error(network, reference, size) <= parity.tolerance


@pytest.mark.parity
def test_hybrid_of_native_size(references, parity):
    """Images of so much noise are so alike to it (their logits differ by a fiftieth) that float32's
    rounding is as large as the tolerance: those are compared in float64, and others in float32."""
    reference, network = whole_hybrid(references, parity)
    assert parity.relative_error(network, reference, (224, 224), fields=2) <= parity.tolerance
    error = parity.relative_error(network.double(), reference.double(), (224, 224))
    assert error <= 1e-6 * parity.tolerance


def torchvision_vit(references, patch, **options):
    return references.torchvision.models.VisionTransformer(
        image_size=64, patch_size=patch, mlp_dim=4 * options["hidden_dim"], **options
    )


def test_small_torchvision(references, parity):
    reference = torchvision_vit(
        references, 16, num_layers=3, num_heads=4, hidden_dim=96, num_classes=50
    )
    parity.randomise(reference)
    network = parity.carry_over(
        "vit_base_patch16", reference.state_dict(), image_size=64, num_classes=50, **SMALL
    )
    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance


def test_torchvision_older_names_and_pre_logits(references, parity):
    reference = torchvision_vit(
        references, 16, num_layers=3, num_heads=4, hidden_dim=96, representation_size=80
    )
    parity.randomise(reference)
    numbers = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
    state = {}
    for key, tensor in reference.state_dict().items():
        for newer, older in numbers.items():
            key = key.replace(newer, older)
        state[key] = tensor
    arguments = {"image_size": 64, "representation_size": 80, **SMALL}
    network = parity.carry_over("vit_base_patch16", state, **arguments)
    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance


@pytest.mark.parity
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name, references, parity):
    reference = getattr(references.torchvision.models, TORCHVISION[name])(image_size=64)
    parity.randomise(reference)
    network = parity.carry_over(name, reference.state_dict(), image_size=64)
    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance


def hugging_face(references, kind, **options):
    config = references.transformers.ViTConfig(
        **{
            "hidden_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 384,
            "image_size": 64,
            "num_labels": 50,
            **options,
        }
    )
    return getattr(references.transformers, kind)(config)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_small_transformers(where, references, parity, tmp_path):
    """Release 5 has other names in memory than in its files."""
    model = parity.randomise(hugging_face(references, "ViTForImageClassification"))
    state = model.state_dict()
    if where == "file":
        model.save_pretrained(tmp_path)
        state = files.read(tmp_path / "model.safetensors").tensors
    assert ("vit.encoder.layer.0.attention.attention.query.weight" in state) == (where == "file")
    network = parity.carry_over("vit_base_patch16", state, image_size=64, num_classes=50, **SMALL)
    reference = parity.from_transformers(model)
    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance


@pytest.mark.parametrize("where", ["memory", "file"])
@torch.no_grad()
def test_transformers_without_classifier(where, references, parity, tmp_path):
    """A `ViTModel`: what it calls its pooler is the pre-training's hidden layer."""
    model = parity.randomise(hugging_face(references, "ViTModel"))
    state = model.state_dict()
    if where == "file":
        model.save_pretrained(tmp_path)
        state = files.read(tmp_path / "model.safetensors").tensors
    network, report = load(
        "vit_base_patch16", state, image_size=64, representation_size=96, **SMALL
    )
    assert report.reinitialised == ("head.fc.weight", "head.fc.bias")
    network.head.fc = nn.Identity()

    def reference(images):
        return model(pixel_values=images).pooler_output

    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance


@pytest.mark.parity
def test_transformers(references, parity):
    options = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    model = hugging_face(
        references,
        "ViTForImageClassification",
        **options,
        intermediate_size=3072,
        image_size=224,
        num_labels=1000,
    )
    parity.randomise(model)
    network = parity.carry_over("vit_base_patch16", model.state_dict())
    reference = parity.from_transformers(model)
    assert parity.relative_error(network, reference, (224, 224)) <= parity.tolerance


def load(name, state, **arguments):
    """Our network with all of `state`, and what was reported."""
    network = create_model(name, **arguments).eval()
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    layout = recognise(state, type(network).__module__.rpartition(".")[2])
    report = load_into(network, translate(layout, state, shapes))
    assert report.complete, report.describe()
    return network, report


def google_file(path, *, width, depth, heads, side, classes, patch=None, stages=()):
    """A file as Google's training writes it, with everything drawn at random; the writer
    shares nothing with the reader."""
    rng = np.random.default_rng(0)
    arrays = {}

    def draw(name, *shape, std=0.5, about=0.0):
        arrays[name] = (about + std * rng.standard_normal(shape)).astype(np.float32)

    def dense(name, *shape, inputs, outputs):
        draw(f"{name}/kernel", *shape, std=inputs**-0.5)
        draw(f"{name}/bias", *outputs)

    def norm(name, *shape):
        draw(f"{name}/scale", *shape, std=0.2, about=1.0)
        draw(f"{name}/bias", *shape)

    channels, each = 3, width // heads
    if stages:
        draw("conv_root/kernel", 7, 7, 3, 64)
        norm("gn_root", 1, 1, 1, 64)
        channels = 64
    for i, repeats in enumerate(stages, start=1):
        wide = 128 * 2**i
        for j in range(1, repeats + 1):
            unit = f"block{i}/unit{j}"
            draw(f"{unit}/conv1/kernel", 1, 1, channels, wide // 4)
            draw(f"{unit}/conv2/kernel", 3, 3, wide // 4, wide // 4)
            draw(f"{unit}/conv3/kernel", 1, 1, wide // 4, wide)
            norm(f"{unit}/gn1", 1, 1, 1, wide // 4)
            norm(f"{unit}/gn2", 1, 1, 1, wide // 4)
            norm(f"{unit}/gn3", 1, 1, 1, wide)
            if channels != wide:
                draw(f"{unit}/conv_proj/kernel", 1, 1, channels, wide)
                norm(f"{unit}/gn_proj", 1, 1, 1, wide)
            channels = wide
    patch = 1 if stages else patch
    inputs = patch * patch * channels
    dense("embedding", patch, patch, channels, width, inputs=inputs, outputs=(width,))
    draw("cls", 1, 1, width)
    draw("Transformer/posembed_input/pos_embedding", 1, 1 + side * side, width)
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            dense(f"{attention}/{part}", width, heads, each, inputs=width, outputs=(heads, each))
        dense(f"{attention}/out", heads, each, width, inputs=width, outputs=(width,))
        norm(f"{block}/LayerNorm_0", width)
        norm(f"{block}/LayerNorm_2", width)
        mlp = f"{block}/MlpBlock_3"
        dense(f"{mlp}/Dense_0", width, 4 * width, inputs=width, outputs=(4 * width,))
        dense(f"{mlp}/Dense_1", 4 * width, width, inputs=4 * width, outputs=(width,))
    norm("Transformer/encoder_norm", width)
    dense("head", width, classes, inputs=width, outputs=(classes,))
    np.savez(path, **arrays)
    return arrays


def test_google_file(references, parity, tmp_path):
    path = tmp_path / "ViT.npz"
    google_file(path, width=96, depth=3, heads=4, side=4, classes=50, patch=16)
    reference = references.timm.create_model(
        "vit_base_patch16_224", img_size=64, num_classes=50, **SMALL_TIMM
    )
    reference.eval().load_pretrained(str(path))
    state = files.read(path).tensors
    network = parity.carry_over("vit_base_patch16", state, image_size=64, num_classes=50, **SMALL)
    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance


def test_google_hybrid_file(references, parity, tmp_path):
    path = tmp_path / "R50+ViT.npz"
    google_file(path, width=96, depth=3, heads=4, side=4, classes=50, stages=(3, 4, 9))
    reference = references.timm.create_model(
        "vit_base_r50_s16_224", img_size=64, num_classes=50, **SMALL_TIMM
    )
    reference.eval().load_pretrained(str(path))
    state = files.read(path).tensors
    network = parity.carry_over("vit_base_r50_s16", state, image_size=64, num_classes=50, **SMALL)
    assert parity.relative_error(network, reference, (64, 64)) <= parity.tolerance


@pytest.mark.parametrize("side", [3, 4, 7, 14])
@pytest.mark.parametrize("grid", [(4, 4), (7, 3), (12, 12), (2, 9)])
def test_positions_are_resampled_as_timm_does(side, grid, references):
    positions = torch.randn(1, 1 + side * side, 8)
    expected = references.timm.layers.resample_abs_pos_embed(positions, list(grid))
    assert torch.equal(resample_positions(positions, *grid), expected)


def test_another_grid_is_resampled_as_timm_does(references, parity):
    """Weights of 64 × 64 images in a network for 96 × 96."""
    timm = references.timm
    trained = timm.create_model("vit_base_patch16_224", img_size=64, num_classes=50, **SMALL_TIMM)
    reference = timm.create_model("vit_base_patch16_224", img_size=96, num_classes=50, **SMALL_TIMM)
    state = parity.randomise(trained).state_dict()
    module = timm.models.vision_transformer
    reference.load_state_dict(module.checkpoint_filter_fn(dict(state), reference))
    network, report = load("vit_base_patch16", state, image_size=96, num_classes=50, **SMALL)
    assert report.adapted == ("stem.position",)
    assert not report.reinitialised
    assert parity.relative_error(network, reference.eval(), (96, 96)) <= parity.tolerance


@torch.no_grad()
def _order_of_heads(network):
    """As if queries, keys and values alternated head by head."""
    for block in network.blocks:
        weight = block.attention.qkv.weight
        heads, width = block.attention.heads, weight.shape[1]
        weight.copy_(
            weight.reshape(3, heads, -1, width).transpose(0, 1).reshape(3 * width, width).clone()
        )


@torch.no_grad()
def _values_as_keys(network):
    weight = network.blocks[1].attention.qkv.weight
    query, key, value = weight.clone().chunk(3)
    weight.copy_(torch.cat([query, value, key]))


def _missing_norm(network):
    network.blocks[1].norm2 = nn.Identity()


def _no_final_norm(network):
    network.head.norm = nn.Identity()


def _other_epsilon(network):
    for module in network.modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            module.eps = 1e-3


@torch.no_grad()
def _positions_by_columns(network):
    """As if the patches were counted down the columns."""
    position = next(p for name, p in network.named_parameters() if name.endswith("position"))
    places = position[:, 1:].reshape(4, 4, -1).transpose(0, 1).reshape(1, 16, -1).clone()
    position[:, 1:] = places


@torch.no_grad()
def _class_token_last(network):
    position = next(p for name, p in network.named_parameters() if name.endswith("position"))
    position.copy_(position.roll(1, 1))


def _approximate_gelu(network):
    for block in network.blocks:
        block.mlp.act = nn.GELU(approximate="tanh")


TRANSFORMER_SABOTAGE = [
    _order_of_heads,
    _values_as_keys,
    _missing_norm,
    _no_final_norm,
    _other_epsilon,
    _positions_by_columns,
    _class_token_last,
    _approximate_gelu,
]


@pytest.mark.parametrize("sabotage", TRANSFORMER_SABOTAGE)
def test_sabotage_is_caught(sabotage, references, parity):
    reference = references.timm.create_model(
        "vit_base_patch16_224", img_size=64, num_classes=50, **SMALL_TIMM
    )
    parity.randomise(reference)
    network = parity.carry_over(
        "vit_base_patch16", reference.state_dict(), image_size=64, num_classes=50, **SMALL
    )
    sabotage(network)
    assert parity.relative_error(network, reference, (64, 64)) > 3 * parity.tolerance


@torch.no_grad()
def _symmetric_padding(network):
    stem = network.stem.conv
    symmetric = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
    weight = stem.weight - stem.weight.mean((1, 2, 3), keepdim=True)
    symmetric.weight.copy_(weight / weight.square().mean((1, 2, 3), keepdim=True).sqrt())
    network.stem.conv = symmetric


def _symmetric_pooling(network):
    network.stem.pool = nn.MaxPool2d(3, 2, padding=1)


@torch.no_grad()
def _plain_convolution(network):
    old = network.stages[2][8].conv2.conv
    plain = nn.Conv2d(256, 256, 3, padding=1, bias=False)
    plain.weight.copy_(old.weight)
    network.stages[2][8].conv2.conv = plain


def _other_groups(network):
    network.stages[1][2].conv1.norm.num_groups = 16


def _lost_shortcut(network):
    network.stages[2][0].shortcut.norm = nn.Identity()


@pytest.mark.parity
@pytest.mark.parametrize(
    "sabotage",
    [
        _symmetric_padding,
        _symmetric_pooling,
        _plain_convolution,
        _other_groups,
        _lost_shortcut,
        _positions_by_columns,
    ],
)
def test_hybrid_sabotage_is_caught(sabotage, references, parity):
    reference, network = small_hybrid(references, parity)
    sabotage(network)
    assert parity.relative_error(network, reference, (64, 64)) > 3 * parity.tolerance
