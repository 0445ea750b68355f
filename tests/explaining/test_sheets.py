"""What a network holds, as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import squares
import thin
import torch
from PIL import Image
from squares import picture, predictor

from retinue.errors import UsageError
from retinue.explaining import sheets
from retinue.models.registry import create_model
from retinue.sample import Sample


def colours(sheet: np.ndarray) -> set[tuple[int, int, int]]:  # type: ignore[type-arg]
    return {tuple(pixel) for pixel in sheet.reshape(-1, 3).tolist()}


def test_kernels_in_the_colours_that_they_take() -> None:
    network = squares.Squares(squares.WEIGHTS)
    sheet = sheets.kernels(network)
    assert sheet.dtype == np.uint8
    # Each kernel is 1 in one of the channels, and 0 in the others.
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= colours(sheet)
    with torch.no_grad():
        network.stem.weight.zero_()
    assert (128, 128, 128) in colours(sheets.kernels(network))  # what does not vary is grey


def test_kernels_of_other_inputs_and_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    thin.register(monkeypatch)
    grey = sheets.kernels(create_model("mnist_cnn", num_classes=3, in_channels=1))
    assert (np.ptp(grey[40:], axis=2) == 0).all()
    many = thin.build("vit_thin")
    conv = many.get_submodule("stem.conv")
    assert isinstance(conv, torch.nn.Conv2d)
    conv.weight = torch.nn.Parameter(torch.randn(300, 3, 16, 16))
    assert sheets.kernels(many).shape[0] < 400  # 28 of 48 pixels, not 300


def test_feature_maps_of_each_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thin.register(monkeypatch)
    path = tmp_path / "a.png"
    Image.fromarray(picture((64, 48), (8, 8, 40, 40, 1))).save(path)
    for name in ("resnet18", "vit_thin"):
        network = thin.build(name)
        how = network.preprocessing
        made = predictor(network=network, how=how, classes=[*"abcde"])
        sheet = sheets.feature_maps(made, Sample(str(path)))
        rows = 1 + 2 * len(network.feature_levels)
        assert sheet.shape[0] > rows * 112
        assert not any(m._forward_hooks for m in network.modules())
    with pytest.raises(UsageError, match="no feature levels"):
        sheets.levels_of(squares.Squares(squares.WEIGHTS))


def test_position_maps_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    thin.register(monkeypatch)
    network = thin.build("vit_thin", image_size=32)
    position = network.get_parameter("stem.position")
    with torch.no_grad():  # each place is like itself, unlike its opposite, and at right angles
        position.zero_()
        for place, (axis, sign) in enumerate(((0, 1), (1, 1), (1, -1), (0, -1))):
            position[0, 1 + place, axis] = sign
    sheet = sheets.position_maps(network)
    dark, middle, bright = (68, 1, 84), (33, 145, 140), (253, 231, 37)
    assert {dark, middle, bright} <= colours(sheet)
    first = sheet[30:60, 5:40].reshape(-1, 3)
    assert {tuple(first[0]), tuple(first[-1])} == {bright, dark}
    grid = network.positions()
    assert grid is not None
    assert grid.shape == (2, 2, 48)
    with pytest.raises(UsageError, match="no position embeddings"):
        sheets.position_maps(thin.build("resnet18"))
