"""What every network promises, whatever its family."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import pytest
import thin
import torch
from thin import ENTRIES, SMALL, SMALLEST, THIN, build, size
from torch import nn

from retinue import modelfile
from retinue.modelfile import ModelDescription
from retinue.models.blocks import ClassifierHead
from retinue.models.network import Network, Unit
from retinue.models.registry import create_model, find, list_models

GOLDEN = Path(__file__).parent / "golden"
# The smallest member of each family; the giants are computed on the meta device only.
ALL = [
    *THIN,
    *(
        pytest.param(entry.name, marks=[] if entry.name in SMALL else pytest.mark.slow)
        for entry in ENTRIES
        if entry.parameters < 100e6 or entry in SMALLEST.values()
    ),
]

BIG = {entry.name for entry in SMALLEST.values()} - set(SMALL)
EACH_FAMILY = [
    *SMALL,
    *(
        pytest.param(e.name, marks=pytest.mark.slow)
        for e in SMALLEST.values()
        if e.name not in SMALL
    ),
]


@pytest.fixture(autouse=True)
def _seed(one_thread, monkeypatch):
    thin.register(monkeypatch)
    torch.manual_seed(0)


@pytest.mark.parametrize(
    "name",
    [pytest.param(e.name, marks=[pytest.mark.slow] * (e.parameters > 60e6)) for e in ENTRIES],
)
def test_shapes(name, meta):
    """Output and declared features of every network, without computing anything."""
    network = meta(name)
    x = torch.empty(2, 3, *size(name), device="meta")
    assert network(x).shape == (2, 1000)
    levels, maps = network.feature_levels, network.features(x)
    indices = [level.index for level in levels]
    assert indices == sorted(set(indices))
    assert [level.stride for level in levels] == [2**k for k in indices]
    for level, features in zip(levels, maps, strict=True):
        assert features.shape[:2] == (2, level.channels)
        # Networks without padding lose pixels at their borders (AlexNet: two and a quarter).
        for side, length in zip(features.shape[2:], x.shape[2:], strict=True):
            assert abs(side - length / level.stride) <= 2.25


PYRAMIDS = "resnet* resnext* mobilenet* *efficientnet_* vgg* googlenet* darknet53 xception"


@pytest.mark.parametrize("name", [n for p in PYRAMIDS.split() for n in list_models(p)])
def test_pyramids_have_all_levels(name, meta):
    """What a detector builds on."""
    assert {2, 3, 4, 5} <= {level.index for level in meta(name).feature_levels}


@pytest.mark.parametrize("name", list_models())
def test_units_hold_every_parameter_once(name, meta):
    network = meta(name)
    groups = network.parameter_groups()
    assert groups[0][0] in ("stem", "backbone.stem", "layers.0")
    assert groups[-1][0] == "head"
    grouped = [id(p) for _, parameters in groups for p in parameters]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    names = [unit.name for unit in network.units()]
    assert len(set(names)) == len(names)
    for unit in network.units():
        assert network.get_submodule(unit.name) is unit.module


@pytest.mark.parametrize("name", list_models())
def test_the_zoo_is_cut_anywhere(name, meta):
    network = meta(name)
    assert network.cuts() == list(range(len(network.units()) + 1))


class Foreign(Network):
    """A network that computes as a whole, with groups of parameters as fine as its layers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3))
        self.head = ClassifierHead(6, 5)

    def units(self):
        return [Unit(f"body.{i}", self.body[i]) for i in (0, 2)]

    def cuts(self):
        return [0, 2]

    def run(self, x, *, start=0, stop=None):
        assert {start, 2 if stop is None else stop} <= {0, 2}
        return x if start == 2 or stop == 0 else self.body(x)


@torch.no_grad()
def test_a_foreign_network_has_fine_groups_and_one_cut():
    network = Foreign().eval()
    groups = network.parameter_groups()
    assert [name for name, _ in groups] == ["body.0", "body.2", "head"]
    assert sum(len(parameters) for _, parameters in groups) == len(list(network.parameters()))
    x = torch.randn(2, 3, 8, 8)
    whole = network(x)
    for cut in network.cuts():
        assert torch.equal(network(network.run(x, stop=cut), start=cut), whole)
    network.reset_head(7)
    network.replace_head(nn.Linear(network.pooled_features, 9))
    assert network(x).shape == (2, 9)


@pytest.mark.parametrize("name", ALL)
def test_gradient_reaches_every_parameter(name):
    network = build(name).train()
    outputs = network(torch.randn(2, 3, *size(name, 64)))
    assert set(outputs) == {"logits"}
    nn.functional.cross_entropy(outputs["logits"], torch.tensor([1, 4])).backward()
    silent = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_every_cut_composes_to_forward(name):
    network = build(name).eval()
    x = torch.randn(1, 3, *size(name, 64))
    whole = network(x)
    state = x
    for cut in range(len(network.units()) + 1):
        assert torch.equal(network(state, start=cut), whole)
        if cut < len(network.units()):
            state = network.run(state, start=cut, stop=cut + 1)
    assert torch.equal(network.head(network.head.pool(state)), whole)  # pooled features, too


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_channels_last_agrees(name):
    """With float64 as the truth: the memory format changes nothing there, and in float32 no more
    than rounding does anyway (which a deep network of random weights amplifies)."""
    network = build(name).eval()
    x = _enliven(network, name)
    exact = copy.deepcopy(network).double()
    truth = exact(x.double())

    def error(logits):
        return ((logits - truth).abs().max() / truth.std()).item()

    last = x.to(memory_format=torch.channels_last)
    rounding = max(error(network(x)), 1e-6)
    assert error(exact.to(memory_format=torch.channels_last)(last.double())) <= 1e-8
    assert error(network.to(memory_format=torch.channels_last)(last)) <= 10 * rounding


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_bfloat16_agrees(name):
    network = build(name, num_classes=200).eval()
    x = _enliven(network, name)
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = network(x).float()
    error = (actual - expected).pow(2).mean().sqrt()
    assert 1e-6 < error / expected.std() < 0.3
    # Random weights amplify 8 bits' rounding layer by layer, and a fresh network's logits are all
    # but the same for all images. Of what differs between them, unrelated logits would be 1.4 off.
    assert error / (expected - expected.mean(0)).std() < 0.8


def _enliven(network, name):
    """Take the statistics of a batch, so that a fresh network's logits are not all but constant,
    and return it: on other images, so few samples would leave some channels out of scale. Norms
    shift upwards: activations that cut off half of what they get make rounding grow layer by layer
    (Yang et al., 2019, "A Mean Field Theory of Batch Normalization")."""
    images = torch.randn(4, 3, *size(name, 64))
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.bias.uniform_(0, 1)
    network(images)
    network.eval()
    return images


@pytest.mark.parametrize("name", EACH_FAMILY)
def test_head_reset(name):
    network = build(name)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.reset_head(9)
    assert network.arguments["num_classes"] == 9
    assert network.eval()(torch.randn(1, 3, *size(name, 64))).shape == (1, 9)
    after = network.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    classifiers = [f"{c}.{kind}" for c in network.classifiers for kind in ("weight", "bias")]
    assert changed <= set(classifiers)
    assert all(after[key].shape[0] == 9 for key in classifiers)


@pytest.mark.parametrize("name", EACH_FAMILY)
@torch.no_grad()
def test_save_and_load(name, tmp_path):
    network = build(name, num_classes=3, dropout=0.5).eval()
    _enliven(network, name)
    path = tmp_path / "model.safetensors"
    modelfile.write(
        path,
        network.state_dict(),
        ModelDescription(
            task="classification",
            classes=["a", "b", "c"],
            network=network.name,
            arguments=dict(network.arguments),
            preprocessing=network.preprocessing.as_dict(),
        ),
    )
    description, tensors = modelfile.read(path)
    again = create_model(description.network, **description.arguments).eval()
    again.load_state_dict(tensors)
    x = torch.randn(1, 3, *size(name, 64))
    assert torch.equal(again(x), network(x))
    assert description.arguments == network.arguments
    # and as first weights of a network with other classes
    warm = create_model(name, num_classes=4, weights=str(path))
    first = f"{network.input_layer}.weight"
    assert torch.equal(warm.get_parameter(first), network.get_parameter(first))


# Weight standardisation rescales the hybrid's summed kernel: grey is only near to grey as RGB.
@pytest.mark.parametrize("name", [name for name in EACH_FAMILY if "r50" not in str(name)])
@torch.no_grad()
def test_weights_for_colour_images_take_others(name, tmp_path, caplog):
    """Grey images give what they would give as RGB; a fourth channel is taken, too; both are
    said."""
    network = build(name).eval()
    _enliven(network, name)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    grey = torch.randn(2, 1, *size(name, 64))
    caplog.set_level("INFO", "retinue")
    adapted = build(name, in_channels=1, weights=str(path)).eval()
    assert f"adapted: {network.input_layer}.weight" in caplog.text
    expected = network(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(adapted(grey), expected, rtol=1e-3, atol=1e-3)
    four = build(name, in_channels=4, weights=str(path)).eval()
    weight = four.get_parameter(f"{network.input_layer}.weight")
    ours = network.get_parameter(f"{network.input_layer}.weight")
    assert torch.equal(weight[:, 3], weight[:, 0])
    torch.testing.assert_close(weight[:, :3], 0.75 * ours)


@torch.no_grad()
def test_drop_path_in_training_only_and_mean_kept():
    network = create_model("efficientnet_b0", num_classes=5, drop_path=0.9)
    block = network.stages[5][3]
    x = torch.ones(20_000, 1, 1, 1)
    dropped = block.drop_path.train()(x)
    keep = 1 - 0.9 * 14 / 16
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0.0, 1 / keep])
    assert dropped.mean().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(block.drop_path.eval()(x), x)


def fingerprint(state):
    lines = [f"{key} {tuple(tensor.shape)}" for key, tensor in sorted(state.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", list_models())
def test_key_names_are_frozen(name, meta):
    """Model files of people out there hold these names. A new network is added to the file; an
    entry of it is never changed. One file a family."""
    golden = json.loads((GOLDEN / f"{find(name).family}.json").read_text())
    state = meta(name).state_dict()
    assert fingerprint(state) == golden["fingerprints"][name]
    for key, shape in golden["spelled_out"].get(name, {}).items():
        assert list(state[key].shape) == shape
