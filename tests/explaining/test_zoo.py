"""Maps of every family of the zoo, and of timm's networks."""

from __future__ import annotations

import gc
import importlib.util
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import thin
import torch
import torch.nn.functional as F
from predictors import randomise
from squares import predictor
from thin import SMALL
from torch import Tensor

from retinue.errors import UsageError
from retinue.explaining.activation import activation, gradcam
from retinue.explaining.attention import Attention, rollout
from retinue.explaining.looking import Look
from retinue.explaining.methods import explain
from retinue.models.network import Network
from retinue.models.registry import create_model
from retinue.sample import Preprocessing

CLASSES = ("a", "b", "c", "d", "e")
TRANSFORMERS = ("vit_thin", "vit_thin_r50")


def looked(network: Network, size: tuple[int, int], of: int = 2, seed: int = 0) -> Look:
    generator = torch.Generator().manual_seed(seed)
    member = predictor(network=network, classes=CLASSES).members[0]
    return Look(network, member.task, torch.randn(1, 3, *size, generator=generator), of)


@pytest.fixture
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Network:
    thin.register(monkeypatch)
    made = thin.build(request.param)
    randomise(made)
    return made.eval()


@pytest.mark.parametrize("network", SMALL, indirect=True)
def test_the_halves_make_the_whole(network: Network) -> None:
    size = thin.size(network.name)
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    halves = network.halves(size)
    with torch.no_grad():
        state = halves.first(image)
        torch.testing.assert_close(halves.second(state), network(image))
    mapped = halves.as_map(state)
    assert mapped.ndim == 4
    assert (mapped.shape[2] > mapped.shape[3]) == (size[0] > size[1])


@pytest.mark.parametrize("network", SMALL, indirect=True)
def test_gradcam_of_every_family(network: Network) -> None:
    look = looked(network, thin.size(network.name))
    value, gradient = activation(look)
    assert value.shape == gradient.shape
    assert gradient.abs().max() > 0
    cells = gradcam(look)
    assert cells.dtype == np.float32
    assert cells.shape == value.shape[1:]
    assert np.isfinite(cells).all()
    # The gradient tells what a small change of the map does, whatever works in place behind it.
    halves = network.halves(look.size)
    with torch.no_grad():
        state = halves.first(look.inputs)
        gap = torch.randn(state.shape, generator=torch.Generator().manual_seed(1)).double()
        gap *= 1e-4 * state.std() / gap.std()
        if gap.ndim == 3:  # the class token is no place
            gap[:, 0] = 0
        network.double()
        state = state.double()
        rise = (halves.second(state + gap) - halves.second(state - gap))[:, look.of]
        told = (halves.as_map(gap)[0] * gradient).sum() * 2
    assert float(rise) == pytest.approx(float(told), rel=0.05, abs=1e-9)


@pytest.mark.parametrize("network", TRANSFORMERS, indirect=True)
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_rollout_as_the_paper_has_it(network: Any, size: tuple[int, int]) -> None:
    """Each block's attention anew from its own input, and the product of all."""
    look = looked(network, size)
    taken: Tensor = torch.eye(1)
    with torch.no_grad():
        x = network.run(look.inputs, stop=len(network.units()) - len(network.blocks))
        taken = torch.eye(x.shape[1])
        for block in network.blocks:
            y = block.norm1(x)
            query, key, _ = block.attention.qkv(y).chunk(3, dim=-1)
            heads = block.attention.heads
            mean = torch.zeros(x.shape[1], x.shape[1])
            for q, k in zip(query[0].chunk(heads, -1), key[0].chunk(heads, -1), strict=True):
                mean += (q @ k.T / math.sqrt(q.shape[1])).softmax(1) / heads
            taken = (mean + torch.eye(len(mean))) / 2 @ taken
            x = block(x)
    wanted = taken[0, 1:].reshape(size[0] // 16, size[1] // 16).numpy()
    np.testing.assert_allclose(rollout(look), wanted, rtol=1e-4)


@pytest.mark.parametrize("network", TRANSFORMERS, indirect=True)
def test_a_transformer_shows_both_ways(network: Network) -> None:
    how = Preprocessing((64, 64), (0, 0, 0), (1, 1, 1), "bilinear", "squash", 1.0)
    made = predictor(network=network, classes=CLASSES, how=how)
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3)).astype(np.uint8)
    found = explain(made, image)
    assert (found.method, found.heat.shape) == ("rollout", (50, 90))
    assert found.heat.max() > 0.9
    for method in ("gradcam", "gradcam++", "scorecam"):
        shown = explain(made, image, method=method).heat
        assert shown.shape == (50, 90)
        assert 0 <= shown.min() <= shown.max() <= 1


def test_attention_is_noted_as_it_is_computed() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 8, generator=generator)
    later = torch.ones(5, 5, dtype=torch.bool).tril()
    for how in (
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": later},
        {"attn_mask": torch.randn(5, 5, generator=generator)},
    ):
        with Attention() as noted:
            answer = F.scaled_dot_product_attention(query, key, value, **how)  # type: ignore[arg-type]
        (layer,) = noted.layers
        torch.testing.assert_close(layer @ value, answer, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 4, 5))
    with pytest.raises(ArithmeticError), Attention():
        raise ArithmeticError
    F.scaled_dot_product_attention(query, key, value)
    assert len(noted.layers) == 1


def test_attention_that_is_not_fused() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 2, 3, 3, generator=generator)
    for made in (
        lambda: scores.softmax(-1), lambda: torch.softmax(scores, -1), lambda: F.softmax(scores, -1)
    ):  # fmt: skip
        with Attention() as noted:
            answer = made()
        (layer,) = noted.layers
        torch.testing.assert_close(layer, answer)


@pytest.mark.parametrize("network", ["resnet18"], indirect=True)
def test_a_map_of_one_cell_tells_nothing(network: Network) -> None:
    """At stride 32 an image of 32 pixels is one cell; four units before it there are four."""
    value, _ = activation(looked(network, (32, 32)))
    assert value.shape[1:] == (2, 2)
    with pytest.raises(UsageError, match=r"of a single cell.*images of 2 × 2 pixels"):
        activation(looked(network, (2, 2)))


def test_two_classifiers_count_by_their_blend(monkeypatch: pytest.MonkeyPatch) -> None:
    thin.register(monkeypatch)
    network = thin.build("resnet18", head={"name": "glu", "auxiliary": True}).eval()
    look = looked(network, (64, 64))
    with torch.no_grad():
        answer = network(look.inputs)
    told = {}
    for share in (1.0, 0.0, 0.25):
        task = type(look.task)(CLASSES, None, {"blend": share})
        told[share] = float(task.support(answer, 2).detach())
    assert told[1.0] == pytest.approx(float(answer["logits"][0, 2]))
    assert told[0.0] == pytest.approx(float(answer["auxiliary"][0, 2]))
    assert told[0.25] == pytest.approx(0.25 * told[1.0] + 0.75 * told[0.0])
    assert activation(look).gradient.abs().max() > 0


def test_threads_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    thin.register(monkeypatch)
    how = Preprocessing((64, 64), (0, 0, 0), (1, 1, 1), "bilinear", "squash", 1.0)
    work = []
    for name in ("vit_thin", "resnet18"):
        network = thin.build(name)
        randomise(network)
        made = predictor(network=network, classes=CLASSES, how=how)
        for seed in range(4):
            image = np.random.default_rng(seed).integers(0, 256, (40, 50, 3)).astype(np.uint8)
            work += [(made, image, CLASSES[seed])] * 2
    alone = [explain(made, image, target=target).heat for made, image, target in work]
    with ThreadPoolExecutor(8) as pool:
        told = [pool.submit(explain, made, image, target=of) for made, image, of in work]
        together = [one.result().heat for one in told]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "rollout"])
def test_no_memory_is_kept(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    thin.register(monkeypatch)
    how = Preprocessing((64, 64), (0, 0, 0), (1, 1, 1), "bilinear", "squash", 1.0)
    made = predictor(network=thin.build("vit_thin"), classes=CLASSES, how=how)
    image = np.zeros((40, 50, 3), np.uint8)

    def tensors() -> int:
        explain(made, image, method=method)
        gc.collect()
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    tensors()
    assert tensors() == tensors()


def test_a_network_of_several_maps_says_so() -> None:
    detector = create_model("yolov3_tiny", num_classes=2).eval()
    with pytest.raises(UsageError, match=r"from several maps, not from the last one alone"):
        detector.halves((64, 64))


# --- networks of timm ---


@pytest.fixture(scope="module")
def timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm")
    from retinue.models import timm

    return timm.library()


@pytest.mark.parametrize(
    ("name", "method", "size"),
    [
        ("test_resnet", "gradcam", (96, 64)),
        ("test_convnext", "gradcam", (96, 64)),
        ("test_efficientnet", "gradcam", (96, 64)),
        ("test_vit", "rollout", (160, 160)),
        ("test_vit2", "rollout", (64, 64)),  # four registers beside the class token
    ],
)
def test_networks_of_timm(timm: Any, name: str, method: str, size: tuple[int, int]) -> None:
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    made = create_model(f"timm/{name}", num_classes=len(CLASSES)).eval()
    randomise(made)
    how = Preprocessing(size, (0, 0, 0), (1, 1, 1), "bilinear", "squash", 1.0)
    explained = predictor(network=made, classes=CLASSES, how=how)
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3)).astype(np.uint8)
    found = explain(explained, image)
    assert (found.method, found.heat.shape) == (method, (50, 90))
    assert 0.5 < found.heat.max() <= 1
    if method == "gradcam":
        inputs = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        halves = made.halves(size)
        with torch.no_grad():
            torch.testing.assert_close(halves.second(halves.first(inputs)), made(inputs))


def test_tokens_of_timm(timm: Any) -> None:
    network = create_model("timm/test_vit", num_classes=5).eval()
    tokens = network.tokens((160, 160))
    body: Any = network.body
    assert tokens == (body.num_prefix_tokens, 10, 10, 0)
    with torch.no_grad():
        assert tokens is not None
        found = body.forward_features(torch.zeros(1, 3, 160, 160))
        assert found.shape[1] == tokens.prefix + tokens.rows * tokens.columns
    with pytest.raises(UsageError, match="read off one token"):
        network.halves((160, 160))
    look = looked(network, (160, 160))
    fused = rollout(look)
    for block in body.blocks:
        assert block.attn.fused_attn
        block.attn.fused_attn = False
    np.testing.assert_allclose(rollout(look), fused, rtol=1e-4)
