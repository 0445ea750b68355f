"""Every block of Python on the pages runs, in a small world where the files lie that they speak of.

A page's blocks are run one after the other, as a reader would. Trainings are real, but shortened.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import absent
import box_sets
import clips
import darknet_texts
import detection_runs
import numpy as np
import predictors
import pytest
import tiny
from PIL import Image
from told import PAGES, ROOT, Block, blocks

import retinue
from retinue import api, modelfile
from retinue.sample import Preprocessing

NOT_RUN = {
    "lessons.md": "needs a checkpoint of TensorFlow's, which nobody has here",
}
WITH_PYTHON = [
    page
    for page in (*PAGES, ROOT / "README.md")
    if page.name not in NOT_RUN and any(block.language == "python" for block in blocks(page))
]


def shortened(train: Callable[..., Any]) -> Callable[..., Any]:
    """`retinue.train`, with a few steps of a tiny network unless another is named."""

    def brief(recipe: Any, **given: Any) -> Any:
        changes = dict(given.pop("overrides", None) or {})
        if "model" not in given:
            changes |= {"model.name": "tiny", "model.weights": None}
        stages = 1 if recipe in ("scratch", "linear-probe") else 2
        for k in range(stages):
            changes |= {f"stages.{k}.epochs": 1, f"stages.{k}.batch_size": 8}
            changes[f"stages.{k}.frozen_batchnorm"] = False
        changes |= {"input.size": 32, "data.workers": 0, "tensorboard": False}
        if "folds" in given:
            given["folds"] = 2
        return train(recipe, overrides=changes, quiet=True, report=False, **given)

    return brief


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of which the pages speak."""
    tiny.register()
    root = tmp_path_factory.mktemp("world")
    photos = tiny.write_pictures(root / "photos", each=12)
    for colour, name in zip(tiny.COLOURS, ("daisy", "rose", "tulip"), strict=True):
        (photos / colour).rename(photos / name)
    pictures = sorted(photos.rglob("*.png"))
    for place in ("new", "last-week", "first-week"):
        (root / place).mkdir()
        for k, path in enumerate(pictures):
            shutil.copy(path, root / place / f"{k}.png")
    for name in ("photo.jpg", "new.jpg", "street.jpg"):
        Image.open(pictures[0]).save(root / name)
    recipe = tiny.recipe(photos)
    recipe["stages"] = [{**recipe["stages"][0], "epochs": 1}]
    api.train(recipe, out=root / "runs" / "finetune", quiet=True, report=False)
    shutil.copy(root / "runs" / "finetune" / "best.safetensors", root)
    shutil.copytree(root / "runs" / "finetune", root / "runs" / "linear-probe")
    _objects(root)
    return root


def _objects(root: Path) -> None:
    """Marked objects, and runs of a detector that has learnt nothing."""
    where = box_sets.voc(root / "boxes", **{
        f"{k}": box_sets.xml(("cat", 4, 4, 20 + k, 40), ("dog", 30, 10, 60 - k, 30 + k))
        for k in range(8)
    })  # fmt: skip
    assert where == root / "boxes"
    network = darknet_texts.build(darknet_texts.CONV, darknet_texts.LAST, darknet_texts.YOLO)
    described = predictors.describe(
        task="detection", classes=["cat"], network="darknet",
        arguments=dict(network.arguments),
        preprocessing=Preprocessing(size=(64, 64), fit="letterbox").as_dict(),
    )  # fmt: skip
    modelfile.write(root / "detector.safetensors", network.state_dict(), described)
    for name in ("detect", "traffic"):
        shutil.copytree(detection_runs.run_of(root / "made-up"), root / "runs" / name,
                        dirs_exist_ok=True)  # fmt: skip
        (root / "runs" / name / "best.safetensors").symlink_to(root / "detector.safetensors")
    clips.write(root / "clip.mp4", [np.full((48, 64, 3), k * 20, np.uint8) for k in range(4)])


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world of one's own, as the present folder; its files are links."""
    place = tmp_path / "world"
    shutil.copytree(world, place, copy_function=os.symlink)
    monkeypatch.chdir(place)
    absent.supervision(monkeypatch)
    brief = shortened(api.train)
    monkeypatch.setattr(retinue, "train", brief, raising=False)
    return place


def run(these: list[Block], names: Mapping[str, Any]) -> None:
    space = {"__name__": "told_on_a_page", **names}
    for block in these:
        # The lines of a traceback are those of the page.
        code = compile("\n" * (block.line - 1) + block.code, block.page, "exec")
        exec(code, space)


SLOW = {"export.md"}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW else [])
        for page in WITH_PYTHON
    ],
)
def test_the_python_of_a_page_runs(
    page: Path, here: Path, shared: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    if page.name == "export.md":
        for needed in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(needed, reason="needs the extra onnx")
        api.export("best.safetensors", "onnx", end_to_end=True, out="best.onnx", images="new")
    else:  # other engines only take time to be ready
        request.getfixturevalue("only_torch")
    if page.name == "detectors.md":
        files = shared("weights/yolo-fastest-1.1")
        for name in ("yolo-fastest", "my"):
            for suffix in (".cfg", ".weights"):
                (here / f"{name}{suffix}").symlink_to(files / f"yolo-fastest-1.1{suffix}")
        (here / "coco.names").write_text("".join(f"class {k}\n" for k in range(80)))
    these = [block for block in blocks(page) if block.language == "python"]
    run(these, {})


def test_a_block_that_does_not_run_is_found(here: Path) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        run([Block("x.md", 7, "python", "import retinue\nretinue.trian('finetune')\n")], {})
