"""MobileNetV1's real ImageNet weights, Google's by Keras' names, on real photographs."""

from __future__ import annotations

import csv
import logging

import pytest
import torch
from seen import pixels

from retinue.data.colour import Colour
from retinue.models.registry import create_model
from retinue.sample import Sample

NAME = "mobilenet_v1_025"
LEAST_TOP1, LEAST_TOP5 = 0.52, 0.74


@pytest.fixture(scope="module")
def weights(shared):
    folder = shared("weights/mobilenet_v1_0.25_224")
    return str(folder / "mobilenet_v1_0.25_224_imagenet_keras.npz")


@pytest.fixture(scope="module")
def photographs(shared):
    """Every second one: (images as bytes, labels)."""
    folder = shared("data/imagenet-samples")
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[::2]
    samples = [Sample(str(folder / "images" / row["file"])) for row in rows]
    labels = torch.tensor([int(row["class_index"]) for row in rows])
    return pixels(samples, create_model(NAME).preprocessing), labels


@torch.no_grad()
def accuracy(network, photographs):
    """Top-1 and top-5."""
    images, labels = photographs
    colour, hits = Colour(network.preprocessing), []
    for part, truth in zip(images.split(50), labels.split(50), strict=True):
        hits.append(network(colour.normalised(part)).topk(5).indices == truth[:, None])
    found = torch.cat(hits).float()
    return found[:, 0].mean().item(), found.sum(1).mean().item()


def test_right_names(weights, photographs, caplog):
    with caplog.at_level(logging.INFO, logger="retinue"):
        network = create_model(NAME, weights=weights).eval()
    assert "missing" not in caplog.text
    assert "re-initialised" not in caplog.text
    assert network.arguments["same_padding"] is True  # as the layout says
    assert network.arguments["norm_eps"] == 1e-3
    top1, top5 = accuracy(network, photographs)
    print(f"{NAME}: top-1 {top1:.3f}, top-5 {top5:.3f} on {len(photographs[1])} photographs")
    assert top1 >= LEAST_TOP1
    assert top5 >= LEAST_TOP5


def test_symmetric_padding_would_be_seen(weights, photographs):
    images, labels = photographs
    fewer = images[::2], labels[::2]
    right = accuracy(create_model(NAME, weights=weights).eval(), fewer)
    wrong = accuracy(create_model(NAME, weights=weights, same_padding=False).eval(), fewer)
    assert wrong[0] < right[0] - 0.02
