"""Pictures of what the network is shown: a sheet of augmented training images a stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps

from retinue.files import replacing
from retinue.run.folder import RunFolder
from retinue.sample import BatchPlan, Preprocessing, Row, Sample
from retinue.training.recipe import Recipe
from retinue.training.stage_data import image_feed

COLUMNS, ROWS, SIDE = 6, 3, 160


def draw_examples(
    run: RunFolder, recipe: Recipe, samples: Sequence[Sample], preprocessing: Preprocessing
) -> None:
    """`plots/batch_STAGE.png`: images of the training split, evenly over it, as each stage varies
    them and the network gets them."""
    count = min(COLUMNS * ROWS, len(samples))
    # Evenly over the split, so that every class shows.
    chosen = np.linspace(0, len(samples) - 1, count).astype(int).tolist()
    for stage in recipe.stages:
        feed = image_feed(recipe, stage, samples, preprocessing, torch.device("cpu"), workers=0)
        view = feed.loader.view
        rows = [Row(p, tuple(samples[q] for q in view.cast(p, key=p, epoch=0))) for p in chosen]
        batch = next(iter(feed.batches([BatchPlan(rows, preprocessing.size)])))
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
        image = ImageOps.contain(image, (SIDE, SIDE))
        sheet.paste(image, (number % COLUMNS * (SIDE + gap), number // COLUMNS * (SIDE + gap)))
    return sheet
