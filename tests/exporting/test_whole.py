"""What is prepared and answered within a graph is what is prepared and answered without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinue.data.colour import Colour
from retinue.data.framing import eval_boxes
from retinue.data.loader import Loader, in_order
from retinue.data.views import EvalView
from retinue.exporting.whole import Prepare
from retinue.inference.predictor import held
from retinue.inference.runtimes.openvino import OpenVINOEngine
from retinue.inference.tracing import Axes, openvino_model
from retinue.sample import Batch, Preprocessing, Sample


def picture(height: int, width: int, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3))
    soft = np.kron(coarse, np.ones((7, 7, 1)))[:height, :width]
    return (soft + rng.normal(0, 12, soft.shape)).clip(0, 255).astype(np.uint8)


def prepared(image: np.ndarray[Any, Any], how: Preprocessing) -> tuple[torch.Tensor, Batch]:
    loader = Loader(EvalView(how), workers=0)
    (batch,) = loader.batches(in_order([Sample("it", held(image))], 1, how.size))
    return Colour(how).normalised(batch.images), batch


PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def clear(batch: Batch, axis: int, count: int) -> torch.Tensor:
    """Where along an axis a pixel's centre does not lie on an edge between two of the image's, of
    which either may be the nearest."""
    way = batch.to_original[0]
    at = (np.arange(count) + 0.5) * way[axis, axis] + way[axis, 2]
    apart = torch.from_numpy(np.abs(at - np.round(at)) > 1e-3)
    return apart


def in_two_steps(image: np.ndarray[Any, Any], how: Preprocessing) -> torch.Tensor:
    """By Pillow, the rows first, whatever it would take first itself."""
    box, (top, left, tall, wide) = eval_boxes(how, (image.shape[1], image.shape[0]))
    method = getattr(Image.Resampling, how.interpolation.upper())
    rows = Image.fromarray(image).resize(
        (wide, image.shape[0]), method, box=(box[0], 0, min(box[2], image.shape[1]), image.shape[0])
    )
    small = rows.resize((wide, tall), method, box=(0, box[1], wide, min(box[3], image.shape[0])))
    out = np.full((*how.size, 3), how.pad_value, np.uint8)
    out[top : top + tall, left : left + wide] = np.asarray(small)
    return torch.from_numpy(out).permute(2, 0, 1)[None].float() / 255


@settings(max_examples=60)
@given(
    height=st.integers(2, 130),
    width=st.integers(2, 130),
    size=st.tuples(st.sampled_from([16, 24, 33]), st.sampled_from([16, 32, 40])),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    fit=st.sampled_from(["crop", "squash", "letterbox"]),
    crop=st.sampled_from([0.875, 1.0, 0.5]),
)
def test_prepared_as_everywhere_else(
    height: int, width: int, size: Any, interpolation: Any, fit: Any, crop: float
) -> None:
    how = Preprocessing(
        size=size, interpolation=interpolation, fit=fit, crop_fraction=crop, pad_value=99, **PLAIN
    )
    image = picture(height, width)
    expected, batch = prepared(image, how)
    inputs, placed = Prepare(how)(torch.from_numpy(image)[None])
    off = (inputs - in_two_steps(image, how)).abs() * 255
    if interpolation == "nearest":
        rows, columns = clear(batch, 1, size[0]), clear(batch, 0, size[1])
        assert not (off[..., rows, :][..., columns] > 0.5).any()
    else:  # what lies between two levels may be rounded either way, twice
        assert float(off.max()) <= 2.01
        assert float(off.mean()) < 0.25
        assert float((inputs - expected).abs().mean()) * 255 < 1.0
    matrix = batch.to_original[0]
    np.testing.assert_allclose(placed.scale, matrix[[0, 1], [0, 1]], rtol=1e-5)
    np.testing.assert_allclose(placed.shift, matrix[:2, 2], rtol=1e-4, atol=1e-3)
    assert placed.size.tolist() == [width, height]


@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
def test_large_photographs_shrink_alike(fit: Any) -> None:
    how = Preprocessing(size=(96, 128), interpolation="bicubic", fit=fit)
    image = picture(900, 1400, seed=1)
    expected, _ = prepared(image, how)
    inputs, _ = Prepare(how)(torch.from_numpy(image)[None])
    assert float((inputs - expected).abs().max()) < 1.01 / 255 / 0.22
    assert float((inputs - expected).abs().mean()) < 1e-4


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_openvino_rounds_what_lies_between_two_levels_the_same_way(interpolation: Any) -> None:
    """213 pixels to 256 give weights of whole 512ths, of which many sums are halves."""
    pytest.importorskip("openvino")
    how = Preprocessing(size=(224, 224), interpolation=interpolation, **PLAIN)

    class Inputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prepare = Prepare(how)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.prepare(images)[0]

    module = Inputs().eval()
    images = [torch.from_numpy(picture(*size))[None] for size in ((213, 320), (240, 171))]
    engine = OpenVINOEngine(*openvino_model(module, images[0], Axes(sides=(1, 2))), "fp32")
    for image in images:
        off = (module(image) - torch.as_tensor(engine(image))).abs() * 255
        assert int((off > 0.5).sum()) <= 2, "a level of 255"


def test_several_images_at_once_are_each_prepared_alone() -> None:
    how = Preprocessing(size=(32, 32))
    images = torch.from_numpy(np.stack([picture(50, 70, seed) for seed in range(3)]))
    together, _ = Prepare(how)(images)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], Prepare(how)(images[k : k + 1])[0])
