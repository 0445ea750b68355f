"""RandAugment and TrivialAugment: Pillow's operations, torchvision's numbers, one matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from pydantic import ValidationError

from retinue.data import colour as colour_module
from retinue.data import geometry
from retinue.data.colour import Colour
from retinue.data.composers import Composer
from retinue.data.options import (
    AugmentOptions,
    ColourOptions,
    RandAugmentOptions,
    TrivialAugmentOptions,
)
from retinue.data.policies import OPERATIONS, Policy, Step
from retinue.data.population import Population
from retinue.data.targets.boxes import Boxes
from retinue.data.views import TrainView
from retinue.options.overrides import parse_override
from retinue.sample import Preprocessing, Sample
from retinue.training.recipe import load_recipe

PLAIN = Preprocessing(size=(64, 48), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
RAND = RandAugmentOptions(operations=1, magnitude=18)


def key_of(policy: Policy, operation: str, *, sign: int = 1) -> int:
    """A key whose only operation is this one."""
    return next(
        key
        for key in range(10_000)
        if [(s.operation, s.sign) for s in policy.drawn(key, 0)] == [(operation, sign)]
    )


def picture(seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 230, (8, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((48, 64), Image.Resampling.BICUBIC)


Enhance = Callable[[Image.Image], Image.Image]
SHARE = 18 / 30
THEIRS: dict[str, Enhance] = {
    "identity": lambda image: image,
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1 + 0.9 * SHARE),
    "saturation": lambda image: ImageEnhance.Color(image).enhance(1 + 0.9 * SHARE),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1 + 0.9 * SHARE),
    "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * SHARE),
    "posterize": lambda image: ImageOps.posterize(image, 8 - round(4 * SHARE)),
    "solarize": lambda image: ImageOps.solarize(image, int(255 * (1 - SHARE))),
    "autocontrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
}


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("operation", list(THEIRS))
def test_colours_are_pillows(operation: str, on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a rounding: nothing is rounded in between here."""
    monkeypatch.setattr(colour_module, "_on_cpu", lambda images: on_cpu)
    colour = Colour(PLAIN, ColourOptions(), 0, RAND)
    key = key_of(Policy(RAND, 0), operation)
    image = picture()
    images = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    ours = colour.varied(images.contiguous(memory_format=torch.channels_last), np.array([key]), 0)
    wanted = np.asarray(THEIRS[operation](image)).astype(float)
    away = np.abs(ours[0].permute(1, 2, 0).numpy() * 255 - wanted)
    assert away.max() <= 1.6, operation
    assert (operation == "identity") == (wanted == np.asarray(image)).all()


def test_the_whole_batch_at_once_is_what_each_image_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ColourOptions(brightness=0.3, contrast=0.4, hsv=0.3, equalize=0.2)
    colour = Colour(PLAIN, options, 3, RandAugmentOptions(operations=3, magnitude=11))
    images = torch.stack(
        [torch.from_numpy(np.array(picture(k))).permute(2, 0, 1) for k in range(40)]
    )
    keys = np.arange(40)
    alone = torch.cat([colour.varied(images[k : k + 1], keys[k : k + 1], 2) for k in range(40)])
    together = colour.varied(images, keys, 2)
    torch.testing.assert_close(alone, together, atol=2e-5, rtol=1e-4)
    monkeypatch.setattr(colour_module, "_on_cpu", lambda images: False)
    torch.testing.assert_close(colour.varied(images, keys, 2), together, atol=1e-3, rtol=1e-3)


def test_published_magnitudes() -> None:
    """Table 6 of AutoAugment as RandAugment uses it; TrivialAugment's Table 2, "wide"."""
    rand, wide = Policy(RandAugmentOptions(), 0), Policy(TrivialAugmentOptions(), 0)
    size = (331, 331)
    most = {
        "shear_x": (0.3, 0.99), "shear_y": (0.3, 0.99), "translate_x": (150.0, 32.0),
        "translate_y": (150.0, 32.0), "rotate": (30.0, 135.0), "brightness": (0.9, 0.99),
        "saturation": (0.9, 0.99), "contrast": (0.9, 0.99), "sharpness": (0.9, 0.99),
        "posterize": (4.0, 2.0), "solarize": (0.0, 0.0), "autocontrast": (0.0, 0.0),
        "equalize": (0.0, 0.0), "identity": (0.0, 0.0),
    }  # fmt: skip
    assert set(most) == set(OPERATIONS)
    for operation, amounts in most.items():
        step = Step(operation, 30, 1)
        assert (rand.amount(step, size), wide.amount(step, size)) == pytest.approx(amounts)
        none = 255.0 if operation == "solarize" else 8.0 if operation == "posterize" else 0.0
        assert rand.amount(Step(operation, 0, 1), size) == none
    bits = [wide.amount(Step("posterize", m, 1)) for m in (5, 10, 15, 20, 25)]
    assert bits == [7, 6, 5, 4, 3]
    assert rand.amount(Step("rotate", 15, -1)) == -15


def test_draws_are_even_and_keyed() -> None:
    wide = Policy(TrivialAugmentOptions(), 5)
    steps = [step for key in range(6000) for step in wide.drawn(key, 1)]
    counts = Counter(step.operation for step in steps)
    assert set(counts) == set(OPERATIONS)
    assert all(abs(count - 6000 / 14) < 5 * (6000 / 14) ** 0.5 for count in counts.values())
    assert {step.magnitude for step in steps} == set(range(31))
    signed = [s.sign for s in steps if s.operation == "rotate"]
    assert abs(np.mean(signed)) < 0.2
    assert {s.sign for s in steps if s.operation == "solarize"} == {1}
    assert wide.drawn(3, 1) == Policy(TrivialAugmentOptions(), 5).drawn(3, 1)
    several = Policy(RandAugmentOptions(operations=3, magnitude=7), 0)
    assert {len(several.drawn(key, 0)) for key in range(20)} == {3}
    assert {s.magnitude for key in range(20) for s in several.drawn(key, 0)} == {7}


@pytest.mark.parametrize(
    ("operation", "pillow"),
    [
        ("shear_x", (1, -0.3 * SHARE, 0, 0, 1, 0)),
        ("shear_y", (1, 0, 0, -0.3 * SHARE, 1, 0)),
        ("translate_x", (1, 0, -150 / 331 * SHARE * 48, 0, 1, 0)),
        ("translate_y", (1, 0, 0, 0, 1, -150 / 331 * SHARE * 64)),
    ],
)
def test_geometry_is_pillows(operation: str, pillow: tuple[float, ...]) -> None:
    """Where Pillow's transform reads an output pixel from, our matrix leads back from it."""
    policy = Policy(RAND, 0)
    matrix = policy.matrix(key_of(policy, operation), 0, (64, 48))
    back = np.linalg.inv(matrix)
    np.testing.assert_allclose(back[:2].ravel(), pillow, atol=1e-12)


def test_rotation_is_about_the_middle() -> None:
    policy = Policy(RAND, 0)
    matrix = policy.matrix(key_of(policy, "rotate"), 0, (64, 48))
    np.testing.assert_allclose(geometry.apply(matrix, np.array([[24.0, 32.0]])), [[24, 32]])
    assert np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) == pytest.approx(30 * SHARE)


@pytest.mark.parametrize("operation", ["rotate", "shear_y", "translate_x"])
def test_boxes_go_through_the_same_matrix(operation: str) -> None:
    """A white square is where its box says, whatever the policy did."""
    key = key_of(Policy(RAND, 0), operation)
    pixels = np.zeros((64, 48, 3), np.uint8)
    pixels[24:40, 18:30] = 255
    target = Boxes.made([[18, 24, 30, 40]], [0])
    sample = Sample("a", read=lambda: pixels, target=target)
    augment = AugmentOptions(horizontal_flip=0, policy=RAND)
    how = Preprocessing(size=(64, 48), fit="squash")
    view = TrainView(augment, how, 0, Population.of_samples([sample]))
    out = np.empty((64, 48, 3), np.uint8)
    seen, _ = view.render([sample], key=key, epoch=0, size=(64, 48), out=out)
    assert isinstance(seen.target, Boxes)
    ys, xs = np.nonzero(out[..., 0] > 180)
    x1, y1, x2, y2 = seen.target.xyxy[0]
    np.testing.assert_allclose(
        (x1, y1, x2, y2), (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), atol=1.5
    )
    assert tuple(seen.target.xyxy[0]) != (18, 24, 30, 40)


def test_with_everything_else_it_is_one_matrix() -> None:
    options: dict[str, Any] = {"crop_scale": (0.5, 1.0), "rotation": 10.0, "zoom": (0.8, 1.2)}
    without = Composer(AugmentOptions(**options), PLAIN, 1)
    composer = Composer(AugmentOptions(**options, policy=RAND), PLAIN, 1)
    for key in range(30):
        policy = Policy(RAND, 1).matrix(key, 2, (64, 48))
        ours = composer.matrix((200, 150), key=key, epoch=2)
        np.testing.assert_allclose(ours, policy @ without.matrix((200, 150), key=key, epoch=2))


def test_a_policy_makes_views_differ_and_is_read_from_its_name() -> None:
    still = AugmentOptions(horizontal_flip=0)
    assert not still.draws
    named = AugmentOptions.model_validate(
        {"horizontal_flip": 0, "policy": {"name": "trivial_augment"}}
    )
    assert named.draws
    key = "stages.0.augment.policy"
    for text, policy in (
        (f"{key}=trivial_augment", TrivialAugmentOptions()),
        (f"{key}={{name: rand_augment, operations: 3}}", RandAugmentOptions(operations=3)),
        (f"{key}=null", None),
    ):
        recipe = load_recipe("scratch", dict([parse_override(text)]))
        assert recipe.stages[0].augment.policy == policy
    given = AugmentOptions.model_validate({"policy": {"name": "rand_augment", "magnitude": 5}})
    assert given.policy == RandAugmentOptions(operations=2, magnitude=5)
    with pytest.raises(ValidationError):
        AugmentOptions.model_validate({"policy": {"name": "rand_augment", "magnitude": 31}})
