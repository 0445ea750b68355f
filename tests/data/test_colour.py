"""The one matrix equals the step-by-step computation; the other operations equal Pillow's."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from reads import no_reads

from retinue.data import colour as module
from retinue.data.colour import Colour, hsv_to_rgb, rgb_to_hsv
from retinue.data.normalising import Normalising
from retinue.data.options import ColourOptions
from retinue.data.random import draw
from retinue.sample import Preprocessing

PLAIN = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
LUMA = np.array([0.299, 0.587, 0.114])


def batch_of(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def varied(colour: Colour, images: np.ndarray, epoch: int = 0, start: int = 0) -> torch.Tensor:
    return colour.varied(batch_of(images), np.arange(start, start + len(images)), epoch)


def noise(n: int = 4, height: int = 16, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def step_by_step(image: np.ndarray, rng: np.random.Generator, options: ColourOptions) -> np.ndarray:
    """The same draws, each operation on the pixels, in turn; float64 (height, width, 3)."""
    x = image / 255.0
    amplitude = np.array([options.brightness, options.contrast, options.saturation, options.hue])
    amount = rng.uniform(-1, 1, 4) * amplitude
    order = rng.permutation(4)
    alphas = rng.standard_normal(3) * options.pca_noise
    for k in order:
        if not amplitude[k]:
            continue
        if k == 0:
            x = x * (1 + amount[0])
        elif k == 1:
            mean = (x @ LUMA).mean()
            x = mean + (x - mean) * (1 + amount[1])
        elif k == 2:
            luma = (x @ LUMA)[..., None]
            x = luma + (x - luma) * (1 + amount[2])
        else:
            yiq = x @ module._YIQ.T
            chroma = (yiq[..., 1] + 1j * yiq[..., 2]) * np.exp(2j * np.pi * amount[3])
            x = np.stack([yiq[..., 0], chroma.real, chroma.imag], -1) @ np.linalg.inv(module._YIQ).T
    x = x + (module._PCA * (alphas * module._PCA_STD)).sum(1)
    return x + rng.uniform(-1, 1) * options.brightness_shift


amplitudes = st.sampled_from([0.0, 0.2, 0.7, 1.0])


@settings(max_examples=40, deadline=None)
@given(amplitudes, amplitudes, amplitudes, st.sampled_from([0.0, 0.1, 0.5]), amplitudes, amplitudes)
@pytest.mark.parametrize("width", [24, 23])
def test_matrix_equals_step_by_step(
    width: int,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    pca: float,
    shift: float,
) -> None:
    options = ColourOptions(
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        pca_noise=pca,
        brightness_shift=shift,
    )
    settings_ = Preprocessing()
    images = noise(width=width, height=15)
    result = varied(Colour(settings_, options, seed=7), images, epoch=3, start=5)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    for k, image in enumerate(images):
        x = step_by_step(image, draw(7, 3, 5 + k, "colour"), options)
        expected = (x.clip(0, 1) - settings_.mean) / settings_.std
        assert np.allclose(result[k].permute(1, 2, 0).numpy(), expected, atol=2e-4)


def test_pca_noise_and_added_brightness_as_published_on_values_up_to_255() -> None:
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140],
                        [-0.5836, -0.6948, 0.4203]])  # fmt: skip
    values = np.array([55.46, 4.794, 1.148])
    options = ColourOptions(pca_noise=0.1, brightness_shift=0.3)
    grey = np.full((1, 2, 2, 3), 128, np.uint8)
    [image] = varied(Colour(PLAIN, options, seed=1), grey, epoch=2, start=3)
    rng = draw(1, 2, 3, "colour")
    rng.uniform(-1, 1, 4)
    rng.permutation(4)
    expected = 128 + (vectors * rng.normal(0, 0.1, 3)) @ values + rng.uniform(-1, 1) * 0.3 * 255
    assert image[:, 0, 0].numpy() * 255 == pytest.approx(expected, abs=0.01)


def test_without_options_it_only_normalises() -> None:
    images, settings_ = noise(), Preprocessing()
    expected = (images / 255.0 - settings_.mean) / settings_.std
    for options in (None, ColourOptions()):
        result = varied(Colour(settings_, options), images)
        assert np.allclose(result.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
        assert result.is_contiguous(memory_format=torch.channels_last)


def test_planar_memory_gives_the_same() -> None:
    images, keys = batch_of(noise()), np.arange(4)
    colour = Colour(PLAIN, ColourOptions(brightness=0.5, contrast=0.5, equalize=0.5))
    planar = images.contiguous(memory_format=torch.contiguous_format)
    for look in (colour.normalised, lambda pixels: colour.varied(pixels, keys, 0)):
        assert torch.allclose(look(planar), look(images), atol=1e-6)


def test_an_image_is_varied_alike_alone_and_in_any_batch() -> None:
    images = noise(6)
    options = ColourOptions(brightness=0.5, contrast=0.5, hue=0.1, hsv=0.5, solarize=0.5)
    colour = Colour(PLAIN, options, 1)
    together = varied(colour, images, epoch=2)
    for k in range(6):
        alone = varied(colour, images[k : k + 1], epoch=2, start=k)
        assert torch.equal(alone[0], together[k])
    assert not torch.equal(varied(colour, images, epoch=3), together)


EVERYTHING = ColourOptions(
    brightness=0.4,
    brightness_shift=0.3,
    contrast=0.6,
    saturation=0.7,
    hue=0.3,
    pca_noise=0.3,
    hsv=0.5,
    solarize=0.3,
    posterize=0.3,
    equalize=0.3,
)


@pytest.mark.parametrize(
    "options",
    [
        EVERYTHING,
        ColourOptions(brightness=1.0, contrast=1.0),
        ColourOptions(contrast=1.0, saturation=0.5),
        ColourOptions(saturation=1.0, hue=0.5),
        ColourOptions(pca_noise=0.3),
        ColourOptions(hsv=1.0, equalize=0.2),
        ColourOptions(solarize=1e-9),
    ],
)
def test_the_device_computes_what_the_cpu_does(
    options: ColourOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.from_numpy(noise(12, 15, 23)).permute(0, 3, 1, 2)
    images[3] //= 3
    colour, keys = Colour(Preprocessing(), options, seed=4), np.arange(30, 42)
    expected = [colour.varied(images, keys, epoch) for epoch in range(3)]
    plain = colour.normalised(images)
    monkeypatch.setattr(module, "_on_cpu", lambda images: False)
    with no_reads():
        found = [colour.varied(images, keys, epoch) for epoch in range(3)]
        found_plain = colour.normalised(images)
    for mine, other in zip([*found, found_plain], [*expected, plain], strict=True):
        assert torch.allclose(mine, other, atol=2e-5)
        assert mine.is_contiguous(memory_format=torch.channels_last)


def test_maps_are_the_matrices_for_any_means() -> None:
    images = torch.from_numpy(noise(40)).permute(0, 3, 1, 2)
    colour, keys = Colour(Preprocessing(), EVERYTHING, seed=4), np.arange(40)
    means = images.double().mean((2, 3)).numpy() / 255
    maps = colour._maps(keys, 2)
    found = maps[:, :, :4].copy()
    found[:, :, 3] += (maps[:, :, 4:] @ means[:, :, None])[:, :, 0]
    pixels = images.permute(0, 2, 3, 1).float().numpy()
    matrices = [colour._matrix(image, key, 2) for key, image in enumerate(pixels)]
    assert np.allclose(found, matrices, rtol=0, atol=1e-11)


def test_a_device_is_sent_one_piece_a_batch_and_nothing_is_read_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the meta device there are no values that could be read."""
    sent = []
    send = module.all_to_device
    monkeypatch.setattr(module, "all_to_device", lambda *a: sent.append(1) or send(*a))
    images = torch.empty(6, 3, 16, 24, dtype=torch.uint8, device="meta")
    colour = Colour(Preprocessing(), EVERYTHING)
    for epoch in range(3):
        result = colour.varied(images, np.arange(6), epoch)
        assert (result.shape, result.dtype) == (images.shape, torch.float32)
    assert len(sent) == 4  # and normalisation's constants, once
    assert Colour(Preprocessing()).normalised(images).shape == images.shape


def test_images_are_varied_by_their_own_keys_in_whatever_order() -> None:
    images, colour = batch_of(noise()), Colour(PLAIN, EVERYTHING, 1)
    keys, order = np.array([9, 5, 7, 6]), [2, 0, 3, 1]
    found = colour.varied(images, keys, 3)
    assert torch.equal(colour.varied(images[order], keys[order], 3), found[order])
    assert not torch.equal(colour.varied(images, keys + 4, 3), found)
    assert torch.equal(Colour(PLAIN).varied(images, keys, 3), colour.normalised(images))


def test_hue_leaves_luma_and_grey_alone() -> None:
    matrix = module._hue(np.eye(3, 4), 0.3, np.zeros(3))
    assert np.allclose(LUMA @ matrix[:, :3], LUMA, atol=2e-3)
    assert np.allclose(matrix[:, :3].sum(1), 1, atol=2e-3)
    assert np.allclose(module._hue(np.eye(3, 4), 1.0, np.zeros(3)), np.eye(3, 4))


def test_clamping_is_at_black_and_white() -> None:
    images = np.full((1, 8, 8, 3), 250, np.uint8)
    images[0, 0, 0] = 0
    settings_ = Preprocessing()
    for index in range(20):
        colour = Colour(settings_, ColourOptions(brightness=1.0, contrast=1.0))
        result = varied(colour, images, start=index)
        back = result.permute(0, 2, 3, 1).numpy() * settings_.std + settings_.mean
        assert back.min() >= -1e-6
        assert back.max() <= 1 + 1e-6


def test_hsv_equals_the_standard_library() -> None:
    pixels = noise(1, 8, 8)[0].reshape(-1, 3) / 255
    pixels[:3] = [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5]]
    tensor = torch.from_numpy(pixels).T.reshape(1, 3, 8, 8)
    h, s, v = rgb_to_hsv(tensor)
    expected = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in pixels])
    mine = np.stack([h.numpy().ravel(), s.numpy().ravel(), v.numpy().ravel()], 1)
    assert np.allclose(mine, expected)
    assert torch.allclose(hsv_to_rgb(h, s, v), tensor)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("solarize", ImageOps.solarize),
        ("posterize", lambda image: ImageOps.posterize(image, 4)),
        ("equalize", ImageOps.equalize),
    ],
)
def test_operations_equal_pillow(name: str, reference: object) -> None:
    images = noise(3)
    images[1] //= 4
    images[2] = 77
    result = varied(Colour(PLAIN, ColourOptions(**{name: 1.0})), images)
    for k, image in enumerate(images):
        expected = np.asarray(reference(Image.fromarray(image)))
        assert np.array_equal((result[k] * 255).round().permute(1, 2, 0).numpy(), expected)


def test_probabilities_are_kept_and_the_batch_is_left_alone() -> None:
    images = np.full((400, 4, 4, 3), 200, np.uint8)
    result = varied(Colour(PLAIN, ColourOptions(solarize=0.3)), images)
    assert 0.24 < (result[:, 0, 0, 0] < 0.5).float().mean() < 0.36
    assert (images == 200).all()


@pytest.mark.parametrize("how", ["shift", "factor"])
def test_a_change_in_hsv_equals_the_standard_library(how: str) -> None:
    images = noise(6, 9, 11)
    images[0, 0, :5] = [[0, 0, 0], [255, 255, 255], [9, 9, 9], [1, 0, 0], [0, 255, 255]]
    gains = (0.4, 0.7, 0.4)
    options = ColourOptions(hsv=1.0, hsv_gains=gains, hsv_hue=how)
    result = varied(Colour(PLAIN, options, 3), images, epoch=2).permute(0, 2, 3, 1).numpy()
    for k, image in enumerate(images):
        hue, saturation, value = (2 * draw(3, 2, k, "hsv").random(4)[1:] - 1) * gains
        for pixel, changed in zip(image.reshape(-1, 3), result[k].reshape(-1, 3), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
            h = (h + hue if how == "shift" else h * (1 + hue)) % 1
            s, v = min(s * (1 + saturation), 1), min(v * (1 + value), 1)
            assert np.allclose(changed, colorsys.hsv_to_rgb(h, s, v), atol=1e-4)


def test_a_change_in_hsv_is_the_published_one() -> None:
    """YOLO's trainings look whole numbers up in tables, 180 to a turn of the hue: as exact as
    that."""
    images = noise(4, 32, 32)
    options = ColourOptions(hsv=1.0, hsv_gains=(0.1, 0.7, 0.4), hsv_hue="factor")
    result = varied(Colour(PLAIN, options), images).permute(0, 2, 3, 1).numpy()
    for k, image in enumerate(images):
        gains = 1 + (2 * draw(0, 0, k, "hsv").random(4)[1:] - 1) * (0.1, 0.7, 0.4)
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        levels = np.arange(256)
        tables = [
            (levels * gains[0] % 180).astype(np.uint8),
            np.clip(levels * gains[1], 0, 255).astype(np.uint8),
            np.clip(levels * gains[2], 0, 255).astype(np.uint8),
        ]
        planes = [
            cv2.LUT(plane, table)
            for plane, table in zip((hue, saturation, value), tables, strict=True)
        ]
        published = cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2RGB)
        difference = np.abs(published - 255 * result[k])
        assert difference.mean() < 3
        # Of a red that it takes for 180 and so for 0, the hue jumps.
        assert (difference < 12).mean() > 0.99


def test_exact_hsv_change_stays_within_its_gains() -> None:
    images = np.zeros((50, 4, 4, 3), np.uint8)
    images[:] = (200, 100, 50)
    result = varied(Colour(PLAIN, ColourOptions(hsv=1.0, hsv_gains=(0.0, 0.0, 0.5))), images)
    ratio = result[:, 0] / result[:, 2]
    assert torch.allclose(ratio, torch.tensor(4.0), atol=0.2)
    assert 0.38 < result[:, 0].min() < 0.5
    assert result[:, 0].max() == 1


def test_arrays_are_normalised_bit_for_bit_as_tensors_are() -> None:
    images = noise()
    for how in (Preprocessing(), Preprocessing(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.2))):
        tensors = Colour(how).normalised(batch_of(images)).numpy()
        arrays = Normalising(how)(images.transpose(0, 3, 1, 2))
        assert arrays.dtype == np.float32
        assert np.array_equal(arrays, tensors)
