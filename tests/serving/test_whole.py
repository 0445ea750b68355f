"""Exports that take whole pictures, `--end-to-end`, are served as `predict` takes them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import exports
import pytest
from PIL import Image
from served import encoded, picture, quick, serving

import retinue
from retinue.inference.predictor import load

SIZES = ((80, 60), (60, 80), (80, 60), (31, 7))
LOAD = partial(load, device="cpu")


def turned() -> bytes:
    """A photograph that lies on its side, and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.linear_gradient("L").resize((90, 40)).convert("RGB"), "JPEG", exif=exif)


@pytest.fixture(scope="module", params=["classification", "detection"])
def whole(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    model = exports.model if request.param == "classification" else exports.detector
    file = model(folder / "m.safetensors")
    retinue.export(
        file, "torchscript", end_to_end=True, images=exports.photographs(folder / "photos"),
        out=folder / "whole.torchscript",
    )  # fmt: skip
    return folder / "whole.torchscript"


def told(result: Any) -> list[tuple[str, float]]:
    return [(one["name"], one["score"]) for one in result.get("classes", result.get("boxes"))]


def test_whole_pictures_are_answered_as_predict_does(whole: Path) -> None:
    """Also those of several sizes in one batch, and what a camera held sideways."""
    pictures = [*(picture(size, seed=k) for k, size in enumerate(SIZES)), turned()]
    predictor = LOAD(whole)
    expected = [predictor(data).as_dict() for data in pictures]
    with serving({"whole": whole}, quick(latency=0.2, batch_size=5), load=LOAD) as (_, client):
        (about,) = client.get("/v1/models").json()["models"]
        assert about["explains"] is False
        files = [("image", (f"{k}.png", data)) for k, data in enumerate(pictures)]
        answer = client.post("/v1/predict", files=files)
        assert answer.status_code == 200, answer.text
        results = answer.json()["results"]
        assert [tuple(r["size"].values()) for r in results] == [*SIZES, (40, 90)]
        for result, one in zip(results, expected, strict=True):
            assert [name for name, _ in told(result)] == [name for name, _ in told(one)]
            assert [s for _, s in told(result)] == pytest.approx(
                [s for _, s in told(one)], abs=1e-4
            )
            for ours, theirs in zip(result.get("boxes", []), one.get("boxes", []), strict=True):
                assert ours["xyxy"] == pytest.approx(theirs["xyxy"], abs=0.05)
        assert any(told(one) for one in expected)
        bad = client.post("/v1/predict", content=b"junk")
        assert (bad.status_code, bad.json()["error"]["code"]) == (400, "bad_image")


def test_large_whole_pictures_do_not_fill_the_memory(whole: Path) -> None:
    """Two of them fit beside each other, and a third is told to come again."""
    settings = quick(latency=0.3, max_decoded=2 * 60 * 80 * 3, batch_size=8, decoders=1)
    with serving({"whole": whole}, settings, load=LOAD) as (service, client):
        (model,) = service.house.models.values()
        files = [("image", (f"{k}.png", picture())) for k in range(3)]
        with model.batcher.expected():  # one more is on its way
            answer = client.post("/v1/predict", files=files)
        codes = [one.get("error", {}).get("code") for one in answer.json()["results"]]
        assert sorted(codes, key=str) == [None, None, "busy"]
        assert client.post("/v1/predict", content=picture()).status_code == 200
