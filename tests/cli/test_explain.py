"""`retinue explain`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bright
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from predictors import SMALL

from retinue import modelfile
from retinue.modelfile import ModelDescription

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's file."""
    tiny.register()
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    described = ModelDescription(
        task="classification", classes=["猫 & dog/1", "<b>bold</b>", "plain"], network="tiny",
        arguments={"num_classes": 3}, preprocessing=SMALL.as_dict(),
    )  # fmt: skip
    modelfile.write(path, tiny.Tiny(num_classes=3).state_dict(), described)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    (tmp_path / "in/deep").mkdir(parents=True)
    Image.fromarray(noise).save(tmp_path / "in/a.png")
    Image.fromarray(noise[:, :30]).save(tmp_path / "in/deep/猫 é.webp")
    return tmp_path


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_overlays_in_the_folders_of_the_images(retinue: Command, model: Path, here: Path) -> None:
    code, out, err = retinue("explain", model, "in", "--out", "why")
    assert (code, err) == (0, "")
    found = sorted(path.relative_to("why").as_posix() for path in Path("why").rglob("[!.]*.*"))
    assert found == ["explained/a.png", "explained/deep/猫 é.webp.png", "explanations.jsonl"]
    shown = np.asarray(Image.open("why/explained/a.png"))
    assert shown.shape == (40, 60, 3)
    assert (shown != np.asarray(Image.open("in/a.png"))).any()
    told = lines("why/explanations.jsonl")
    assert [Path(one["path"]).name for one in told] == ["a.png", "猫 é.webp"]
    (row,) = told[0]["explanations"]
    assert (row["model"], row["method"]) == (str(model), "gradcam")
    assert out.splitlines()[-3:] == ["2 images", "  why/explained/", "  why/explanations.jsonl"]
    assert "gradcam" in out.splitlines()[0]


def test_a_second_time_and_a_broken_image(retinue: Command, model: Path, here: Path) -> None:
    assert retinue("explain", model, ".", "--out", "why").code == 0
    before = lines("why/explanations.jsonl")
    Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    code, _, err = retinue("explain", model, ".", "--out", "why")
    assert code == 3  # what was written is not looked at again
    assert "broken.jpg" in err
    assert lines("why/explanations.jsonl") == before
    assert [one["path"] for one in lines("why/skipped.jsonl")] == ["./in/broken.jpg"]
    code, _, err = retinue("explain", model, ".", "--out", "why", "--on-bad-image", "stop")
    assert code == 1
    assert lines("why/explanations.jsonl") == before
    Path("in/broken.jpg").unlink()
    assert retinue("explain", model, ".", "--out", "why").code == 0
    assert not Path("why/skipped.jsonl").exists()


def test_pictures_of_an_earlier_time_are_told(
    retinue: Command, model: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert retinue("explain", model, "in", "--out", "why").code == 0
    assert "earlier" not in caplog.text
    assert retinue("explain", model, "in/a.png", "--out", "why").code == 0
    assert "1 file there is of an earlier explanation, '猫 é.webp.png' the first" in caplog.text


def test_side_by_side(retinue: Command, model: Path, here: Path) -> None:
    told = json.loads(
        retinue(
            "explain", model, "in/a.png", "--out", "why", "--beside", model, "--method", "gradcam",
            "--method", "gradcam++", "--target", "<b>bold</b>", "--json",
        ).out
    )  # fmt: skip
    (image,) = told["images"]
    assert [row["method"] for row in image["explanations"]] == ["gradcam", "gradcam++"] * 2
    assert {row["target"] for row in image["explanations"]} == {"<b>bold</b>"}
    height, width = np.asarray(Image.open("why/explained/a.png")).shape[:2]
    assert width > 5 * 60 > height


def test_what_a_detector_has(retinue: Command, here: Path) -> None:
    finds = bright.model(here / "finds.safetensors")
    bright.saved(here / "b.png", [(32, 0, 64, 24, 1)])
    told = json.loads(retinue("explain", finds, "b.png", "--out", "why", "--json").out)
    (row,) = told["images"][0]["explanations"]
    assert (row["method"], row["target"]) == ("heatmap", None)
    anything = np.asarray(Image.open("why/explained/b.png"))
    assert retinue("explain", finds, "b.png", "--out", "why", "--target", "green").code == 0
    green = np.asarray(Image.open("why/explained/b.png"))
    np.testing.assert_array_equal(anything, green)
    assert retinue("explain", finds, "b.png", "--out", "why", "--target", "red").code == 0
    assert (np.asarray(Image.open("why/explained/b.png")) != green).any()


def test_what_is_refused_before_anything_is_written(
    retinue: Command, model: Path, here: Path
) -> None:
    Path("mine").mkdir()
    Path("mine/explained").mkdir()
    Path("mine/explained/thesis.txt").write_text("x")
    for line, said in (
        (["nowhere", "in", "--out", "why"], "nowhere"),
        ([model, "nowhere", "--out", "why"], "no such file or folder"),
        (
            [model, "in", "--out", "why", "--target", "plane"],
            f"{model}, key target, did you mean 'plain'",
        ),
        ([model, "in", "--out", "why", "--method", "rollout"], "no tokens"),
        ([model, "in", "--out", "why", "--method", "heatmap"], "does not say where"),
        ([model, "in", "--out", "why", "--beside", "nowhere"], "nowhere"),
        ([model, "in", "--out", "mine"], "something else has that name"),
        ([model, "in", "--out", "in/a.png"], "a file, not a folder"),
    ):
        code, out, err = retinue("explain", *line)
        assert code == 2, line
        assert said in err
        assert out == ""
        assert not list(Path("why").rglob("*.png"))
    assert Path("mine/explained/thesis.txt").read_text() == "x"


def test_sheets_and_the_check(retinue: Command, model: Path, here: Path) -> None:
    line = ["explain", model, "in", "--out", "why", "--json"]
    told = json.loads(
        retinue(*line, "--check", "--sheet", "kernels", "--sheet", "features").out
    )  # fmt: skip
    figures = [row for image in told["images"] for row in image["explanations"]]
    for name in ("deletion", "insertion", "deletion_of_the_middle", "insertion_of_the_middle"):
        assert all(0 <= row[name] <= 1 for row in figures)
    found = sorted(path.relative_to("why").as_posix() for path in Path("why/sheets").rglob("*.png"))
    assert found == ["sheets/features/a.png", "sheets/features/deep/猫 é.webp.png",
                     "sheets/kernels.png"]  # fmt: skip
    assert told["files"] == ["why/explained", "why/sheets", "why/explanations.jsonl"]
    assert retinue("explain", model, ".", "--out", "why").out.count("gradcam") == 2
    code, _, err = retinue(*line, "--sheet", "positions")
    assert code == 2
    assert "no position embeddings" in err


def test_a_heat_map_is_checked_for_one_class(retinue: Command, here: Path) -> None:
    finds = bright.model(here / "finds.safetensors")
    bright.saved(here / "b.png", [(32, 0, 64, 24, 1)])
    code, _, err = retinue("explain", finds, "b.png", "--out", "why", "--check")
    assert code == 2
    assert (
        "the check is of one class, and this heat map is of everything that was found, key target,"
        " name the class: target=CLASS" in err
    )
    told = retinue("explain", finds, "b.png", "--out", "why", "--check", "--target", "green").out
    assert "deletion 0." in told


def test_the_command_line_knows_every_method_and_sheet() -> None:
    from retinue.cli.explain import Method, Sheet
    from retinue.explaining import METHODS
    from retinue.explaining.sheets import SHEETS

    assert [one.value for one in Method] == ["auto", *METHODS]
    assert [one.value for one in Sheet] == list(SHEETS)


def test_a_list_a_pattern_and_a_video(retinue: Command, model: Path, here: Path) -> None:
    Path("list.txt").write_text("in/a.png\nin/clip.mp4\n", encoding="utf-8")
    Path("in/clip.mp4").write_bytes(b"no film")
    code, _, err = retinue("explain", model, "@list.txt", "in/**/*.webp", "--out", "why")
    assert code == 3
    assert "a video, and only images are explained" in err
    assert len(lines("why/explanations.jsonl")) == 2


def test_what_was_written_into_the_data_is_not_read_as_data(
    retinue: Command, model: Path, here: Path
) -> None:
    Path("in/cat").mkdir()
    Path("in/a.png").rename("in/cat/a.png")
    for out in ("in", "in/why", "in/cat", "in/cat/why"):
        assert retinue("explain", model, "in", "--out", out, "--sheet", "kernels")[0] == 0
        code, said, _ = retinue("explain", model, "in", "--out", "elsewhere", "--json")
        assert (code, len(json.loads(said)["images"])) == (0, 2)
        _, said, _ = retinue("data", "check", "in", "--json")
        told = json.loads(said)
        assert told["classes"] == {"cat": 1, "deep": 1}


def test_an_export_is_told_once_and_what_to_name_instead(
    retinue: Command, model: Path, here: Path
) -> None:
    assert retinue("export", model, "--to", "torchscript", "--images", "in")[0] == 0
    export = model.with_suffix(".torchscript")
    code, _, err = retinue("explain", export, "in", "--out", "why")
    assert (code, err.count(str(export))) == (2, 1)
    assert "name the model file (.safetensors)" in err
