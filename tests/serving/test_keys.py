"""Who may ask, and what is noted of it."""

from __future__ import annotations

import hmac
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import picture, quick, serving

from retinue.documents import parse_json
from retinue.errors import UsageError
from retinue.serving import journal, keys
from retinue.serving.keys import Keys, read_keys

KEY, OTHER = "a-key-of-twenty-four-char", "another-key-of-so-many-characters"


@pytest.fixture(scope="module")
def locked(classifier: Path) -> Iterator[httpx.Client]:
    with serving({"flowers": classifier}, quick(keys=(KEY, OTHER))) as (_, client):
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {OTHER}"},
        {"x-api-key": OTHER},
    ],
)
def test_whoever_knows_a_key_is_answered(locked: httpx.Client, headers: Any) -> None:
    response = locked.post("/v1/predict", content=picture(), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Basic {KEY}"},
        {"x-api-key": ""},
        {"x-api-key": f"{KEY},{OTHER}"},
        {"authorization": b"Bearer \xff\xfe\x80"},
    ],
)
def test_nobody_else_is(locked: httpx.Client, headers: Any) -> None:
    for method, path in (("POST", "/v1/predict"), ("GET", "/v1/models"), ("GET", "/metrics")):
        response = locked.request(method, path, content=picture(), headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"


def test_health_and_the_page_need_none(locked: httpx.Client) -> None:
    for path in ("/healthz", "/readyz", "/", "/page/app.js", "/docs"):
        assert locked.get(path).status_code == 200


@pytest.mark.parametrize("name", ["key", "api_key", "token", "Access_Token"])
def test_a_key_in_the_query_is_refused_even_if_it_is_right(locked: httpx.Client, name: str) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    response = locked.post(f"/v1/predict?{name}={KEY}", content=picture(), headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "key_in_query"
    assert KEY not in response.text


def test_every_key_is_compared_whole_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    constant_time = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return constant_time(a, b)

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    Keys([KEY, OTHER]).check({b"x-api-key": KEY.encode()})
    assert len(compared) == 2  # also behind the one that fits
    assert {len(side) for pair in compared for side in pair} == {32}


def test_keys_are_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{KEY}\n\n  {OTHER}  \n")
    assert read_keys(file) == (KEY, OTHER)
    assert read_keys(None, {"RETINUE_API_KEYS": f"{KEY}, {OTHER},"}) == (KEY, OTHER)
    assert read_keys(None, {}) == ()
    file.write_text("# none\n")
    with pytest.raises(UsageError, match="there is no key in the file"):
        read_keys(file)
    for bad in ("short", "ä" * 20, "two words and more of them"):
        file.write_text(bad)
        with pytest.raises(UsageError, match="key 1 is not 16 or more") as told:
            read_keys(file)
        assert bad not in str(told.value)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is noted, as JSON lines."""
    out = io.StringIO()
    with journal.written("json", out):
        yield out


def test_a_program_that_served_has_its_loggers_back() -> None:
    logger = logging.getLogger("retinue")
    before = list(logger.handlers), logger.level, logger.propagate
    journey = journal.written("json", io.StringIO())
    journey.__enter__()
    assert not logger.propagate
    assert not journey.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert (list(logger.handlers), logger.level, logger.propagate) == before


def test_the_journal_has_a_line_a_request_and_no_picture_name_key_or_query(
    locked: httpx.Client, lines: io.StringIO
) -> None:
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": "abc"}
    files = {"image": ("private holiday.png", picture())}
    locked.post("/v1/predict?top_k=2", files=files, headers=headers)
    locked.post(f"/v1/predict?key={KEY}", content=b"x")
    locked.get("/secret-path")
    text = lines.getvalue()
    first, second, third = (parse_json(line) for line in text.splitlines())
    assert first["request"] == "abc"
    assert (first["route"], first["status"], first["model"]) == ("/v1/predict", 200, "flowers")
    assert first["images"] == 1
    assert second["code"] == "key_in_query"
    assert third["route"] == "other"
    for secret in (KEY, "private", "holiday", "top_k", "secret-path"):
        assert secret not in text


def test_the_journal_for_people() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "request", (), None)
    record.told = {
        "method": "POST", "route": "/v1/predict", "status": 400, "milliseconds": 31.4,
        "images": 2, "code": "bad_image",
    }  # fmt: skip
    line = journal._Text().format(record)
    assert line.endswith("POST /v1/predict 400  31 ms  2 images  bad_image")
