"""Explaining an answer: known maps, geometry, what is refused, what is left untouched."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import bright
import numpy as np
import pytest
import squares
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from squares import picture, predictor

from retinue import load
from retinue.errors import BadImageError, RetinueError, UsageError
from retinue.explaining import METHODS, Explanation, explain, upright
from retinue.explaining.looking import seen
from retinue.inference.predictor import Predictor, as_sample
from retinue.sample import Preprocessing

RED = (8, 16, 16, 24, 0)
"""The square in the second column and third row of four, red."""
CAMS = ("gradcam", "gradcam++", "scorecam")


def centre(heat: Any) -> tuple[float, float]:
    """x and y of the heat's centre of mass, in pixels."""
    y, x = np.indices(heat.shape) + 0.5
    return float((x * heat).sum() / heat.sum()), float((y * heat).sum() / heat.sum())


def near(found: tuple[float, float], wanted: tuple[float, float], within: float = 0.75) -> bool:
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= within


def test_gradcam_as_worked_out_by_hand() -> None:
    image = picture((32, 32), RED, (24, 0, 32, 8, 1))
    found = explain(predictor(), image, method="gradcam", target="red")
    # The green square speaks against it, and is left out.
    assert found.heat.dtype == np.float32
    assert found.heat.shape == (32, 32)
    # The one warm cell is 1, and falls to 0 at its neighbours' centres, 8 pixels away.
    column, row = (np.clip(1 - np.abs(np.arange(32) + 0.5 - at) / 8, 0, 1) for at in (12, 20))
    np.testing.assert_allclose(found.heat, np.outer(row, column), atol=1e-6)
    shares = np.exp(np.array([9 - 3, 9 - 3, -3 - 3]))
    assert found.score == pytest.approx(shares[0] / shares.sum(), abs=1e-6)
    assert (found.target, found.method) == ("red", "gradcam")


@pytest.mark.parametrize("method", CAMS)
def test_what_speaks_for_each_class_lies_where_it_is(method: str) -> None:
    image = picture((32, 32), RED, (24, 0, 32, 8, 2))
    for target, place in (("red", (12, 20)), ("blue", (28, 4))):
        found = explain(predictor(), image, method=method, target=target)
        # A square at the border is spread up to the border.
        assert near(centre(found.heat**4), place, 1.5), target
    assert explain(predictor(), image, method=method).target in ("red", "blue")


@pytest.mark.parametrize("method", CAMS)
def test_nothing_speaks_for_a_class_that_is_not_there(method: str) -> None:
    found = explain(predictor(), picture((32, 32)), method=method, target="green")
    assert found.heat.max() == 0
    assert np.isfinite(found.heat).all()


@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("size", [(96, 40), (40, 96), (33, 500), (64, 64)])
def test_heat_is_of_the_image_as_it_was_given(fit: Any, size: tuple[int, int]) -> None:
    width, height = size
    x, y = width // 2, height // 2
    side = min(size) // 5
    image = picture(size, (x - side, y - side, x + side, y + side, 0))
    how = Preprocessing((32, 32), (0, 0, 0), (1, 1, 1), "bilinear", fit, 1.0, pad_value=0)
    found = explain(predictor(how=how), image, method="gradcam")
    assert found.heat.shape == (height, width)
    assert near(centre(found.heat), (x, y), max(size) / 60), centre(found.heat)
    shown = found.overlay(image)
    assert (shown.shape, shown.dtype) == (image.shape, np.uint8)
    if fit == "crop" and width != height:  # the network does not look beyond its window
        beyond = found.heat.T if width > height else found.heat
        assert beyond[: (max(size) - min(size)) // 2 - 1].max() == 0


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["crop", "squash", "letterbox"]),
    st.sampled_from([(32, 32), (24, 48), (8, 40)]),
    st.floats(0.3, 1),
)
def test_any_image_in_any_view(
    size: tuple[int, int], fit: Any, to: tuple[int, int], share: float
) -> None:
    how = Preprocessing(to, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", fit, share)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    found = explain(predictor(how=how), image)
    assert found.heat.shape == size
    assert 0 <= found.heat.min() <= found.heat.max() <= 1
    assert found.overlay(image).shape == image.shape


def test_orientation_and_kinds_of_images(tmp_path: Path) -> None:
    image = picture((64, 32), (0, 0, 16, 16, 0))
    upright_place = explain(predictor(), image, method="gradcam").heat
    for orientation in range(1, 9):
        stored = Image.fromarray(image)
        # The way back of each orientation, as Pillow turns them.
        back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
        stored = stored if back is None else stored.transpose(Image.Transpose(back))
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        stored.save(path, exif=exif)
        found = explain(predictor(), path, method="gradcam")
        np.testing.assert_allclose(found.heat, upright_place, atol=0.02)
        np.testing.assert_array_equal(upright(path), image)
        encoded = path.read_bytes()
        for same in (encoded, Image.open(io.BytesIO(encoded)), str(path)):
            heat = explain(predictor(), same, method="gradcam").heat
            np.testing.assert_allclose(heat, upright_place, atol=0.02)


def test_each_class_of_several_labels_has_its_own_place() -> None:
    several = predictor("multilabel")
    image = picture((32, 32), RED, (24, 0, 32, 8, 2))
    for target, place in (("red", (12, 20)), ("blue", (28, 4))):
        found = explain(several, image, method="gradcam", target=target)
        assert near(centre(found.heat**4), place, 1.5)
        assert found.score == pytest.approx(1 / (1 + np.exp(-(9 - 3))), abs=1e-6)


def test_the_network_is_left_as_it_was() -> None:
    made = predictor()
    network = made.network
    network.train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    for method in CAMS:
        explain(made, picture((32, 32), RED), method=method)
    assert network.training
    assert all(part.training for part in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())


def test_nothing_stays_behind_after_an_error() -> None:
    made = predictor()
    network = made.network

    def fails(*_: Any) -> Any:
        raise ArithmeticError("broken")

    for method in CAMS:
        keep, made.task.support = made.task.support, fails  # type: ignore[method-assign]
        network.train()
        with pytest.raises(ArithmeticError):
            explain(made, picture((32, 32), RED), method=method)
        made.task.support = keep  # type: ignore[method-assign]
        assert all(part.training for part in network.modules())
        assert torch.is_grad_enabled()
        assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())
        assert explain(made, picture((32, 32), RED), method=method).heat.max() > 0.8


def test_gradients_are_kept_whatever_is_around() -> None:
    made = predictor()
    alone = explain(made, picture((32, 32), RED), method="gradcam").heat
    with torch.inference_mode():
        within = explain(made, picture((32, 32), RED), method="gradcam").heat
    with torch.no_grad():
        without = explain(made, picture((32, 32), RED), method="gradcam").heat
    np.testing.assert_array_equal(alone, within)
    np.testing.assert_array_equal(alone, without)


def test_what_is_refused() -> None:
    made, image = predictor(), picture((32, 32), RED)
    for how, said in (
        ({"method": "gradcan"}, "unknown method 'gradcan', key method, did you mean"),
        ({"target": "rad"}, "does not know the class 'rad', key target, did you mean"),
        ({"method": "rollout"}, "no tokens"),
        ({"method": "heatmap"}, "does not say where"),
    ):
        with pytest.raises(UsageError, match=said):
            explain(made, image, **how)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is of one network, and 2 answer together"):
        explain(predictor(members=2), image)
    with pytest.raises(UsageError, match="must be RGB uint8"):
        explain(made, image[..., 0])
    with pytest.raises(BadImageError):
        explain(made, b"no image")
    found = explain(made, image)
    with pytest.raises(UsageError, match=r"the image that was explained, uint8 \(32, 32, 3\)"):
        found.overlay(picture((32, 31)))


def test_the_score_is_what_predict_says(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path, quality=60)
    for made in (predictor(), predictor("multilabel"), predictor(tta="flip")):
        found = explain(made, path)
        scores = made.task.class_scores(made.findings(seen(made, as_sample(path, "")))[0])
        assert found.score == scores[made.classes.index(found.target)] == scores.max()
    result: Any = predictor()(path)
    assert explain(predictor(), path).target == result.classes[0][0]


class Sealed:
    """An exported file: it answers, and holds no network."""

    def __init__(self, member: Any) -> None:
        self.member = member

    def __getattr__(self, name: str) -> Any:
        return getattr(self.member, name)

    @property
    def network(self) -> Any:
        raise UsageError("an exported file answers, but cannot be looked into")


def test_an_exported_file_shows_what_its_task_can(tmp_path: Path) -> None:
    made = Predictor([Sealed(predictor().members[0])], engine="torch")  # type: ignore[list-item]
    with pytest.raises(UsageError, match="cannot be looked into"):
        explain(made, picture((32, 32), RED))
    finds = load(bright.model(tmp_path / "finds.safetensors"), device="cpu", engine="torch")
    image = bright.picture((64, 48), [(32, 0, 64, 24, 1)])
    sealed = Predictor([Sealed(finds.members[0])], engine="torch")  # type: ignore[list-item]
    for target in (None, "green"):
        found = explain(sealed, image, target=target)
        np.testing.assert_array_equal(found.heat, explain(finds, image, target=target).heat)
        assert (found.method, found.target) == ("heatmap", target or "")
    assert explain(sealed, image, target="red").heat.max() == 0
    joined = Predictor([*finds.members, *finds.members], engine="torch", tta="flip")
    assert explain(joined, image).heat.max() > 0.9


def test_what_is_not_finite_is_no_map() -> None:
    broken = squares.Squares(((float("inf"), 0, 0), (0, 1, 0), (0, 0, 1)))
    with pytest.raises(RetinueError, match="not finite"):
        explain(predictor(network=broken), picture((32, 32), RED))


def test_views_that_are_joined_do_not_blur_the_map() -> None:
    image = picture((32, 32), RED)
    flipped = explain(predictor(tta="flip"), image)
    np.testing.assert_array_equal(flipped.heat, explain(predictor(), image).heat)
    assert repr(flipped) == "<Explanation of red 100.0% by gradcam, 32 × 32 pixels>"
    assert set(METHODS) == {*CAMS, "rollout", "heatmap"}
    assert isinstance(flipped, Explanation)
