"""Pictures of what the network is shown: a sheet of augmented training images a stage."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from retinue.files import replacing
from retinue.run.folder import RunFolder
from retinue.sample import BatchPlan, Preprocessing, Row, Sample
from retinue.training.feeds import image_feed
from retinue.training.recipe import Recipe

COLUMNS, ROWS, SIDE, GAP = 6, 3, 160, 4


def draw_examples(
    run: RunFolder,
    recipe: Recipe,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    classes: Sequence[str],
) -> None:
    """`plots/batch_STAGE.png`: images of the training split, evenly over it, as each stage varies
    them and the network gets them; beside it `.json`, where on it each is and what it shows."""
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
            # Runs alone: a third of the time of PNG's usual search, and about as small.
            sheet.save(temporary, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
        pictures = [
            {
                "place": [*_corner(number), SIDE, SIDE],
                "classes": _shown(row.samples, classes),
                "name": row.samples[0].name or Path(row.samples[0].key).name,
                "mixed": stage.augment.mixes_pixels,
            }
            for number, row in enumerate(rows)
        ]
        told = {"stage": stage.name, "pictures": pictures}
        run.write_json(f"plots/batch_{stage.name}.json", told)


def _sheet(inputs: torch.Tensor, preprocessing: Preprocessing) -> Image.Image:
    """Normalised images, side by side."""
    mean = torch.tensor(preprocessing.mean)[:, None, None]
    std = torch.tensor(preprocessing.std)[:, None, None]
    pixels = ((inputs.float() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    images = [Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).contiguous().numpy()]
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new(
        "RGB", (COLUMNS * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP), (255, 255, 255)
    )
    for number, image in enumerate(images):
        image = ImageOps.contain(image, (SIDE, SIDE))
        sheet.paste(image, _corner(number))
    return sheet


def _corner(number: int) -> tuple[int, int]:
    """Where on the sheet a picture begins: x and y."""
    return number % COLUMNS * (SIDE + GAP), number // COLUMNS * (SIDE + GAP)


def _shown(samples: Sequence[Sample], classes: Sequence[str]) -> list[str]:
    """What is known to be in the images that a row is made of, each name once."""
    names = [name for one in samples if one.target is not None for name in one.target.names()]
    return list(dict.fromkeys(classes[k] if isinstance(k, int) else k for k in names))
