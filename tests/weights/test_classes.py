"""The classifier's rows go by the names of the classes, where both sides have them."""

from __future__ import annotations

import pytest
import torch

from retinue import modelfile
from retinue.errors import UsageError
from retinue.modelfile import ModelDescription
from retinue.models.registry import create_model
from retinue.weights.loading import load_into

NAMES = ("ash", "beech", "cedar", "douglas fir")
NETWORKS = {
    "mobilenet_v2_035": {},
    "googlenet": {"auxiliary": True},
    "mobilenet_v1_025": {"head": {"name": "mlp", "hidden": [7]}},
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def written(path, name, **arguments):
    """A network with classes of NAMES, and its model file."""
    network = create_model(name, num_classes=4, **arguments)
    for classifier in network.classifiers:
        torch.nn.init.normal_(network.get_submodule(classifier).bias)
    modelfile.write(
        path,
        network.state_dict(),
        ModelDescription(
            task="classification",
            classes=list(NAMES),
            network=name,
            arguments=dict(network.arguments),
            preprocessing=network.preprocessing.as_dict(),
        ),
    )
    return network.eval()


@pytest.fixture
def saved(tmp_path):
    return written(tmp_path / "m.safetensors", "mobilenet_v2_035"), tmp_path / "m.safetensors"


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_reordering_permutes_the_logits(name, tmp_path, caplog):
    """Exactly, and of auxiliary classifiers and other heads as well."""
    path = tmp_path / "m.safetensors"
    before = written(path, name, **NETWORKS[name])
    order = [2, 0, 3, 1]
    classes = [NAMES[i] for i in order]
    with caplog.at_level("INFO", "retinue"):
        after = create_model(name, classes=classes, weights=path, **NETWORKS[name]).eval()
    assert "classifier: 4 of 4 classes carried over by name" in caplog.text
    assert "re-initialised" not in caplog.text
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(after(x), before(x)[:, order])
    for classifier in before.classifiers:
        old, new = (network.get_submodule(classifier) for network in (before, after))
        assert torch.equal(new.weight, old.weight[order])
        assert torch.equal(new.bias, old.bias[order])
    same = before.state_dict().keys() - {
        f"{classifier}.{part}" for classifier in before.classifiers for part in ("weight", "bias")
    }
    assert all(torch.equal(after.state_dict()[k], before.state_dict()[k]) for k in same)


@torch.no_grad()
def test_adding_and_removing_keeps_what_is_known(saved, caplog):
    before, path = saved
    classes = ("elm", "cedar", "fig", "ash", "gorse", "hazel")
    after = create_model("mobilenet_v2_035", classes=classes, weights=path).eval()
    said = "classifier: 2 of 6 classes carried over by name, new: elm, fig, gorse, hazel"
    assert f"{said}; no longer: beech, douglas fir" in caplog.text
    assert "re-initialised" not in caplog.text
    assert after.arguments["num_classes"] == 6
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(after(x)[:, [1, 3]], before(x)[:, [2, 0]])
    fresh = after.head.fc.weight[[0, 2, 4, 5]]
    assert 0.005 < fresh.std() < 0.02  # as new classifiers are drawn
    assert len(fresh.unique(dim=0)) == 4
    assert not after.head.fc.bias[[0, 2, 4, 5]].any()


@torch.no_grad()
def test_as_many_classes_of_other_names_are_others(saved, caplog):
    before, path = saved
    network = create_model("mobilenet_v2_035", classes=["p", "q", "r", "s"], weights=path)
    assert not torch.isin(network.head.fc.weight, before.head.fc.weight).any()
    assert "re-initialised: head.fc.weight, head.fc.bias" in caplog.text
    assert "0 of 4 classes carried over by name, new: p, q, r, s" in caplog.text


@torch.no_grad()
def test_the_same_names_in_the_same_order_are_as_ever(saved, caplog):
    before, path = saved
    with caplog.at_level("INFO", "retinue"):
        network = create_model("mobilenet_v2_035", classes=NAMES, weights=path)
    assert torch.equal(network.head.fc.weight, before.head.fc.weight)
    assert "classifier kept, too" in caplog.text
    assert "by name" not in caplog.text


@torch.no_grad()
def test_without_names_on_either_side_the_number_counts(saved, tmp_path):
    before, path = saved
    kept = create_model("mobilenet_v2_035", num_classes=4, weights=path)
    assert torch.equal(kept.head.fc.weight, before.head.fc.weight)
    nameless = tmp_path / "w.pth"
    torch.save(before.state_dict(), nameless)
    kept = create_model("mobilenet_v2_035", classes=["p", "q", "r", "s"], weights=nameless)
    assert torch.equal(kept.head.fc.weight, before.head.fc.weight)


def test_another_head_is_drawn_anew_whatever_the_names(saved, caplog):
    _, path = saved
    create_model("mobilenet_v2_035", classes=NAMES[:2], weights=path, head="mlp")
    assert "re-initialised: head.fc.hidden.0.weight" in caplog.text
    assert "by name" not in caplog.text


def test_the_report_names_all():
    network = create_model("mobilenet_v1_025", num_classes=3)
    report = load_into(
        network,
        create_model("mobilenet_v1_025", num_classes=2).state_dict(),
        classes=["a", "b", "c"],
        theirs=["c", "x"],
    )
    assert report.classes is not None
    assert (report.classes.carried, report.classes.new, report.classes.gone) == (
        ("c",), ("a", "b"), ("x",),
    )  # fmt: skip
    assert report.complete
    assert not report.reinitialised


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"classes": ["a", "b", "a"]}, "the class 'a' is listed twice"),
        ({"classes": "ab"}, "classes are a list of names, not 'ab'"),
        ({"classes": ["a", 1]}, "classes are a list of names"),
        ({"classes": ["a", "b"], "num_classes": 3}, "num_classes is 3, and there are 2 classes"),
    ],
)
def test_impossible_names(keywords, message):
    with pytest.raises(UsageError, match=message):
        create_model("mobilenet_v2_035", **keywords)


def test_the_names_alone_tell_how_many():
    assert create_model("mobilenet_v2_035", classes=["a", "b"]).arguments["num_classes"] == 2
    both = create_model("mobilenet_v2_035", classes=["a", "b"], num_classes=2)
    assert both.head.fc.out_features == 2
