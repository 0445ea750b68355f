"""Taps: what is kept behind the tensor that flows on, for a neck."""

from __future__ import annotations

import copy

import pytest
import thin
import torch
from torch import nn

from retinue.errors import UsageError
from retinue.models.anatomy import anatomy
from retinue.models.network import Level, Network, Unit, as_backbone, joined, split, tapped
from retinue.models.registry import create_model
from retinue.training.features.frozen import FrozenPart

BACKBONES = ["resnet18", "mobilenet_v2_035", "mobilenet_v3_small_050", "efficientnet_b0"]


@pytest.fixture(autouse=True)
def _seed(one_thread):
    torch.manual_seed(0)


class Neck(nn.Module):
    """(C5, C3, C4) to three maps as wide, each with what lies above it added, finest first."""

    def __init__(self, levels: list[Level]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(level.channels, 8, 1) for level in levels)

    def forward(self, state):
        deepest, finer = split(state)
        maps = [conv(m) for conv, m in zip(self.lateral, [*finer, deepest], strict=True)]
        for i in (1, 0):
            maps[i] = maps[i] + nn.functional.interpolate(maps[i + 1], size=maps[i].shape[2:])
        return tuple(maps)


class Predictions(nn.Module):
    """Each map's own values, joined over all places: (n, places, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 3, 1)

    def forward(self, state):
        x, more = split(state)
        return torch.cat([self.conv(m).flatten(2).transpose(1, 2) for m in (x, *more)], 1)


class Detector(Network):
    """Levels 3 to 5 of any network, a neck and a head."""

    def __init__(self, backbone: Network) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = Neck([level for level in backbone.feature_levels if level.index in (3, 4, 5)])
        self.head = Predictions()

    def units(self):
        chain = tapped(self.backbone, [3, 4, 5], prefix="backbone.")
        return [*chain, Unit("neck", self.neck, joins=True)]

    @property
    def feature_levels(self):
        return [level for level in self.backbone.feature_levels if level.index in (3, 4, 5)]


def build(name):
    network = thin.build(name).eval()
    for module in network.modules():  # so that no block is all but the identity
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def walk(units, state):
    for unit in units:
        state = unit.advance(state)
    return state


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_taps_are_the_features(name):
    network = build(name)
    x = torch.randn(2, 3, 64, 96)
    state, expected = x, []
    for unit in network.units():  # features by hand
        state = unit.module(state)
        if unit.level is not None:
            expected.append(state)
    features = network.features(x)
    assert len(features) == len(expected) == 4
    assert all(torch.equal(a, b) for a, b in zip(features, expected, strict=True))
    units = tapped(network, [3, 4, 5])
    deepest, finer = split(walk(units, x))
    assert all(torch.equal(a, b) for a, b in zip([*finer, deepest], expected[1:], strict=True))
    for cut in range(len(units) + 1):  # stopped anywhere, and continued
        again = walk(units[cut:], walk(units[:cut], x))
        assert all(torch.equal(a, b) for a, b in zip(again, [deepest, *finer], strict=True))


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_a_detector_is_cut_anywhere(name):
    detector = Detector(build(name)).eval()
    x = torch.randn(2, 3, 64, 96)
    whole = detector(x)
    assert whole.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 3)
    state = x
    for cut in range(len(detector.units()) + 1):
        assert torch.equal(detector(state, start=cut), whole)
        if cut < len(detector.units()):
            state = detector.run(state, start=cut, stop=cut + 1)
    by_hand = detector.backbone.features(x)[1:]
    assert torch.equal(detector.head(detector.neck((by_hand[2], *by_hand[:2]))), whole)
    assert all(torch.equal(a, b) for a, b in zip(detector.features(x), by_hand, strict=True))


def test_a_detector_has_its_groups_and_its_cache():
    detector = Detector(build("resnet18"))
    for name, parameters in detector.parameter_groups()[:-1]:
        assert {id(p) for p in detector.get_submodule(name).parameters()} == set(
            map(id, parameters)
        )
    names = [unit.name for unit in detector.units()]
    assert (names[0], names[-2], names[-1]) == ("backbone.stem", "backbone.stages.3.1", "neck")
    cpu = torch.device("cpu")
    sizes = {
        cut: [
            field.shape
            for field in FrozenPart(detector, cut, cpu).layout((64, 64)).fields
            if field.name.startswith("state")
        ]
        for cut in (4, 5, 7, 9)
    }
    # Rows are channels-last.
    assert sizes[4] == [(8, 8, 128)]  # inside a stage
    assert sizes[5] == [(8, 8, 128), (8, 8, 128)]  # what flows on, and C3
    assert sizes[7] == [(4, 4, 256), (8, 8, 128), (4, 4, 256)]
    assert sizes[9] == [(2, 2, 512), (8, 8, 128), (4, 4, 256)]  # C5 but once


@pytest.mark.parametrize("name", [*BACKBONES, "googlenet"])
def test_a_backbone_has_nothing_idle(name):
    """What no gradient would reach is gone; what is left computes as before, in one group each."""
    whole = build(name)
    detector = Detector(as_backbone(copy.deepcopy(whole), [3, 4, 5]))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = whole.features(x)[-3:]
        features = detector.eval().features(x)
    assert all(torch.equal(a, b) for a, b in zip(features, expected, strict=True))
    detector.train()(x)["logits"].square().sum().backward()
    assert not [k for k, p in detector.named_parameters() if p.grad is None]
    grouped = [id(p) for _, group in detector.parameter_groups() for p in group]
    assert sorted(grouped) == sorted(map(id, detector.parameters()))
    with torch.device("meta"), pytest.raises(UsageError, match="no feature level 3"):
        as_backbone(create_model("vit_base_patch32", depth=1), [3])


def test_gradient_reaches_what_learns_behind_a_cached_cut():
    detector = Detector(build("resnet18")).train()
    with torch.no_grad():
        state = detector.eval().run(torch.randn(2, 3, 64, 64), stop=5)
    outputs = detector.train()(state, start=5)
    assert set(outputs) == {"logits"}
    outputs["logits"].square().sum().backward()
    learns = {k for k, p in detector.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"neck.lateral.0.weight", "backbone.stages.2.0.conv1.conv.weight"} <= learns
    assert not [k for k in learns if k.startswith(("backbone.stem", "backbone.stages.1"))]


@torch.no_grad()
def test_a_neck_without_its_taps_is_noticed():
    detector = Detector(build("resnet18")).eval()
    deepest, finer = split(detector.run(torch.randn(1, 3, 64, 64), stop=9))
    for state, said in ((deepest, "0 taps for 2"), ((deepest, *finer, deepest), "3 taps for 2")):
        with pytest.raises(ValueError, match=said):
            detector(state, start=9)
        with pytest.raises(ValueError, match=said):
            detector.run(state, start=9)
    assert detector(joined(deepest, finer), start=9).shape[2] == 3


def test_levels_that_a_network_lacks():
    with torch.device("meta"):
        network = create_model("vit_base_patch32", depth=1)
    with pytest.raises(UsageError, match="no feature level 3, vit_base_patch32, it has 5"):
        tapped(network, [3, 4, 5])
    with pytest.raises(UsageError, match="choose a network that has levels"):
        tapped(create_model("mnist_cnn"), [5])
    assert tapped(network, []) == []
    assert create_model("mnist_cnn").features(torch.randn(1, 3, 28, 28)) == []


def test_only_the_wanted_levels_are_kept():
    network = build("mobilenet_v2_035")
    units = tapped(network, [2, 4])
    assert units[-1].level == 4  # and nothing is computed beyond
    deepest, finer = split(walk(units, torch.randn(1, 3, 64, 64)))
    assert [tuple(m.shape[2:]) for m in (deepest, *finer)] == [(4, 4), (16, 16)]
    ours = create_model("googlenet", auxiliary=True)
    assert [u.name for u in ours.units() if u.tap] == ["stages.2.0", "stages.2.3"]
    assert [u.name for u in tapped(ours) if u.tap] == ["stages.0.1", "stages.1.1", "stages.2.4"]


def test_anatomy_of_a_detector():
    detector = Detector(build("resnet18"))
    *chain, neck, head = anatomy(detector, (64, 64))
    assert neck.output == (8, 8, 8)  # its finest map
    assert head.output == (84, 3)
    assert neck.macs == 8 * (128 * 64 + 256 * 16 + 512 * 4)
    assert sum(row.parameters for row in (*chain, neck, head)) == sum(
        p.numel()
        for unit in [*detector.units(), Unit("head", detector.head)]
        for p in unit.module.parameters()
    )
