"""A picture in each form that a request may have, to the answer that `predict` gives."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import lights, picture

from retinue.inference.predictor import load
from retinue.serving.app import Json

PICTURE = picture()


@pytest.fixture(scope="module")
def expected(classifier: Path) -> dict[str, Any]:
    """What `predict` says of the picture."""
    return load(classifier, engine="torch", device="cpu")(PICTURE).as_dict()


def told(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    results: list[Any] = answer.json()["results"]
    return results


def b64(data: bytes = PICTURE) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "request_",
    [
        {"content": PICTURE, "headers": {"content-type": "image/png"}},
        {"content": PICTURE},
        {"content": PICTURE, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"files": {"image": ("a.png", PICTURE)}},
        {"files": {"whatever": ("a.png", PICTURE)}},
        {"json": {"image": b64()}},
        {"json": {"images": [b64()]}},
        {"json": {"images": [{"name": "a.png", "data": b64()}]}},
        {"json": {"image": "data:image/png;base64," + b64()}},
        {"json": {"image": b64().rstrip("=")}},
        {"json": {"image": base64.urlsafe_b64encode(PICTURE).decode()}},
        {"json": {"image": "\n".join(b64()[k : k + 76] for k in range(0, len(b64()), 76))}},
    ],
)
def test_every_form_gives_what_predict_gives(
    client: httpx.Client, expected: dict[str, Any], request_: dict[str, Any]
) -> None:
    (result,) = told(client.post("/v1/predict", **request_))
    assert result["classes"] == expected["classes"]  # the very same float32 numbers
    assert result["size"] == {"width": 80, "height": 60}


def test_several_pictures_come_back_in_order_each_with_its_own_answer(
    client: httpx.Client, classifier: Path
) -> None:
    names = ["ä 猫.png", 'quo"te.png', "<b>.png"]
    sent = [picture(seed=k) for k in range(3)]
    files = [("image", (name, data)) for name, data in zip(names, sent, strict=True)]
    results = told(client.post("/v1/predict", files=files))
    predictor = load(classifier, engine="torch", device="cpu")
    assert [r["path"] for r in results] == [
        "ä 猫.png", "quo%22te.png", "<b>.png"  # browsers and httpx write a quote so
    ]  # fmt: skip
    for result, data in zip(results, sent, strict=True):
        expected = predictor(data).as_dict()["classes"]
        assert [c["name"] for c in result["classes"]] == [c["name"] for c in expected]
        scores = [c["score"] for c in expected]
        assert [c["score"] for c in result["classes"]] == pytest.approx(scores, abs=1e-6)


def test_boxes_are_in_pixels_of_the_original(client: httpx.Client) -> None:
    (result,) = told(client.post("/v1/predict?model=lights", content=lights()))
    found = {box["name"]: box["xyxy"] for box in result["boxes"]}
    assert found["red"] == pytest.approx([10, 10, 30, 40], abs=1.2)
    assert found["green"] == pytest.approx([50, 20, 90, 50], abs=1.2)
    assert result["size"] == {"width": 100, "height": 60}


def test_one_bad_picture_is_told_beside_the_answers_of_the_others(client: httpx.Client) -> None:
    files = [("image", ("a.png", PICTURE)), ("image", ("b.png", PICTURE[:-30]))]
    good, bad = told(client.post("/v1/predict", files=files))
    assert "classes" in good
    assert bad["path"] == "b.png"
    assert bad["error"]["code"] == "bad_image"
    assert "truncated" in bad["error"]["message"]


def test_options_of_the_task_are_taken_from_query_form_and_json(client: httpx.Client) -> None:
    for request in (
        {"url": "/v1/predict?top_k=2", "content": PICTURE},
        {"url": "/v1/predict", "json": {"image": b64(), "top_k": 2}},
        {"url": "/v1/predict", "files": {"image": PICTURE}, "data": {"top_k": "2"}},
    ):
        (result,) = told(client.post(**request))  # type: ignore[arg-type]
        assert len(result["classes"]) == 2


def test_an_unknown_option_is_refused_with_what_there_is(client: httpx.Client) -> None:
    answer = client.post("/v1/predict?topk=2", content=PICTURE)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "code": "bad_option",
        "message": "'topk' is not an option of this model",
        "mend": "did you mean 'top_k'?",
    }
    assert client.post("/v1/predict?top_k=0", content=PICTURE).status_code == 400
    assert client.post("/v1/predict?top_k=x", content=PICTURE).status_code == 400


def test_the_model_is_told_by_name_and_version(client: httpx.Client, classifier: Path) -> None:
    answer = client.post("/v1/predict", content=PICTURE).json()
    assert answer["model"] == "flowers"
    models = {one["name"]: one for one in client.get("/v1/models").json()["models"]}
    assert list(models) == ["flowers", "lights"]
    assert models["flowers"]["version"] == answer["version"]
    assert models["flowers"]["classes"] == ["daisy", "lily", "rose", "tulip"]
    assert models["flowers"]["input"] == {"height": 64, "width": 64}
    assert models["flowers"]["options"] == {"top_k": 5}
    unknown = client.post("/v1/predict?model=flower", content=PICTURE)
    assert unknown.status_code == 404
    assert "flowers" in unknown.json()["error"]["mend"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_does_not_get_out(value: float) -> None:
    """Whatever a model says: of one that does, see the limits."""
    with pytest.raises(ValueError, match="JSON"):
        Json({"results": [{"score": value}]})
