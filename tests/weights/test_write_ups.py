"""Files that four write-ups' own code has saved, by TensorFlow (`golden/make_write_ups.py`), heads
included: the same probabilities as TensorFlow's."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from retinue.errors import RetinueError
from retinue.models import alexnet, resnet, vgg, xception
from retinue.models.blocks import HiddenLayersHead
from retinue.models.network import Network
from retinue.models.registry import create_model
from retinue.weights import files

GOLDEN = Path(__file__).parents[1] / "golden" / "write_ups.zip"
MAIN = "main_29_8165_8075_8165_10000.model"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("write_ups")
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(found)
    return found


# The networks as narrow as those of the files, by our own code.


def _alexnet(weights: Path, **more: object) -> Network:
    form = alexnet.FORMS["half"]._replace(channels=(8, 8, 12, 12, 8), hidden=(16, 12))
    with patch.dict(alexnet.FORMS, half=form):
        return create_model("alexnet_half", num_classes=5, weights=weights, **more)


def _vgg(weights: Path, **more: object) -> Network:
    def head(*of: int, **keywords: object) -> HiddenLayersHead:
        return HiddenLayersHead(*of, hidden=(8, 6), **keywords)  # type: ignore[arg-type]

    with patch.multiple(vgg, WIDTHS=(4, 4, 6, 6, 4), HiddenLayersHead=head):
        return create_model("vgg11", num_classes=5, weights=weights, **more)


def _resnet(weights: Path, **more: object) -> Network:
    depths = {**resnet.DEPTHS, 50: (2, 1, 1, 1)}
    with patch.multiple(resnet, WIDTHS=(2, 3, 4, 5), DEPTHS=depths):
        return create_model("resnet50", **{"num_classes": 5, "weights": weights, **more})


def _xception(weights: Path, **more: object) -> Network:
    narrow = {"ENTRY": ((6, 6), (7, 7), (8, 8)), "MIDDLE": ((8, 8, 8),) * 2, "EXIT": (8, 9),
              "TOP": (10, 12)}  # fmt: skip
    with patch.multiple(xception, **narrow):
        return create_model("xception", num_classes=5, weights=weights, **more)


def _efficientnet(weights: Path, **more: object) -> Network:
    small = {"width": 0.1, "depth": 0.1, "num_classes": 5}
    return create_model("efficientnet_b0", weights=weights, **{**small, **more})


def _quick_start(weights: Path, **more: object) -> Network:
    return create_model("mnist_cnn", num_classes=5, image_size=4, weights=weights, **more)


FILES: dict[str, tuple[Callable[..., Network], int]] = {
    "myAlex.h5": (_alexnet, 224),
    "myAlex.ckpt": (_alexnet, 224),
    "myVGG.h5": (_vgg, 224),
    "epoch_3.h5": (_efficientnet, 40),
    MAIN: (_xception, 71),
    "resNet_50.ckpt": (_resnet, 70),
    "whole.ckpt": (_resnet, 70),
    "pretrain_weights.ckpt": (_resnet, 70),
    "quick_start.ckpt": (_quick_start, 4),
}


def picture(side: int) -> torch.Tensor:
    """The one that TensorFlow was shown."""
    values = np.sin(0.7 * np.arange(side * side * 3) ** 1.1).astype(np.float32)
    return torch.from_numpy(values.reshape(1, side, side, 3)).permute(0, 3, 1, 2)


def probabilities(network: Network, side: int) -> list[torch.Tensor]:
    with torch.inference_mode():
        answer = network.eval()(picture(side))
    several = [answer] if isinstance(answer, torch.Tensor) else list(answer.values())
    return [logits[0].softmax(0) for logits in several]


@pytest.mark.parametrize("name", FILES)
def test_its_answers_are_those_of_tensorflow(name: str, folder: Path) -> None:
    build, side = FILES[name]
    alike = {"myAlex.ckpt": "myAlex.h5", "pretrain_weights.ckpt": "whole.ckpt"}
    known = np.load(folder / f"{alike.get(name, name)}.npy")
    if name.startswith("epoch"):  # which answers logits
        known = torch.from_numpy(known).softmax(1).numpy()
    answers = probabilities(build(folder / name), side)
    assert len(answers) == len(known)
    for ours, theirs in zip(answers, known, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-4)
        assert np.ptp(theirs) > 0.03  # and these are answers


def test_heads_are_built_as_the_files_have_them(folder: Path) -> None:
    head = _resnet(folder / "resNet_50.ckpt").arguments["head"]
    assert head == {
        "name": "mlp", "hidden": [7], "input_dropout": 0.5, "dropout": 0.5, "activation": "relu",
    }  # fmt: skip
    gated = _xception(folder / MAIN).arguments["head"]
    assert gated == {"name": "glu", "features": 3, "dropout": 0.0, "auxiliary": True}
    assert "head" not in _resnet(folder / "whole.ckpt").arguments


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resNet_50.ckpt", "linear"),
        (MAIN, "linear"),
        ("resNet_50.ckpt", "glu"),
        ("whole.ckpt", "mlp"),
    ],
)
def test_another_head_is_drawn_anew(
    name: str, head: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build, _ = FILES[name]
    with caplog.at_level(logging.INFO, "retinue"):
        built = build(folder / name, head=head)
    assert "re-initialised: head.fc." in caplog.text
    published = build(folder / name).state_dict()
    for key, tensor in built.state_dict().items():
        assert key.startswith("head.fc.") or torch.equal(tensor, published[key])


def test_other_classes_keep_the_hidden_layer(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "retinue"):
        network = _resnet(folder / "resNet_50.ckpt", num_classes=3)
    assert "re-initialised: head.fc.fc.weight, head.fc.fc.bias" in caplog.text
    same = _resnet(folder / "resNet_50.ckpt").get_submodule("head.fc.hidden.0").weight
    assert torch.equal(network.get_submodule("head.fc.hidden.0").weight, same)


def test_a_new_head_on_the_courses_network(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "retinue"):
        network = _resnet(folder / "pretrain_weights.ckpt", head={"name": "mlp", "hidden": [4]})
    assert "re-initialised: head.fc.hidden.0.weight" in caplog.text
    assert network.first_drawn == len(network.units())  # nothing before the head


def test_the_preprocessing_comes_with_the_weights(folder: Path) -> None:
    prepared = _resnet(folder / "resNet_50.ckpt").preprocessing
    np.testing.assert_allclose(np.array(prepared.mean) * 255, (123.68, 116.78, 103.94))
    np.testing.assert_allclose(np.array(prepared.std) * 255, (1, 1, 1))
    assert prepared.fit == "squash"
    assert _alexnet(folder / "myAlex.h5").preprocessing.std == (1.0, 1.0, 1.0)


def test_of_another_family(folder: Path) -> None:
    with pytest.raises(RetinueError, match="those of tensorflow resnet, not of vgg"):
        create_model("vgg11", weights=folder / "whole.ckpt")
    with pytest.raises(RetinueError, match="belong to another network"):
        create_model("resnet18", num_classes=5, weights=folder / "whole.ckpt")


def test_they_are_named_by_any_of_their_files(folder: Path) -> None:
    whole = files.read(folder / "resNet_50.ckpt")
    assert [p.name for p in whole.paths] == [
        "resNet_50.ckpt.index", "resNet_50.ckpt.data-00000-of-00001"]  # fmt: skip
    for name in ("resNet_50.ckpt.index", "resNet_50.ckpt.data-00000-of-00001"):
        assert files.kind(Path(name)) == ".ckpt"
        assert files.read(folder / name).tensors.keys() == whole.tensors.keys()
