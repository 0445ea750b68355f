"""Names of what is written for one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from answers import picture
from PIL import Image

from retinue.inference.naming import Names
from retinue.inference.writers import PredictionFolder
from retinue.tasks.classification.task import Classification
from retinue.tasks.results import ClassResult, FrameResult


def test_drawn_images_keep_their_folders_and_do_not_collide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "in"
    inside = [
        picture(base / "x" / "a.jpg"),
        picture(base / "y" / "a.jpg"),
        picture(base / "y" / "a.bmp"),
        picture(base / "y" / "a.bmp.png"),
        picture(base / "y" / "A.jpg"),
    ]
    outside = picture(tmp_path / "elsewhere" / "a.jpg")
    sneaky = str(base / ".." / "elsewhere" / ".." / "elsewhere" / "a.jpg")
    out = tmp_path / "out"
    task = Classification(["lily", "rose"])
    with PredictionFolder(out, draw=task.draw, base=base) as folder:
        for path in [*inside, outside, sneaky]:
            folder.add(ClassResult(path, [("rose", 0.9)]))
    assert (out / "drawn" / ".drawn-by-retinue").is_file()
    pictures = [p for p in out.rglob("drawn/**/*.*") if p.name[0] != "."]
    drawn = sorted(str(p.relative_to(out / "drawn")) for p in pictures)
    where = "outside" + str(tmp_path / "elsewhere")
    assert drawn == sorted(
        [
            "x/a.jpg",
            "y/a.jpg",
            "y/a.bmp.png",
            "y/a.bmp-2.png",
            "y/A-2.jpg",
            f"{where}/a.jpg",
            f"{where}/a-2.jpg",
        ]
    )
    for path in drawn:
        pixels = np.asarray(Image.open(out / "drawn" / path))
        assert pixels.shape == (40, 60, 3)
        assert pixels.max() > 180  # the caption
    before = np.asarray(Image.open(inside[0]))
    assert before.max() < 100  # the original is as it was


def test_names_that_are_too_long_for_what_is_added_are_cut_and_stay_apart(tmp_path: Path) -> None:
    """File systems have names of 255 bytes: `.png` and a number behind one of 251 are too many."""
    names = ["n" * 251 + ".bmp", "n" * 251 + ".tif", "猫" * 83 + ".jpg"]
    paths = [picture(tmp_path / "in" / name) for name in names]
    task = Classification(["lily", "rose"])
    with PredictionFolder(tmp_path / "out", draw=task.draw, base=tmp_path / "in") as folder:
        for path in paths:
            folder.add(ClassResult(path, [("rose", 0.9)]))
    drawn = {p.name for p in (tmp_path / "out" / "drawn").iterdir() if p.name[0] != "."}
    assert drawn == {"n" * 251 + ".png", "n" * 249 + "-2.png", "猫" * 83 + ".jpg"}


def test_a_long_name_keeps_its_number_and_what_follows(tmp_path: Path) -> None:
    names = Names(tmp_path)
    video, picture = "v" * 250 + ".mp4", "é" * 120 + ".jpg"
    frame = FrameResult(str(tmp_path / video), ClassResult(video, []), 12, 0.5)
    place = names.of(frame, (".jpg",), otherwise=".png", tag="-3")
    assert place.name == "v" * 242 + "-000012-3.png"
    assert names.moved == {place.as_posix(): "has too long a name"}
    result = ClassResult(str(tmp_path / picture), [])
    assert names.of(result, (".jpg",), otherwise=".png", tag="-100").name == (
        "é" * 120 + "-100.jpg"
    )
    assert names.of(result, (".xml",), otherwise=".xml", stem=True).name == "é" * 120 + ".xml"
    assert len(names.moved) == 1
