"""Turned images, and the way from what was found in them back to the plain ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from retinue.data.geometry import apply, dihedral
from retinue.errors import UsageError
from retinue.inference.tta import refuse_oblong, turned_images, views, way_back

PIXELS = [(0, 0), (1, 3), (2, 4)]
"""Row and column of the marked pixel of each image."""
SIZE = (3, 5)


def marked() -> Tensor:
    images = torch.zeros(len(PIXELS), 2, *SIZE, dtype=torch.uint8)
    for image, (row, column) in zip(images, PIXELS, strict=True):
        image[:, row, column] = 255
    return images


def centres(images: Tensor) -> np.ndarray:
    """x, y of the middle of the marked pixel of each image."""
    places = [image[0].nonzero()[0].flip(0) for image in images]
    return torch.stack(places).double().numpy() + 0.5


@pytest.mark.parametrize("orientation", range(8))
def test_a_marked_pixel_goes_where_geometry_says_and_comes_back(orientation: int) -> None:
    plain = marked()
    turned = turned_images(plain, orientation)
    assert turned.shape[2:] == (SIZE[::-1] if orientation % 2 else SIZE)
    assert (turned == 255).sum() == (plain == 255).sum()
    there = apply(dihedral(orientation, SIZE), centres(plain))
    np.testing.assert_array_equal(there, centres(turned))
    back = way_back(orientation, SIZE)
    assert back.dtype == np.float64
    np.testing.assert_array_equal(apply(back, centres(turned)), centres(plain))
    np.testing.assert_array_equal(back @ dihedral(orientation, SIZE), np.eye(3))


def test_the_eight_orientations_differ_and_leave_the_images_alone() -> None:
    square = torch.arange(18.0).reshape(1, 2, 3, 3)
    kept = square.clone()
    made = [turned_images(square, orientation) for orientation in views("dihedral")]
    assert len({tuple(image.flatten().tolist()) for image in made}) == 8
    assert torch.equal(made[0], square)
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in made)
    assert torch.equal(square, kept)


def test_by_hand() -> None:
    """A quarter turn clockwise: the upper left corner of the result was the lower left one."""
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert turned_images(image, 1)[0, 0].tolist() == [[3, 1], [4, 2]]
    assert turned_images(image, 4)[0, 0].tolist() == [[2, 1], [4, 3]]
    assert turned_images(image, 5)[0, 0].tolist() == [[4, 2], [3, 1]]
    assert apply(way_back(1, (2, 2)), np.zeros((1, 2))).tolist() == [[0, 2]]


def test_oblong_inputs_are_only_mirrored() -> None:
    refuse_oblong(views("dihedral"), (16, 16))
    refuse_oblong(views("flip"), (16, 24))
    with pytest.raises(UsageError, match="square input, this one is 16 × 24"):
        refuse_oblong(views("dihedral"), (16, 24))
    with pytest.raises(UsageError, match=r"key evaluation\.tta, use evaluation\.tta=flip"):
        refuse_oblong(views("dihedral"), (16, 24), where="evaluation.tta")
