"""Vision Transformers: sizes, positions, features, the head, stochastic depth, engines."""

from __future__ import annotations

import pytest
import torch

from retinue.errors import UsageError
from retinue.inference.engines import compile_engine, installed
from retinue.models.registry import create_model
from retinue.models.transformer import EncoderBlock, resample_positions
from retinue.training.features.frozen import Trunk
from retinue.weights.loading import load_into

SMALL = {"width": 48, "depth": 3, "heads": 4, "num_classes": 10}
NAMES = ["vit_base_patch16", "vit_base_r50_s16"]


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


def build(name="vit_base_patch16", **arguments):
    return create_model(name, **{**SMALL, **arguments}).eval()


def enliven(network):
    """Weights of a size at which every token speaks up."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=(parameter[0].numel()) ** -0.5)
    return network


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_other_sizes(name):
    """384 pixels, and what is not square; the logits of an image have no batch's size in them."""
    network = enliven(build(name))
    for size in [(384, 384), (64, 160)]:
        x = torch.randn(2, 3, *size)
        logits = network(x)
        assert logits.shape == (2, 10)
        assert torch.allclose(network(x[1:]), logits[1:], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "mend"),
    [
        ("vit_base_patch16", (64, 100), "multiples of 16, 64 × 96 say"),
        ("vit_base_patch32", (10, 65), "multiples of 32, 32 × 64 say"),
        ("vit_huge_patch14", (224, 225), "multiples of 14, 224 × 224 say"),
    ],
)
def test_sizes_that_patches_do_not_tile_are_refused(name, size, mend):
    message = f"{size[0]} × {size[1]} is not made of patches"
    with pytest.raises(UsageError, match=message) as refused:
        build(name)(torch.zeros(1, 3, *size))
    assert mend in refused.value.mend


def test_the_hybrid_takes_any_size():
    network = build("vit_base_r50_s16")
    maps = network.features(torch.randn(1, 3, 65, 98))
    assert [tuple(m.shape[2:]) for m in maps] == [(17, 25), (9, 13), (5, 7)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 100}, "image_size 100 is not a multiple of the patch's 16 pixels"),
        ({"image_size": 0}, "image_size must be at least 1, not 0"),
        ({"heads": 5}, "5 heads cannot share a width of 48"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        build(**arguments)


def test_positions_of_the_native_grid_are_untouched():
    position = torch.randn(1, 17, 8)
    assert resample_positions(position, 4, 4) is position


def test_resampled_positions_keep_their_places():
    """A ramp over the rows stays one, and the class token's position is not part of the grid."""
    rows = torch.arange(8.0)[:, None].expand(8, 8).reshape(1, 64, 1)
    position = torch.cat([torch.full((1, 1, 1), 100.0), rows], 1)
    for grid in [(16, 8), (8, 16), (4, 2)]:
        resampled = resample_positions(position, *grid)
        assert resampled[0, 0, 0] == 100
        places = resampled[0, 1:, 0].reshape(grid)
        # Row r's centre is at (r + ½) · 8 / rows − ½ of the old rows; borders are bent.
        expected = (torch.arange(grid[0]) + 0.5) * 8 / grid[0] - 0.5
        inner = slice(grid[0] // 4, -(grid[0] // 4))
        assert torch.allclose(places[inner], expected[inner, None].expand(-1, grid[1]), atol=0.15)
        assert torch.allclose(places, places[:, :1], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_positions_of_another_grid_are_loaded_and_said(name):
    trained, larger = build(name, image_size=64), build(name, image_size=96)
    report = load_into(larger, trained.state_dict())
    key = f"{larger.embedding}.position"
    assert report.adapted == (key,)
    assert report.complete
    assert not report.reinitialised
    expected = resample_positions(trained.state_dict()[key], 6, 6)
    assert torch.equal(larger.state_dict()[key], expected)
    # and with them, the smaller network agrees with the larger one on the larger one's images
    x = torch.randn(1, 3, 96, 96)
    assert torch.allclose(trained(x), larger(x), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 12, 48), (1, 1, 48), (17, 48), (1, 17, 40)])
def test_what_is_no_grid_of_positions_does_not_fit(shape):
    assert build().adapt("stem.position", torch.zeros(shape)) is None


def test_grey_images_take_the_sum_of_the_colours():
    colour = enliven(build(image_size=32))
    grey = build(image_size=32, in_channels=1)
    assert load_into(grey, colour.state_dict()).adapted == ("stem.conv.weight",)
    x = torch.randn(1, 1, 32, 32)
    assert torch.allclose(grey(x), colour(x.expand(1, 3, 32, 32)), atol=1e-5)


@torch.no_grad()
def test_features_are_the_tokens_in_their_places():
    """What happens in one corner of the image is seen in that corner of the map, as long as nothing
    mixes the places."""
    network = enliven(build(depth=1))
    network.blocks[0].attention.project.weight.zero_()
    x = torch.randn(1, 3, 128, 192)
    changed = x.clone()
    changed[..., :16, -16:] += 3.0
    (before,), (after,) = network.features(x), network.features(changed)
    assert before.shape == (1, 48, 8, 12)
    moved = (before - after).abs().sum((0, 1))
    assert moved.nonzero().tolist() == [[0, 11]]


@torch.no_grad()
def test_features_are_the_last_blocks_tokens():
    network = build()
    x = torch.randn(2, 3, 64, 32)
    tokens = network.run(x)
    assert tokens.shape == (2, 1 + 4 * 2, 48)
    (features,) = network.features(x)
    assert torch.equal(features[:, :, 3, 1], tokens[:, -1])
    assert torch.equal(network.head.pool(tokens), tokens[:, 0])


def test_levels():
    def indices(name):
        return [(level.index, level.channels) for level in build(name).feature_levels]

    assert indices("vit_base_patch16") == [(4, 48)]
    assert indices("vit_base_patch32") == [(5, 48)]
    assert indices("vit_base_r50_s16") == [(2, 256), (3, 512), (4, 48)]
    assert indices("vit_huge_patch14") == []
    assert build("vit_huge_patch14").features(torch.zeros(1, 3, 28, 28)) == []


@pytest.mark.parametrize("name", NAMES)
def test_stochastic_depth_rises_linearly(name):
    network = create_model(name, width=48, heads=4, depth=5, drop_path=0.2)
    rates = [m.drop_path.rate for m in network.modules() if isinstance(m, EncoderBlock)]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    single = create_model(name, width=48, heads=4, depth=1, drop_path=0.2)
    assert single.blocks[0].drop_path.rate == 0


def test_stochastic_depth_drops_branches_of_whole_samples():
    block = EncoderBlock(8, heads=2, norm_eps=1e-6, drop_path=0.5).train()
    x = torch.randn(1, 5, 8).expand(400, 5, 8)
    outcomes = torch.unique(block(x).flatten(1).detach().mul(1e4).round(), dim=0)
    assert len(outcomes) == 4  # each of the two branches there or not
    kept = torch.isclose(block(x), x).all(2).all(1).float().mean().item()
    assert kept == pytest.approx(0.25, abs=0.08)


@torch.no_grad()
def test_pre_logits():
    network = enliven(build(representation_size=30, num_classes=21_843))
    assert network.head.pre_logits.weight.shape == (30, 48)
    state = network.run(torch.randn(2, 3, 32, 32))
    head = network.head
    hidden = torch.tanh(head.norm(state[:, 0]) @ head.pre_logits.weight.T + head.pre_logits.bias)
    assert torch.allclose(head(state), hidden @ head.fc.weight.T + head.fc.bias, atol=1e-5)
    network.reset_head(7)
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert network.head.pre_logits.weight.shape == (30, 48)
    assert network.arguments["representation_size"] == 30


def test_fresh_weights():
    network = build(width=192, depth=2)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif name not in ("stem.conv.weight", "head.fc.weight"):
            assert parameter.std().item() == pytest.approx(0.02 * 0.88, rel=0.1), (
                name
            )  # cut off at 2 σ
            assert parameter.abs().max() <= 0.04
    assert network.stem.conv.weight.std().item() == pytest.approx((3 * 256) ** -0.5, rel=0.05)
    assert network.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("vit_base_patch16", "openvino"),
        pytest.param("vit_base_patch16", "onnxruntime", marks=pytest.mark.slow),
        pytest.param("vit_base_r50_s16", "openvino", marks=pytest.mark.slow),
        pytest.param("vit_base_r50_s16", "onnxruntime", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_engines_agree_at_cuts_and_at_other_sizes(name, engine):
    """Whole, and as the trunk and the rest that a cached training has; with the positions of
    another grid than the native one."""
    if not installed(engine):
        pytest.skip(f"needs {engine}")
    network = enliven(build(name, image_size=64, depth=2))
    x = torch.randn(4, 3, 96, 64)
    whole = network(x)
    compiled = compile_engine(network, x, engine=engine)
    assert compiled.name == engine
    assert torch.allclose(compiled(x[:3]), whole[:3], atol=1e-3)
    cut = len(network.units()) - 1
    trunk = compile_engine(Trunk(network, cut).eval(), x, engine=engine)
    assert torch.allclose(network(trunk(x), start=cut), whole, atol=1e-3)


@torch.no_grad()
def test_autocast_agrees_on_other_grids():
    network = enliven(build(image_size=64, num_classes=100))
    x = torch.randn(4, 3, 96, 64)
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = network(x).float()
    assert (actual - expected).pow(2).mean().sqrt() < 0.1 * expected.std()
    half = build(image_size=64, num_classes=100).to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16
