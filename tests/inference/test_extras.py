"""Pictures that are written beside the answers: drawn upon, cut out."""

from __future__ import annotations

from pathlib import Path

import answers
import bright
import numpy as np
from bright import predict
from bright import saved as picture
from PIL import Image

from retinue.inference.writers import PredictionFolder
from retinue.tasks.classification.task import Classification
from retinue.tasks.results import ClassResult


def test_drawn_images_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = answers.picture(tmp_path / "turned.jpg", (60, 40), exif=exif)
    task = Classification(["lily", "rose"])
    with PredictionFolder(tmp_path / "out", draw=task.draw, base=tmp_path) as folder:
        folder.add(ClassResult(path, [("rose", 0.9)]))
    assert Image.open(tmp_path / "out" / "drawn" / "turned.jpg").size == (40, 60)


def test_crops_lie_in_a_folder_a_class(model: Path, here: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(here / "in/x/a.png", [(4, 6, 20, 16, 1), (40, 30, 64, 48, 2)])
    picture(here / "in/turned.jpg", [(4, 6, 20, 16, 0)], exif=exif, quality=100)
    done = predict(model, "in", out="out", crops=True)
    assert done.images == 2
    there = sorted(p.relative_to("out/crops").as_posix() for p in Path("out/crops").rglob("*.*g"))
    assert there == ["green/x/a-1.png", "red/turned-1.jpg", "蓝/x/a-2.png"]
    green = np.asarray(Image.open("out/crops/green/x/a-1.png"))
    assert green.shape == (10, 16, 3)
    assert (green == (0, 255, 0)).all()
    # Stored 16 × 10 at (4, 6) of 64 × 48, upright after a quarter turn: 10 wide, 16 high.
    red = np.asarray(Image.open("out/crops/red/turned-1.jpg"))
    assert red.shape[:2] in ((16, 10), (17, 11), (16, 11), (17, 10))
    assert red[8, 5, 0] > 200
    again = predict(model, "in", out="out", crops=True)
    assert again.images == 2, "what was cut out is not looked at again"


def test_classes_with_the_same_folder_keep_apart(here: Path) -> None:
    from retinue.inference.extras import Cut, Shown
    from retinue.inference.naming import Names
    from retinue.inference.predictor import held
    from retinue.sample import Sample
    from retinue.tasks.results import Box, BoxResult

    shown = Shown(Sample("a.jpg", held(bright.picture((20, 20), []))))
    known: dict[str, Names] = {}
    cut = Cut(here / "crops", lambda folder: known.setdefault(folder, Names(here)))
    boxes = [Box(name, 0.5, (1.5, 2.5, 3.25, 4.0)) for name in ("../Car", "car", "con", "///")]
    outside = Box("car", 0.5, (30, 30, 40, 40))
    cut.add(BoxResult(str(here / "a.jpg"), [*boxes, outside]), shown)
    there = sorted(
        p.relative_to(here / "crops").as_posix() for p in (here / "crops").rglob("*.jpg")
    )
    assert there == ["Car/a-1.jpg", "car-2/a-2.jpg", "class-con/a-3.jpg", "class/a-4.jpg"]
    assert Image.open(here / "crops/Car/a-1.jpg").size == (3, 2)  # all pixels that show any of it
