"""What a picture looks like in numbers, for pictures whose numbers are known."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from retinue.data.traits import traits
from retinue.errors import BadImageError


def of(pixels: np.ndarray) -> dict[str, float]:
    return traits("x", lambda: np.ascontiguousarray(pixels, np.uint8))


def test_of_one_colour() -> None:
    found = of(np.full((20, 40, 3), (255, 0, 51)))
    assert found["warmth"] == pytest.approx(0.8)
    assert found["colour"] == pytest.approx(1.0)
    assert found["brightness"] == pytest.approx((0.299 * 255 + 0.114 * 51) / 255, abs=0.01)
    assert (found["contrast"], found["sharpness"]) == (0.0, 0.0)
    assert (found["aspect"], found["megapixels"]) == (2.0, 0.0008)


def test_half_black_half_white_has_all_the_contrast_there_is() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, 8:] = 255
    assert of(pixels)["contrast"] == pytest.approx(0.5)
    assert of(pixels)["colour"] == 0.0


def test_blur_makes_less_sharp_and_size_does_not_matter() -> None:
    draws = np.random.default_rng(0)
    photo = Image.fromarray(draws.integers(0, 255, (60, 60, 3), dtype=np.uint8)).resize((240, 240))
    sharp, blurred = (of(np.asarray(p)) for p in (photo, photo.filter(ImageFilter.GaussianBlur(3))))
    assert sharp["sharpness"] > blurred["sharpness"] + 0.5
    large = of(np.asarray(photo.resize((960, 960), Image.Resampling.BICUBIC)))
    assert large["sharpness"] == pytest.approx(sharp["sharpness"], abs=0.35)
    assert large["brightness"] == pytest.approx(sharp["brightness"], abs=0.01)


def test_a_jpeg_that_is_decoded_small_looks_as_it_is(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 1000, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (800, 1000, 3)).copy())
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    found = traits(str(tmp_path / "a.jpg"))
    assert found["brightness"] == pytest.approx(0.5, abs=0.01)
    assert found["contrast"] == pytest.approx(12**-0.5, abs=0.01)  # of a uniform distribution
    assert found["megapixels"] == pytest.approx(0.8)


def test_what_is_no_image_is_named() -> None:
    with pytest.raises(BadImageError, match="broken"):
        traits("broken", lambda: b"no image")
