"""GoogLeNet's taps and auxiliary classifiers, its two forms, and their checkpoints."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from retinue.errors import RetinueError, UsageError
from retinue.models.googlenet import INCEPTIONS
from retinue.models.registry import create_model
from retinue.tasks.classification.task import Classification
from retinue.training.features.frozen import FrozenPart
from retinue.weights.layout import layouts, untranslate

BLOCKS = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
UNITS = ["stem", "stages.0.0", "stages.0.1"] + [
    f"stages.{int(name[0]) - 2}.{'abcde'.index(name[1])}" for name in BLOCKS
]


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


def build(name="googlenet", *, dropout=0.0, **arguments):
    """With its auxiliary classifiers; nothing is dropped in any of the three."""
    network = create_model(name, **{"num_classes": 5, "auxiliary": True, **arguments})
    network.head.dropout.p = dropout
    for head in network.head.auxiliary:
        head.dropout.p = dropout
    return network


def count(network):
    return sum(p.numel() for p in network.parameters())


def on_meta(name, **arguments):
    with torch.device("meta"):
        return create_model(name, **arguments)


# -- parameters -----------------------------------------------------------------------------------


def test_published_counts():
    assert count(on_meta("googlenet")) == 6_624_904
    assert count(on_meta("googlenet", auxiliary=True)) == 13_004_888


def test_counts_of_the_original_by_hand():
    """Table 1's weights, and a bias a channel."""
    stem = 7 * 7 * 3 * 64 + 64
    reduced = 64 * 64 + 64
    second = 3 * 3 * 64 * 192 + 192
    blocks, channels, sums = [], 192, []
    for one, r3, three, r5, five, proj in [row for stage in INCEPTIONS for row in stage]:
        weights = channels * (one + r3 + r5 + proj) + 9 * r3 * three + 25 * r5 * five
        blocks.append(weights + one + r3 + three + r5 + five + proj)
        channels = one + three + five + proj
        sums.append(channels)
    # The column "output size" of the table.
    assert sums == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    # 3a: 192·(64 + 96 + 16 + 32) + 9·96·128 + 25·16·32 weights, 368 biases; "159K" in the table.
    assert blocks[0] == 39_936 + 110_592 + 12_800 + 368
    total = stem + reduced + second + sum(blocks) + 1024 * 1000 + 1000
    assert total == 6_998_552
    auxiliary = [c * 128 + 128 + 2048 * 1024 + 1024 + 1024 * 1000 + 1000 for c in (512, 528)]
    assert count(on_meta("googlenet_original")) == total
    assert count(on_meta("googlenet_original", auxiliary=True)) == total + sum(auxiliary)


def test_auxiliary_key_names_are_frozen():
    """As golden/googlenet.json does for the rest: an entry is never changed."""
    state = on_meta("googlenet", auxiliary=True).state_dict()
    plain = on_meta("googlenet").state_dict()
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["conv.conv.weight", *(f"conv.norm.{n}" for n in norm)]
    names += [f"fc{k}.{n}" for k in (1, 2) for n in ("weight", "bias")]
    expected = {f"head.auxiliary.{i}.{name}" for i in (0, 1) for name in names}
    assert set(state) - set(plain) == expected
    assert state["head.auxiliary.0.conv.conv.weight"].shape == (128, 512, 1, 1)
    assert state["head.auxiliary.1.conv.conv.weight"].shape == (128, 528, 1, 1)


# -- taps -----------------------------------------------------------------------------------------


def test_units():
    network = on_meta("googlenet", auxiliary=True)
    assert [unit.name for unit in network.units()] == UNITS


@torch.no_grad()
def test_eval_gives_logits_and_training_the_auxiliary_ones_too():
    network = build().eval()
    x = torch.randn(2, 3, 64, 48)
    assert network(x).shape == (2, 5)
    outputs = network.train()(x)
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {
        "logits": (2, 5),
        "auxiliary": (2, 2, 5),
    }
    assert set(create_model("googlenet", num_classes=5).train()(x)) == {"logits"}


def taps_after(cut):
    return sum(UNITS.index(name) < cut for name in ("stages.2.0", "stages.2.3"))


@torch.no_grad()
def test_every_cut_composes_in_training_mode():
    """Also if what lies before the cut ran in eval mode, as a cached trunk does."""
    network = build().train()
    x = torch.randn(4, 3, 64, 64)
    network(x)
    whole = network(x)
    state = x
    for cut, unit in enumerate([*network.units(), None]):
        parts = state if isinstance(state, tuple) else (state,)
        assert len(parts) == 1 + taps_after(cut)
        again = network(state, start=cut)
        for key, value in whole.items():
            assert torch.equal(again[key], value), (cut, key)
        if unit is not None:
            state = network.run(state, start=cut, stop=cut + 1)
    assert torch.equal(network.head(network.head.pool(state)), whole["logits"])

    for cut in (4, 7, 12):
        network.train()
        for unit in network.units()[:cut]:
            unit.module.eval()
        whole = network(x)
        trunk = network.eval().run(x, stop=cut)
        network.train()
        for unit in network.units()[:cut]:
            unit.module.eval()
        again = network(trunk, start=cut)
        assert all(torch.equal(again[key], whole[key]) for key in whole)


@torch.no_grad()
def test_every_cut_composes_in_eval_mode():
    network = build().eval()
    x = torch.randn(2, 3, 64, 64)
    whole = network(x)
    for cut in range(len(UNITS) + 1):
        assert torch.equal(network(network.run(x, stop=cut), start=cut), whole)


def test_a_cache_keeps_small_taps():
    network = build()
    cpu = torch.device("cpu")
    sizes = {
        cut: [
            field.shape
            for field in FrozenPart(network, cut, cpu).layout((224, 224)).fields
            if field.name.startswith("state")
        ]
        for cut in (3, 6, 9, 12)
    }
    # Rows are channels-last.
    assert sizes[3] == [(56, 56, 192)]
    assert sizes[6] == [(14, 14, 512), (4, 4, 512)]
    assert sizes[9] == [(14, 14, 528), (4, 4, 512), (4, 4, 528)]
    assert sizes[12] == [(1024,), (4, 4, 512), (4, 4, 528)]  # what the head pools


def test_taps_that_are_missing_are_noticed():
    network = build().train()
    x = torch.randn(2, 3, 64, 64)
    state = network.run(x, stop=7)
    with pytest.raises(ValueError, match="1 taps for 2"):
        network(state[0], start=7)
    without = create_model("googlenet", num_classes=5).train()
    with pytest.raises(ValueError, match="2 taps for 0"):
        without(network.run(x), start=12)


def test_first_head_sees_4a_and_second_4d():
    network = build().train()
    for head, reached, beyond in (
        (0, "stages.2.0.conv3.conv.weight", "stages.2.1.conv3.conv.weight"),
        (1, "stages.2.3.conv3.conv.weight", "stages.2.4.conv3.conv.weight"),
    ):
        network.zero_grad()
        network(torch.randn(4, 3, 64, 64))["auxiliary"][head].pow(2).sum().backward()
        learns = {k for k, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert {reached, f"head.auxiliary.{head}.fc2.weight"} <= learns
        assert not {beyond, f"head.auxiliary.{1 - head}.fc2.weight"} & learns


def test_loss_weighs_the_auxiliary_heads():
    network = build(num_classes=3).train()
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 1])
    outputs = network(images)
    objective = Classification(["x", "y", "z"]).objective(network)
    parts = objective(outputs, {"label": labels}).parts
    expected = sum(F.cross_entropy(x, labels, reduction="none") for x in outputs["auxiliary"])
    torch.testing.assert_close(parts["auxiliary"], 0.3 * expected)
    sum(part.mean() for part in parts.values()).backward()
    silent = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_head_reset_renews_all_three_classifiers():
    network = build()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.reset_head(7)
    after = network.state_dict()
    names = ("head.fc", "head.auxiliary.0.fc2", "head.auxiliary.1.fc2")
    assert network.classifiers == names
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    assert network.train()(torch.randn(2, 3, 64, 64))["auxiliary"].shape == (2, 2, 7)


# -- the paper's form -----------------------------------------------------------------------------


def paper(state, x):
    """Table 1 and figure 3, line by line; logits of both auxiliary heads and of the classifier."""

    def conv(x, name, **options):
        weight = state[f"{name}.conv.weight"]
        padding = weight.shape[-1] // 2
        return F.conv2d(x, weight, state[f"{name}.conv.bias"], padding=padding, **options).relu()

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def local_norm(x):
        squares = F.pad(x.pow(2), (0, 0, 0, 0, 2, 2))
        near = sum(squares[:, k : k + x.shape[1]] for k in range(5))
        return x / (1 + 1e-4 / 5 * near) ** 0.75

    def inception(x, name):
        return torch.cat(
            [
                conv(x, f"{name}.conv1"),
                conv(conv(x, f"{name}.conv3_reduce"), f"{name}.conv3"),
                conv(conv(x, f"{name}.conv5_reduce"), f"{name}.conv5"),
                conv(F.max_pool2d(x, 3, 1, 1), f"{name}.pool_proj"),
            ],
            1,
        )

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def auxiliary(x, name):
        y = conv(F.avg_pool2d(x, 5, 3), f"{name}.conv").flatten(1)
        return linear(linear(y, f"{name}.fc1").relu(), f"{name}.fc2")

    x = local_norm(pool(conv(x, "stem", stride=2)))
    x = pool(local_norm(conv(conv(x, "stages.0.0"), "stages.0.1")))
    x = pool(inception(inception(x, "stages.1.0"), "stages.1.1"))
    x = inception(x, "stages.2.0")
    first = auxiliary(x, "head.auxiliary.0")
    for i in (1, 2, 3):
        x = inception(x, f"stages.2.{i}")
    second = auxiliary(x, "head.auxiliary.1")
    x = pool(inception(x, "stages.2.4"))
    x = inception(inception(x, "stages.3.0"), "stages.3.1")
    return torch.stack([first, second]), linear(x.mean((2, 3)), "head.fc")


@torch.no_grad()
def test_original_is_the_paper():
    network = build("googlenet_original").train()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.uniform_(-0.5, 0.5)
        else:
            parameter.normal_(std=math.sqrt(2 / parameter[0].numel()))
    x = torch.randn(2, 3, 224, 224)
    auxiliary, logits = paper(network.state_dict(), x)
    outputs = network(x)
    for ours, expected in ((outputs["logits"], logits), (outputs["auxiliary"], auxiliary)):
        assert expected.std() > 0.05
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_sizes_that_do_not_fit_are_named():
    with torch.device("meta"):
        for name, least in (("googlenet", 15), ("googlenet_original", 31)):
            network = create_model(name).eval()
            assert network(torch.empty(1, 3, least, least)).shape == (1, 1000)
            with pytest.raises(UsageError, match=f"{least} × {least} or more"):
                network(torch.empty(1, 3, 64, least - 1))
        network = create_model("googlenet_original", auxiliary=True)
        for side in (223, 270):
            network(torch.empty(2, 3, side, side))
        for side in (222, 271):
            with pytest.raises(UsageError, match="223 to 270"):
                network(torch.empty(2, 3, side, 224))


# -- checkpoints ----------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    """`checkpoint(auxiliary)`: a network's tensors, and torchvision's file of them."""

    def save(auxiliary):
        network = create_model("googlenet", num_classes=5, auxiliary=auxiliary)
        path = tmp_path / "googlenet.pth"
        torch.save(untranslate(layouts("googlenet")[0], network.state_dict()), path)
        return network.state_dict(), path

    return save


def test_auxiliary_tensors_that_are_not_wanted_are_left_out(checkpoint):
    saved, path = checkpoint(True)
    network = create_model("googlenet", num_classes=5, weights=str(path))
    state = network.state_dict()
    assert not [key for key in state if "auxiliary" in key]
    assert all(torch.equal(state[key], saved[key]) for key in state)
    assert (network.preprocessing.mean, network.preprocessing.std) == ((0.5,) * 3, (0.5,) * 3)


def test_auxiliary_tensors_that_are_wanted_are_read(checkpoint):
    saved, path = checkpoint(True)
    network = create_model("googlenet", num_classes=5, auxiliary=True, weights=str(path))
    assert all(torch.equal(v, saved[k]) for k, v in network.state_dict().items())


def test_auxiliary_tensors_that_are_wanted_and_not_there_are_an_error(checkpoint):
    saved, path = checkpoint(False)
    with pytest.raises(RetinueError, match=r"head\.auxiliary\.0\.conv\.conv\.weight"):
        create_model("googlenet", num_classes=5, auxiliary=True, weights=str(path))
    network = create_model(
        "googlenet", num_classes=5, auxiliary=True, weights=str(path), partial_weights=True
    )
    assert torch.equal(network.state_dict()["head.fc.weight"], saved["head.fc.weight"])


def test_other_classes_renew_all_three_classifiers(checkpoint, caplog):
    saved, path = checkpoint(True)
    with caplog.at_level("INFO", logger="retinue"):
        network = create_model("googlenet", num_classes=9, auxiliary=True, weights=str(path))
    assert "re-initialised: head.fc.weight, head.fc.bias, head.auxiliary.0.fc2" in caplog.text
    state = network.state_dict()
    assert torch.equal(state["head.auxiliary.1.fc1.weight"], saved["head.auxiliary.1.fc1.weight"])
    assert state["head.auxiliary.1.fc2.weight"].shape == (9, 1024)


def test_torchvision_has_no_original(checkpoint):
    _, path = checkpoint(False)
    with pytest.raises(RetinueError, match="the weights belong to another network"):
        create_model("googlenet_original", num_classes=5, weights=str(path))
    with pytest.raises(RetinueError, match="not written"):
        untranslate(layouts("googlenet")[0], create_model("googlenet_original").state_dict())


# -- as a course teaches it ------------------------------------------------------------------------


def test_without_response_normalisation_and_with_other_dropouts():
    network = create_model(
        "googlenet_original", num_classes=5, auxiliary=True, response_norm=False,
        auxiliary_dropout=0.5, auxiliary_input_dropout=0.25,
    )  # fmt: skip
    assert not any(isinstance(m, torch.nn.LocalResponseNorm) for m in network.modules())
    first = network.head.auxiliary[0]
    assert (first.input_dropout.p, first.dropout.p) == (0.25, 0.5)
    usual = create_model("googlenet_original", num_classes=5, auxiliary=True).head.auxiliary[0]
    assert (usual.input_dropout.p, usual.dropout.p) == (0.0, 0.7)
    network.load_state_dict(
        create_model("googlenet_original", num_classes=5, auxiliary=True).state_dict()
    )
    with pytest.raises(UsageError, match="auxiliary_dropout must be at least 0 and below 1"):
        on_meta("googlenet_original", auxiliary_dropout=1.0)


def test_drops_before_the_hidden_layer_in_training_only():
    head = build(auxiliary_input_dropout=0.5).head.auxiliary[1]
    tap = torch.rand(1, 528, 4, 4)
    assert torch.equal(head.eval()(tap), head(tap))
    assert not torch.equal(head.train()(tap), head(tap))


def test_what_a_fresh_one_sees_stays_of_a_size():
    """Without normalisation nothing else keeps 22 layers from making it ever larger."""
    network = create_model("googlenet_original", num_classes=5, response_norm=False).eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, 224, 224))
    assert 1e-4 < logits.std() < 1
