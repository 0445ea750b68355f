"""What an answer rests on, over HTTP."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from PIL import Image
from served import encoded, lights, picture

from retinue.serving.explained import painted


def told(response: httpx.Response) -> tuple[Any, str]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    image = Image.open(io.BytesIO(response.content))
    assert image.mode == "RGBA"
    return np.asarray(image), unquote(response.headers["x-target"].removeprefix("UTF-8''"))


def test_the_best_class_is_explained_or_the_one_that_is_asked_for(client: httpx.Client) -> None:
    image, target = told(client.post("/v1/explain", content=picture()))
    (answer,) = client.post("/v1/predict", content=picture()).json()["results"]
    assert image.shape == (60, 80, 4)
    assert target == answer["classes"][0]["name"]
    last = answer["classes"][-1]["name"]
    _, other = told(client.post(f"/v1/explain?target={last}", content=picture()))
    assert other == last


def test_evidence_of_boxes_lies_where_they_are(client: httpx.Client) -> None:
    image, target = told(client.post("/v1/explain?model=lights", content=lights()))
    assert target == ""
    strong = image[..., 3] / 255
    assert strong[15:35, 14:26].mean() > 0.8
    assert strong[:5].mean() < 0.25


def test_names_in_headers_are_as_rfc_5987_has_them(client: httpx.Client) -> None:
    response = client.post("/v1/explain?model=lights&target=蓝", content=lights())
    assert response.status_code == 200, response.text
    assert response.headers["x-target"] == "UTF-8''%E8%93%9D"


def test_a_large_picture_is_explained_at_a_size_that_tells_as_much(client: httpx.Client) -> None:
    image, _ = told(client.post("/v1/explain", content=picture((2048, 512), "JPEG")))
    assert image.shape == (256, 1024, 4)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("model", ["flowers", "lights"])
def test_the_score_of_a_large_picture_is_that_of_predict(
    client: httpx.Client, model: str, orientation: int
) -> None:
    """It is prepared in the same way, and only the map is made smaller."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = picture((1500, 1100), "JPEG", seed=3, exif=exif)
    response = client.post(f"/v1/explain?model={model}", content=content)
    image, target = told(response)
    assert image.shape[:2] == ((751, 1024) if orientation == 1 else (1024, 751))
    (answer,) = client.post(f"/v1/predict?model={model}", content=content).json()["results"]
    if model == "flowers":
        best = answer["classes"][0]
        assert target == best["name"]
        assert float(response.headers["x-score"]) == pytest.approx(best["score"], abs=6e-7)


def test_the_map_of_a_large_picture_lies_where_things_are(client: httpx.Client) -> None:
    pixels = np.zeros((1200, 2000, 3), np.uint8)
    pixels[200:800, 200:600, 0] = 255
    image, _ = told(
        client.post("/v1/explain?model=lights", content=encoded(Image.fromarray(pixels)))
    )
    assert image.shape == (614, 1024, 4)
    strong = image[..., 3] / 255
    assert strong[130:380, 130:280].mean() > 0.8
    assert strong[470:].mean() < 0.25
    assert strong[:, 400:].mean() < 0.25


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/v1/explain?target=cat", picture(), 400),
        ("/v1/explain?top_k=3", picture(), 400),
        ("/v1/explain", picture()[:200], 400),
        ("/v1/explain?model=none", picture(), 404),
    ],
)
def test_refusals(client: httpx.Client, path: str, content: bytes, status: int) -> None:
    response = client.post(path, content=content)
    assert response.status_code == status, response.text


def test_what_can_be_explained_is_said(client: httpx.Client) -> None:
    assert [m["explains"] for m in client.get("/v1/models").json()["models"]] == [True, True]


def test_whose_figures_are_told_is_said(client: httpx.Client) -> None:
    models = client.get("/v1/models").json()["models"]
    assert [m["figures_of"] for m in models] == ["validation"] * len(models)


def test_nothing_is_transparent_and_all_is_not() -> None:
    image = np.asarray(Image.open(io.BytesIO(painted(np.array([[0.0, 1.0], [0.25, np.nan]])))))
    assert image[..., 3].tolist() == [[0, 255], [128, 0]]
    assert image[0, 1, 0] > image[0, 1, 2], "the strongest is red"
