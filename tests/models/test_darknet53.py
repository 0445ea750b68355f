"""What DarkNet-53 is called after, and what detectors take from it."""

from __future__ import annotations

import torch
from torch import nn

from retinue.models.registry import create_model


def test_fifty_three_layers_that_learn_from_pixels_to_classes():
    with torch.device("meta"):
        network = create_model("darknet53")
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) + 1 == 53
    # the paper's table 1 has no pooling but the last: five of its convolutions halve the map
    assert sum(conv.stride == (2, 2) for conv in convs) == 5
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}


def test_levels_of_the_detector():
    """YOLOv3 at 416 pixels predicts on maps of 52, 26 and 13 cells a side."""
    with torch.device("meta"):
        network = create_model("darknet53").eval()
        maps = network.features(torch.empty(1, 3, 416, 416))
    assert [level.index for level in network.feature_levels] == [1, 2, 3, 4, 5]
    assert [tuple(m.shape[1:3]) for m in maps[-3:]] == [(256, 52), (512, 26), (1024, 13)]
