"""Heads that any network can be given: linear, MLP, and ones of one's own with several outputs."""

from __future__ import annotations

import copy

import pytest
import thin
import torch
from pydantic import ValidationError
from thin import SMALL, build, size
from torch import nn

from retinue import modelfile
from retinue.errors import UsageError
from retinue.modelfile import ModelDescription
from retinue.models import heads
from retinue.models.anatomy import anatomy
from retinue.models.heads import build_head, head_choice, list_heads, register_head
from retinue.models.options import ModelOptions
from retinue.models.registry import create_model
from retinue.options import Options
from retinue.weights.layout import layouts, untranslate

MLP = {
    "name": "mlp",
    "hidden": [12, 6],
    "input_dropout": 0.0,
    "dropout": 0.0,
    "activation": "gelu",
}


@pytest.fixture(autouse=True)
def _seed(one_thread, monkeypatch):
    thin.register(monkeypatch)
    torch.manual_seed(0)


class GatedOptions(Options):
    width: int = 8


class Gated(nn.Module):
    """Several outputs: the feature under a gate, its logits, and logits of the feature as it is."""

    classifiers = ("fc", "plain")

    def __init__(self, features: int, num_classes: int, options: GatedOptions) -> None:
        super().__init__()
        self.gate = nn.Linear(features, options.width)
        self.feature = nn.Linear(features, options.width)
        self.fc = nn.Linear(options.width, num_classes, bias=False)
        self.plain = nn.Linear(options.width, num_classes)

    def forward(self, x):
        plain = self.feature(x)
        feature = plain * self.gate(x).sigmoid()
        logits = self.fc(feature)
        if not self.training:
            return logits
        return {"logits": logits, "feature": feature, "auxiliary": self.plain(plain)}


@pytest.fixture
def gated(monkeypatch):
    monkeypatch.setattr(heads, "_HEADS", dict(heads._HEADS))
    register_head("gated", GatedOptions, Gated)


def description(network):
    return ModelDescription(
        task="classification",
        classes=[f"class {i}" for i in range(network.arguments["num_classes"])],
        network=network.name,
        arguments=dict(network.arguments),
        preprocessing=network.preprocessing.as_dict(),
    )


# -- every family ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_every_family_takes_every_head(name, gated, tmp_path):
    """Shapes, gradients, and a model file that builds the same network by what it says."""
    x = torch.randn(2, 3, *size(name, 64))
    for head, keys in ((MLP, {"logits"}), ("gated", {"logits", "feature", "auxiliary"})):
        network = build(name, head=head).train()
        outputs = network(x)
        assert set(outputs) == keys
        assert outputs["logits"].shape == (2, 5)
        sum(value.square().sum() for value in outputs.values()).backward()
        silent = [k for k, p in network.named_parameters() if p.grad is None]
        assert not silent

        network.eval()
        path = tmp_path / "model.safetensors"
        modelfile.write(path, network.state_dict(), description(network))
        said, tensors = modelfile.read(path)
        assert said.arguments == network.arguments
        assert said.arguments["head"] == head_choice(head)
        again = create_model(said.network, **said.arguments).eval()
        again.load_state_dict(tensors)
        expected = network(x)
        assert expected.shape == (2, 5)
        assert torch.equal(again(x), expected)
        pooled = again.head(again.head.pool(again.run(x)))
        assert torch.equal(pooled, expected)

        before = copy.deepcopy(network.state_dict())
        network.reset_head(9)
        assert network(x).shape == (2, 9)
        renewed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
        assert renewed == {key for key in before if key.rpartition(".")[0] in network.classifiers}
        assert network.arguments["num_classes"] == 9


@pytest.mark.parametrize("name", SMALL)
def test_linear_is_what_the_family_has(name):
    """Key for key and number for number, named or not."""
    torch.manual_seed(1)
    plain = build(name)
    torch.manual_seed(1)
    named = build(name, head={"name": "linear"})
    assert named.arguments == plain.arguments
    assert "head" not in plain.arguments
    assert named.classifiers == plain.classifiers
    states = plain.state_dict(), named.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_the_familys_own_hidden_layers_stay():
    for name, hidden in (("mobilenet_v3_small_050", "head.hidden"), ("vgg_thin", "head.fc7")):
        network = build(name, head=MLP)
        last = network.get_submodule(hidden)
        assert network.pooled_features == last.out_features
        assert network.head.fc.hidden[0].in_features == last.out_features
        assert network.classifiers == ("head.fc.fc",)


def test_googlenet_keeps_its_auxiliary_classifiers(gated):
    network = create_model("googlenet", num_classes=5, auxiliary=True, head=MLP).train()
    assert network.classifiers == ("head.fc.fc", "head.auxiliary.0.fc2", "head.auxiliary.1.fc2")
    outputs = network(torch.randn(2, 3, 64, 64))
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {
        "logits": (2, 5),
        "auxiliary": (2, 2, 5),
    }
    both = create_model("googlenet", num_classes=5, auxiliary=True, head="gated").train()
    with pytest.raises(UsageError, match=r"both give 'auxiliary', googlenet.*auxiliary=False"):
        both(torch.randn(2, 3, 64, 64))


# -- the MLP --------------------------------------------------------------------------------------


@torch.no_grad()
def test_mlp_by_hand():
    head = build_head(head_choice({"name": "mlp", "hidden": [2]}), 2, 1)
    head.hidden[0].weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]))
    head.hidden[0].bias.copy_(torch.tensor([0.5, 0.0]))
    head.fc.weight.copy_(torch.tensor([[2.0, 3.0]]))
    head.fc.bias.fill_(-1.0)
    # 2·max(0, 3 + 8 + 0.5) + 3·max(0, −3 + 2) − 1
    assert head(torch.tensor([[3.0, 4.0]])).item() == 22.0


@torch.no_grad()
def test_mlp_drops_in_training_only():
    head = build_head(head_choice({"name": "mlp", "hidden": [5000], "dropout": 0.4}), 1, 1)
    head.hidden[0].bias.fill_(1.0)
    head.hidden[0].weight.zero_()
    head.fc.weight.fill_(1 / 5000)
    assert head.eval()(torch.ones(1, 1)).item() == pytest.approx(1, rel=1e-4)
    kept = head.train()(torch.ones(50, 1))
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    assert kept.std() > 1e-3


def test_mlp_drops_what_it_is_given_too():
    choice = head_choice({"name": "mlp", "hidden": [1], "input_dropout": 0.5})
    head = build_head(choice, 5000, 1)
    with torch.no_grad():
        head.hidden[0].weight.fill_(1 / 5000)
        head.fc.weight.fill_(1.0)
    x = torch.ones(1, 5000, requires_grad=True)
    head.train()(x).sum().backward()
    # What is kept counts twice, so that the mean stays.
    assert sorted(set((x.grad[0] * 5000).round().tolist())) == [0.0, 2.0]
    assert (x.grad > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert head.eval()(torch.ones(1, 5000)).item() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "hard_swish", "tanh"])
def test_every_activation_is_the_one_of_its_name(activation):
    head = build_head(head_choice({"name": "mlp", "activation": activation}), 4, 2)
    x = torch.randn(3, 4)
    hidden = head.hidden[0](x)
    function = {"hard_swish": nn.functional.hardswish, "tanh": torch.tanh}.get(activation)
    function = function or getattr(nn.functional, activation)
    torch.testing.assert_close(head(x), head.fc(function(hidden)))


def test_a_fresh_mlp_keeps_the_size_of_what_it_sees():
    """Its hidden layers are drawn so that depth neither drowns nor blows up the feature."""
    head = build_head(head_choice({"name": "mlp", "hidden": [512] * 4}), 512, 2)
    x = torch.randn(64, 512)
    for layer in head.hidden:
        x = head.act(layer(x))
    assert 0.5 < x.square().mean() < 2


def test_a_gated_linear_unit_by_hand():
    head = build_head(head_choice({"name": "glu", "features": 2, "auxiliary": True}), 3, 2)
    with torch.no_grad():
        head.value.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 2, 0]]))
        head.value.bias.copy_(torch.tensor([0.0, 1]))
        head.gate.weight.copy_(torch.tensor([[0.0, 0, 1], [0, 0, 0]]))
        head.fc.weight.copy_(torch.tensor([[1.0, 0], [1, 1]]))
        head.fc.bias.zero_()
        head.auxiliary.weight.copy_(torch.tensor([[1.0, 1, 1], [0, 0, 0]]))
        head.auxiliary.bias.copy_(torch.tensor([0.0, 5]))
    given = head.train()(torch.tensor([[3.0, 4, 0]]))
    # σ(0) is a half: 3 · ½ and (2 · 4 + 1) · ½
    assert given["feature"].tolist() == [[1.5, 4.5]]
    assert given["logits"].tolist() == [[1.5, 6.0]]
    assert given["auxiliary"].tolist() == [[7.0, 5.0]]
    answered = head.eval()(torch.tensor([[3.0, 4, 0]]))
    assert sorted(answered) == ["auxiliary", "logits"]
    assert head.feature_width == 2


def test_a_gated_linear_unit_alone_answers_logits():
    head = build_head(head_choice("glu"), 10, 4)
    x = torch.randn(3, 10)
    assert sorted(head.train()(x)) == ["feature", "logits"]
    assert torch.equal(head(x)["logits"], head.eval()(x))
    assert head(x).shape == (3, 4)
    assert head.value.out_features == 64


def test_anatomy_counts_it():
    with torch.device("meta"):
        network = create_model("resnet18", num_classes=3, head={"name": "mlp", "hidden": [10]})
    head = anatomy(network, (64, 64))[-1]
    assert head.macs == 512 * 10 + 10 * 3
    assert head.parameters == 512 * 10 + 10 + 10 * 3 + 3
    assert head.output == (3,)


# -- weights --------------------------------------------------------------------------------------


@pytest.fixture
def linear_files(tmp_path):
    """A ResNet-18 with a linear head: its tensors, in our file and in torchvision's."""
    network = create_model("resnet18", num_classes=5)
    ours, theirs = tmp_path / "model.safetensors", tmp_path / "theirs.pth"
    modelfile.write(ours, network.state_dict(), description(network))
    layout = next(x for x in layouts("resnet") if x.source == "torchvision")
    torch.save(untranslate(layout, network.state_dict()), theirs)
    return network.state_dict(), (ours, theirs)


def same_trunk(network, saved):
    state = network.state_dict()
    trunk = [key for key in state if not key.startswith("head.fc")]
    return len(trunk) > 100 and all(torch.equal(state[key], saved[key]) for key in trunk)


def test_weights_with_a_linear_head_come_to_any(linear_files, caplog, gated):
    saved, paths = linear_files
    for path in paths:
        for head in (MLP, "gated"):
            for classes in (5, 7):
                caplog.clear()
                network = create_model("resnet18", num_classes=classes, weights=path, head=head)
                assert same_trunk(network, saved)
                fresh = [key for key in network.state_dict() if key.startswith("head.fc")]
                assert f"re-initialised: {', '.join(fresh)}" in caplog.text
                assert "missing" not in caplog.text
                assert "unexpected" not in caplog.text


def test_a_headless_file_comes_to_any(linear_files, tmp_path, caplog):
    saved, _ = linear_files
    path = tmp_path / "trunk.pth"
    torch.save({k: v for k, v in saved.items() if not k.startswith("head.")}, path)
    assert same_trunk(create_model("resnet18", num_classes=5, weights=path, head=MLP), saved)
    assert "re-initialised: head.fc.hidden.0.weight" in caplog.text


@pytest.fixture
def mlp_file(tmp_path):
    network = create_model("resnet18", num_classes=5, head=MLP)
    path = tmp_path / "mlp.safetensors"
    modelfile.write(path, network.state_dict(), description(network))
    return network.state_dict(), path


def test_a_files_own_head_is_built_and_filled(mlp_file, caplog):
    saved, path = mlp_file
    with caplog.at_level("INFO", "retinue"):
        network = create_model("resnet18", num_classes=5, weights=path)
    assert network.arguments["head"] == MLP
    assert "built with head={'name': 'mlp'" in caplog.text
    assert all(torch.equal(v, saved[k]) for k, v in network.state_dict().items())
    # other classes: the hidden layers stay
    other = create_model("resnet18", num_classes=3, weights=path).state_dict()
    assert other["head.fc.fc.weight"].shape == (3, 6)
    assert all(torch.equal(other[k], saved[k]) for k in saved if not k.startswith("head.fc.fc"))


@pytest.mark.parametrize(
    "head",
    [
        "linear",
        {"name": "mlp", "hidden": [12]},
        {"name": "mlp", "hidden": [12, 6, 6]},
        {"name": "mlp", "hidden": [13, 6]},
    ],
)
def test_another_head_than_the_files_is_drawn_anew(mlp_file, head, caplog):
    saved, path = mlp_file
    network = create_model("resnet18", num_classes=5, weights=path, head=head)
    assert same_trunk(network, saved)
    fresh = [key for key in network.state_dict() if key.startswith("head.fc")]
    assert f"re-initialised: {', '.join(fresh)}" in caplog.text


# -- what is asked for ----------------------------------------------------------------------------


def test_the_choice_is_spelled_out():
    assert head_choice("linear") == {"name": "linear"}
    assert head_choice({"name": "mlp"}) == {
        "name": "mlp", "hidden": [256], "input_dropout": 0.0, "dropout": 0.0, "activation": "relu",
    }  # fmt: skip
    assert {"linear", "mlp"} <= set(list_heads())


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("mpl", "unknown head 'mpl', did you mean 'mlp'"),
        ("nothing_like_it", "there are glu, linear, mlp"),
        ({}, "unknown head None"),
        ({"name": "mlp", "hiden": [3]}, "takes no 'hiden', did you mean 'hidden'"),
        ({"name": "linear", "hidden": [3]}, "the head linear takes no 'hidden', it takes nothing"),
        ({"name": "mlp", "hidden": []}, "the head mlp's hidden"),
        ({"name": "mlp", "hidden": [0]}, r"the head mlp's hidden\.0"),
        ({"name": "mlp", "dropout": 1.0}, "the head mlp's dropout"),
        ({"name": "mlp", "activation": "x"}, "the head mlp's activation"),
    ],
)
def test_what_is_no_head_is_refused(head, message):
    with pytest.raises(UsageError, match=message):
        create_model("mobilenet_v2_035", num_classes=3, head=head)
    with pytest.raises(ValidationError, match=message):
        ModelOptions(name="resnet18", head=head)


def test_a_head_too_wide_for_all_memory():
    with pytest.raises(UsageError, match="cannot be built"):
        create_model("mobilenet_v2_035", head={"name": "mlp", "hidden": [10**18]})


def test_duplicates_are_refused(gated):
    with pytest.raises(ValueError, match="'gated' is already registered"):
        register_head("gated", GatedOptions, Gated)


def test_options():
    assert ModelOptions(name="resnet18").head is None  # as one's own weights have it, else linear
    assert ModelOptions(name="resnet18", head="mlp").head["hidden"] == [256]
    chosen = ModelOptions(name="resnet18", head={"name": "mlp", "hidden": [3]})
    assert ModelOptions(**chosen.model_dump()) == chosen
    with pytest.raises(ValidationError, match=r"model\.head chooses it"):
        ModelOptions(name="resnet18", arguments={"head": "mlp"})
