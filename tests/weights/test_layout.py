"""Reading and writing other libraries' checkpoints, by a layout made up here."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from retinue.errors import RetinueError
from retinue.models.registry import create_model, find, list_models
from retinue.weights import layout as layout_module
from retinue.weights.layout import (
    Layout,
    Origin,
    all_layouts,
    keras_origins,
    recognise,
    rename,
    translate,
    untranslate,
)


def origins(shapes):
    found = rename(shapes, [(r"fc\.", "classifier."), (r"blocks\.(\d)\.", r"layer\1.")])
    found["blocks.0.qkv"] = Origin(
        ("layer0.q", "layer0.k"), lambda q, k: torch.cat([q, k]), lambda t: t.chunk(2)
    )
    return found


LAYOUT = Layout(
    source="theirs",
    family="made_up",
    marks=("layer0.q", "layer0.w"),
    origins=origins,
    ignored=(r"steps$",),
)
SHAPES = {"blocks.0.qkv": (4, 3), "blocks.0.w": (2,), "fc.weight": (5, 2)}
STATE = {
    "layer0.q": torch.arange(6.0).reshape(2, 3),
    "layer0.k": 10 + torch.arange(6.0).reshape(2, 3),
    "layer0.w": torch.ones(2),
    "classifier.weight": torch.full((5, 2), 7.0),
    "steps": torch.tensor(9),
}


def test_both_ways():
    ours = translate(LAYOUT, STATE, SHAPES)
    assert set(ours) == set(SHAPES)
    assert ours["blocks.0.qkv"][:, 0].tolist() == [0, 3, 10, 13]
    assert ours["fc.weight"] is STATE["classifier.weight"]
    back = untranslate(LAYOUT, ours)
    assert set(back) == set(STATE) - {"steps"}
    assert all(torch.equal(back[key], STATE[key]) for key in back)
    assert all(tensor.is_contiguous() for tensor in back.values())


def test_what_is_left_over_never_goes_under_one_of_our_names():
    state = {**STATE, "fc.weight": torch.zeros(5, 2)}
    ours = translate(LAYOUT, state, SHAPES)
    assert ours["fc.weight"] is STATE["classifier.weight"]
    assert ours["theirs's fc.weight"] is state["fc.weight"]


def test_what_is_left_over_keeps_its_name_and_what_lacks_is_left_out():
    state = {**STATE, "more.w": torch.zeros(1)}
    del state["layer0.k"]
    ours = translate(LAYOUT, state, SHAPES)
    assert set(ours) == {"blocks.0.w", "fc.weight", "layer0.q", "more.w"}


def test_tensors_that_do_not_fit_together_are_named():
    state = {**STATE, "layer0.k": torch.zeros(2, 4)}
    with pytest.raises(RetinueError, match=r"blocks\.0\.qkv is not made of layer0\.q"):
        translate(LAYOUT, state, SHAPES)


def test_no_way_back_is_said():
    one_way = Layout(
        source="theirs",
        family="made_up",
        marks=(),
        origins=lambda shapes: {key: Origin((key,), torch.neg, None) for key in shapes},
    )
    with pytest.raises(RetinueError, match="theirs made_up are read, but not written"):
        untranslate(one_way, {"a": torch.zeros(1)})


def test_a_key_without_a_rule_is_a_mistake():
    with pytest.raises(ValueError, match=r"no rule for 'b\.x'"):
        rename({"a.x": (1,), "b.x": (1,)}, [(r"a\.", "c.")])


def test_recognition_prefers_the_family_and_the_most_marks(monkeypatch):
    def made(family, *marks):
        return Layout(source=" ".join(marks), family=family, marks=marks, origins=origins)

    known = (made("one", "a"), made("one", "a", "b"), made("two", "a"), made("two", "c"))
    monkeypatch.setattr(layout_module, "all_layouts", lambda: known)
    state = {key: torch.zeros(1) for key in "ab"}
    assert recognise(state, "one") is known[1]
    assert recognise(state, "two") is known[2]
    assert recognise({"x": torch.zeros(1)}, "two").source == "retinue"
    with pytest.raises(RetinueError, match="the weights are those of c two, not of one"):
        recognise({"c": torch.zeros(1)}, "one")


def test_keras_kernels_turn_and_biases_are_folded():
    shapes = {
        "conv.weight": (8, 3, 5, 4),
        "depthwise.weight": (8, 1, 5, 4),
        "norm.running_mean": (8,),
        "norm.weight": (8,),
        "norm.num_batches_tracked": (),
        "head.fc.weight": (10, 8),
        "head.fc.bias": (10,),
    }
    found = keras_origins(shapes, lambda module: module.upper(), folded={"norm": "CONV"}.get)
    layout = Layout(source="keras", family="x", marks=(), origins=lambda _: found)
    state = {
        "CONV/kernel": torch.randn(5, 4, 3, 8),
        "CONV/bias": torch.randn(8),
        "DEPTHWISE/depthwise_kernel": torch.randn(5, 4, 8, 1),
        "NORM/moving_mean": torch.randn(8),
        "NORM/gamma": torch.randn(8),
        "HEAD.FC/kernel": torch.randn(1, 1, 8, 10),
        "HEAD.FC/bias": torch.randn(10),
    }
    ours = translate(layout, state, shapes)
    assert {key: tuple(t.shape) for key, t in ours.items()} == {
        key: shape for key, shape in shapes.items() if shape
    }
    assert ours["conv.weight"][7, 2, 4, 3] == state["CONV/kernel"][4, 3, 2, 7]
    assert ours["depthwise.weight"][7, 0, 4, 3] == state["DEPTHWISE/depthwise_kernel"][4, 3, 7, 0]
    assert ours["head.fc.weight"][9, 7] == state["HEAD.FC/kernel"][0, 0, 7, 9]
    # (conv + bias − mean) is (conv − (mean − bias))
    assert torch.equal(ours["norm.running_mean"], state["NORM/moving_mean"] - state["CONV/bias"])


DARKNETS = ("darknet53", "darknet", "yolov3", "yolov3_tiny")
"""Families that have files of Darknet's, which have no keys."""
READ_ONLY = {
    ("keras", "resnet"),
    ("google", "vit"),
    ("google", "hybrid_vit"),
    *(("darknet", family) for family in DARKNETS),
    ("torchvision", "googlenet_original"),  # which folds their norms away
}


FORMS = {
    ("keras", "yolov3"): {"backbone": "tf_efficientnet_b0"},
    ("keras", "xception"): {"head": {"name": "glu", "auxiliary": True}},
}
"""What a network is built with so that a layout is its."""

SMALLEST: dict[str, int] = {}
for entry in map(find, list_models()):
    SMALLEST[entry.family] = min(SMALLEST.get(entry.family, 10**10), entry.parameters)
# Of each family the smallest ones are quick enough, but for those that have none.
LARGE = {
    name
    for name in list_models()
    if find(name).parameters > min(20e6, max(7e6, 1.1 * SMALLEST[find(name).family]))
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in list_models()]
)
def test_every_layout_of_every_network_both_ways(name):
    """There and back again is where it began; the values of the large ones are not looked at."""
    for layout in layout_module.layouts(find(name).family):
        arguments = FORMS.get((layout.source, name), {})
        with torch.device("meta" if find(name).parameters > 50e6 else "cpu"):
            tensors = create_model(name, num_classes=7, **arguments).state_dict()
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        if READ_ONLY & {(layout.source, layout.family), (layout.source, name)}:
            with pytest.raises(RetinueError, match="are read, but not written"):
                untranslate(layout, tensors)
            continue
        back = translate(layout, untranslate(layout, tensors), shapes)
        without = {key for key in shapes if key not in back}
        assert all(key.endswith(".num_batches_tracked") for key in without)
        assert {key: tuple(tensor.shape) for key, tensor in back.items()} == {
            key: shape for key, shape in shapes.items() if key not in without
        }
        assert all(back[key].is_meta or torch.equal(back[key], tensors[key]) for key in back)


def test_every_layout_is_some_networks_and_recognised():
    """By the keys from which our tensors are made; a misspelt mark would show here."""
    unmet = [layout for layout in all_layouts() if not layout.takes_any]
    for name in sorted(list_models(), key=lambda name: find(name).parameters):
        family = find(name).family
        if not any(layout.family == family for layout in unmet):
            continue
        wide = [{"representation_size": 8}] if family in ("vit", "hybrid_vit") else []
        for further in ({}, *wide):
            for layout in [layout for layout in unmet if layout.family == family]:
                arguments = {**FORMS.get((layout.source, name), {}), **further}
                with torch.device("meta"):
                    tensors = create_model(name, num_classes=7, **arguments).state_dict()
                shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
                origins = layout.origins(shapes).values()
                state = {key: torch.empty(0) for origin in origins for key in origin.keys}
                if set(layout.marks) <= set(state):
                    assert recognise(state, family).origins is layout.origins
                    unmet = [other for other in unmet if other is not layout]
    assert {(layout.source, layout.family) for layout in unmet} == {
        ("darknet", family) for family in DARKNETS
    }


def test_no_checkpoint_is_taken_for_another_familys():
    """Marks that two families share are met only where the checkpoints look alike."""
    alike = {
        frozenset({"efficientnet", "mobilenet_v2"}),
        frozenset({"efficientnet", "yolov3"}),  # which has it within itself
        frozenset({"mnist", "vgg"}),  # Keras' layers without names: the shapes tell them apart
        *(frozenset(pair) for pair in combinations(DARKNETS, 2)),
    }
    marked = [layout for layout in all_layouts() if not layout.takes_any]
    for one in marked:
        for other in marked:
            if one.family < other.family and set(one.marks) <= set(other.marks):
                assert frozenset({one.family, other.family}) in alike, (one, other)


def test_what_is_of_no_use_is_named():
    assert layout_module.left_out(LAYOUT, STATE, SHAPES) == ("steps",)
    used = {**SHAPES, "blocks.0.steps": ()}
    kept = Layout(
        source="theirs",
        family="made_up",
        marks=(),
        origins=lambda shapes: {"blocks.0.steps": Origin(("steps",))},
        ignored=(r"steps$",),
    )
    assert layout_module.left_out(kept, STATE, used) == ()
