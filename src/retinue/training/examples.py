"""Pictures of what the network is shown: a sheet of augmented training images a stage."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from retinue.data.colour import Colour
from retinue.data.loader import BadImages, Loader
from retinue.data.mixing import Mixing
from retinue.data.sources import Dataset
from retinue.data.views import TrainView
from retinue.files import replacing
from retinue.sample import Preprocessing
from retinue.training.feeds import ImageFeed
from retinue.training.recipe import Recipe
from retinue.training.run_folder import RunFolder

COLUMNS, ROWS, SIDE = 6, 3, 160


def draw_examples(
    run: RunFolder, recipe: Recipe, dataset: Dataset, preprocessing: Preprocessing
) -> None:
    """`plots/batch_STAGE.png`: the first images of each stage's first epoch, as the network
    gets them."""
    samples = dataset.splits["train"]
    count = min(COLUMNS * ROWS, len(samples))
    # Evenly over the split, so that every class shows.
    chosen = np.linspace(0, len(samples) - 1, count).astype(np.int64)
    for stage in recipe.stages:
        augment = stage.augment
        bad: BadImages = "stop" if recipe.data.on_bad_image == "stop" else "substitute"
        loader = Loader(
            samples, TrainView(augment, preprocessing, recipe.seed), workers=0, bad_images=bad
        )
        mixing = None
        if augment.mixes_pixels:
            mixing = Mixing(augment.mixing, recipe.seed)
        colour = Colour(preprocessing, augment.colour, recipe.seed)
        feed = ImageFeed(loader, colour, torch.device("cpu"), mixing, len(dataset.classes))
        batch = next(iter(feed.batches([chosen], epoch=0)))
        sheet = _sheet(batch.inputs, preprocessing)
        path = run.path / "plots" / f"batch_{stage.name}.png"
        with replacing(path) as temporary:
            sheet.save(temporary, format="PNG")


def _sheet(inputs: torch.Tensor, preprocessing: Preprocessing) -> Image.Image:
    """Normalised images, side by side."""
    mean = torch.tensor(preprocessing.mean)[:, None, None]
    std = torch.tensor(preprocessing.std)[:, None, None]
    pixels = ((inputs.float() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    images = [Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).contiguous().numpy()]
    rows = -(-len(images) // COLUMNS)
    gap = 4
    sheet = Image.new(
        "RGB", (COLUMNS * (SIDE + gap) - gap, rows * (SIDE + gap) - gap), (255, 255, 255)
    )
    for number, image in enumerate(images):
        image.thumbnail((SIDE, SIDE))
        sheet.paste(image, (number % COLUMNS * (SIDE + gap), number // COLUMNS * (SIDE + gap)))
    return sheet
