"""A small model and pictures to predict on by parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predictors import CLASSES, describe, randomise

from retinue import modelfile
from retinue.models.registry import create_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the zoo: actors are other processes, which know no network of the tests'."""
    torch.manual_seed(0)
    network = create_model("mobilenet_v2_035", num_classes=len(CLASSES))
    randomise(network)
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    arguments = {"num_classes": len(CLASSES)}
    described = describe(network="mobilenet_v2_035", arguments=arguments)
    modelfile.write(path, network.state_dict(), described)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven pictures, `00.png` …; `03.png` is broken."""
    folder = tmp_path_factory.mktemp("pictures") / "photos 猫"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(11):
        pixels = rng.integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
    (folder / "03.png").write_bytes(b"no picture")
    return folder
