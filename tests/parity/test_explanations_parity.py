"""Grad-CAM against captum's, network by network."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import thin
import torch
from predictors import randomise
from squares import predictor
from thin import SMALL
from torch import Tensor, nn

from retinue.errors import RetinueError
from retinue.explaining.activation import gradcam
from retinue.explaining.looking import Look, look, seen
from retinue.inference.predictor import as_sample
from retinue.models.registry import create_model
from retinue.models.transformer import Transformer

pytestmark = pytest.mark.parity

CLASSES = ("a", "b", "c", "d", "e")


class Cut(nn.Module):
    """The two halves as modules of one, for captum to hook into."""

    def __init__(self, network: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.halves = network.halves(size)
        self.map = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        state = self.halves.first(x)
        out: Tensor = self.halves.second(self.map(state).clone())
        return out


@pytest.mark.parametrize("name", SMALL)
def test_gradcam(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("captum") is None:
        pytest.skip("needs captum")
    from captum.attr import LayerGradCam

    thin.register(monkeypatch)
    network = thin.build(name)
    randomise(network)
    network.eval()
    if isinstance(network, Transformer):
        pytest.skip("captum takes the second dimension for channels")
    size = thin.size(name)
    inputs = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for of in range(len(CLASSES)):
        member = predictor(network=network, classes=CLASSES).members[0]
        found = gradcam(Look(network, member.task, inputs, of))
        cut = Cut(network, size)
        theirs = LayerGradCam(cut, cut.map).attribute(inputs, target=of, relu_attributions=True)
        wanted = theirs.detach()[0, 0].numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.max() + 1e-9))


def test_gradcam_of_real_weights_on_a_photograph() -> None:
    """captum's hooks are on the network's own last unit here."""
    if importlib.util.find_spec("captum") is None:
        pytest.skip("needs captum")
    from captum.attr import LayerGradCam
    from sklearn.datasets import load_sample_image

    try:
        network = create_model("tf_efficientnet_lite0", weights="imagenet").eval()
    except RetinueError as error:
        pytest.skip(f"needs the weights of efficientnet-lite0: {error}")
    names = [str(k) for k in range(1000)]
    made = predictor(network=network, classes=names, how=network.preprocessing)
    photograph = load_sample_image("flower.jpg")
    batch = seen(made, as_sample(photograph, "flower"))
    for of in (int(made.task.class_scores(made.findings(batch)[0]).argmax()), 985, 0):
        shown = look(made, batch, of)
        found = gradcam(shown)
        theirs = LayerGradCam(network, network.units()[-1].module).attribute(
            shown.inputs, target=of, relu_attributions=True
        )
        wanted = theirs[0, 0].detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6 * float(wanted.max()))
