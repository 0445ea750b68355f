"""What clients do that a server has to outlive: slow ones, those that go, too much of all."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from served import Service, encoded, picture, quick, serving, wait_until
from torch import nn

from retinue.inference.predictor import Predictor, load

PICTURE = picture()


class Slow:
    """Opens a model that takes its time, and counts what it was shown."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.images = seconds, 0
        self.at_work, self.free = threading.Event(), threading.Event()

    def __call__(self, path: Path) -> Predictor:
        predictor = load(path, engine="torch", device="cpu")
        predictor.network.register_forward_pre_hook(self._wait)
        return predictor

    def _wait(self, module: nn.Module, inputs: Any) -> None:
        self.images += len(inputs[0])
        self.at_work.set()
        self.free.wait(self.seconds)


@pytest.fixture
def strict(classifier: Path) -> Iterator[tuple[Service, httpx.Client]]:
    """Short limits."""
    settings = quick(max_bytes=20_000, header_time=0.4, body_time=0.4, queue=2, max_buffered=30_000)
    with serving({"flowers": classifier}, settings) as running:
        yield running


def connected(client: httpx.Client) -> socket.socket:
    made = socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=5)
    return made


def head(length: int, kind: str = "image/png") -> bytes:
    return (
        f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def answer(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    try:
        while piece := sock.recv(65536):
            parts.append(piece)
            if b"\r\n\r\n" in piece and b"connection: close" not in b"".join(parts):
                break
    except (TimeoutError, ConnectionError):
        pass
    return b"".join(parts)


def code(response: httpx.Response) -> str:
    told: str = response.json()["error"]["code"]
    return told


# --- bytes and time ------------------------------------------------------------------------------


def test_too_many_bytes_are_413_whether_they_are_announced_or_not(strict: Any) -> None:
    _, client = strict
    assert client.post("/v1/predict", content=bytes(20_001)).status_code == 413
    chunks = (bytes(5_000) for _ in range(5))
    assert code(client.post("/v1/predict", content=chunks)) == "too_many_bytes"
    assert client.post("/v1/predict", content=PICTURE).status_code == 200


@pytest.mark.parametrize("length", ["99999999999999999999999999", "1e9", "-5", "٣", "0x10", "1_0"])
def test_odd_lengths_are_refused(strict: Any, length: str) -> None:
    with connected(strict[1]) as sock:
        sock.sendall(head(0).replace(b"Content-Length: 0", f"Content-Length: {length}".encode()))
        said = answer(sock)
    assert said.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400")), said
    assert strict[1].get("/healthz").status_code == 200


def test_a_body_that_does_not_come_is_408(strict: Any) -> None:
    with connected(strict[1]) as sock:
        sock.sendall(head(1000) + b"x" * 10)
        start = time.monotonic()
        said = answer(sock)
        assert said.startswith(b"HTTP/1.1 408")
        assert b"too_slow" in said
        assert 0.3 < time.monotonic() - start < 2


def test_headers_by_the_byte_are_given_up_while_healthz_answers(strict: Any) -> None:
    with connected(strict[1]) as sock:
        start = time.monotonic()
        said = b""
        for letter in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 200:
            try:
                sock.sendall(bytes([letter]))
                sock.settimeout(0.02)
                said = sock.recv(1000)
                break
            except TimeoutError:
                pass
            except ConnectionError:
                break
            assert time.monotonic() - start < 3
            if letter == ord("H"):
                assert strict[1].get("/healthz").elapsed.total_seconds() < 0.2
        assert said.startswith(b"HTTP/1.1 408") or not said
        assert time.monotonic() - start < 1.5


def test_a_connection_that_says_nothing_is_closed(strict: Any) -> None:
    with connected(strict[1]) as sock:
        assert answer(sock).startswith(b"HTTP/1.1 408")


def test_headers_without_end_are_431(strict: Any) -> None:
    with connected(strict[1]) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        try:
            for k in range(40):
                sock.sendall(b"X-%d: " % k + b"a" * 4000 + b"\r\n")
        except ConnectionError:
            pass
        assert answer(sock)[:12] in (b"HTTP/1.1 431", b"")
    assert strict[1].get("/healthz").status_code == 200


CHUNKED = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
LINE = b"X: " + b"a" * 4000 + b"\r\n"


def send_often(sock: socket.socket, data: bytes) -> None:
    for _ in range(200):
        sock.sendall(data)
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (CHUNKED + b"3\r\nabc\r\n0\r\n", LINE),  # trailers
        (CHUNKED + b"3;a=", b"a" * 4000),  # what a chunk says beside its length
        (head(len(PICTURE)) + PICTURE + b"GET / HTTP/1.1\r\n", LINE),  # the next request's headers
    ],
    ids=["trailers", "extension", "pipelined"],
)
def test_what_is_no_body_is_bounded_while_a_request_is_under_way(
    classifier: Path, begin: bytes, more: bytes
) -> None:
    slow = Slow(0.0)
    with serving({"flowers": classifier}, load=slow) as (_, client), connected(client) as sock:
        slow.seconds = 9.0
        sock.sendall(begin)
        with pytest.raises(ConnectionError):
            send_often(sock, more)
        slow.free.set()
        assert client.get("/healthz").status_code == 200


def test_many_small_chunks_are_a_body(client: httpx.Client) -> None:
    """Their lengths together take more room than headers may."""
    large = picture((90, 90), "BMP")  # 24 kB, of which each byte has five more about it
    pieces = (large[k : k + 1] for k in range(len(large)))
    assert client.post("/v1/predict", content=pieces).status_code == 200


def test_too_many_connections_are_told_so_and_probes_are_answered(classifier: Path) -> None:
    with serving({"flowers": classifier}, quick(connections=5)) as (service, client):
        client.get("/healthz")
        socks = [connected(client) for _ in range(5)]
        wait_until(lambda: len(service.server.server_state.connections) == 6)
        refused = client.get("/v1/models")
        assert (refused.status_code, code(refused)) == (503, "not_ready")
        assert client.get("/healthz").status_code == 200
        more = [connected(client) for _ in range(6)]
        assert more[-1].recv(1) == b""  # not let in at all
        for sock in (*socks, *more):
            sock.close()
        wait_until(lambda: client.get("/v1/models").status_code == 200)


def test_keep_alive_goes_on_after_the_headers_deadline(strict: Any) -> None:
    """The deadline is for headers that have begun, or never begin; not between two requests."""
    _, client = strict
    assert client.get("/healthz").status_code == 200
    time.sleep(0.6)
    assert client.get("/healthz").status_code == 200


def test_bodies_together_are_bounded(strict: Any) -> None:
    service, client = strict
    held = [connected(client) for _ in range(2)]
    try:
        for sock in held:
            sock.sendall(head(19_000) + b"x" * 14_000)
        wait_until(lambda: service.house.buffers.held > 25_000)
        assert client.post("/v1/predict", content=bytes(8_000)).status_code == 429
    finally:
        for sock in held:
            sock.close()
    wait_until(lambda: service.house.buffers.held == 0)
    assert client.post("/v1/predict", content=PICTURE).status_code == 200


def test_an_upload_that_breaks_off_leaves_no_file_and_no_descriptor(
    strict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("counts descriptors as Linux shows them")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    service, client = strict
    client.get("/healthz")
    before = len(os.listdir("/proc/self/fd"))
    for k in range(20):
        with connected(client) as sock:
            kind = "multipart/form-data; boundary=x" if k % 2 else "image/png"
            sock.sendall(head(15_000, kind) + b'--x\r\nContent-Disposition: form-data; name="a"')
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    wait_until(lambda: service.house.buffers.held == 0)
    assert not list(tmp_path.iterdir())


# --- too many, and those that go -----------------------------------------------------------------


def test_beyond_the_queue_it_is_429_with_a_time_to_come_again(classifier: Path) -> None:
    slow = Slow(0.0)
    settings = quick(queue=2, batch_size=1)
    with serving({"flowers": classifier}, settings, load=slow) as (service, client):
        slow.seconds = 0.4
        (model,) = service.house.models.values()
        statuses: list[httpx.Response] = []

        def send() -> None:
            statuses.append(httpx.post(f"{service.address}/v1/predict", content=PICTURE))

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: model.batcher.pending == 2)
        refused = client.post("/v1/predict", content=PICTURE)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert code(refused) == "busy"
        for thread in threads:
            thread.join()
        assert [one.status_code for one in statuses] == [200, 200]
        assert client.post("/v1/predict", content=PICTURE).status_code == 200


def test_only_the_model_that_is_asked_may_be_too_busy(
    both: tuple[Service, httpx.Client],
) -> None:
    service, client = both
    named = {"files": {"image": PICTURE}, "data": {"model": "lights"}}
    with service.house.models["flowers"].batcher.admitted(64):  # the first one, which is full
        assert client.post("/v1/predict", **named).json()["model"] == "lights"  # type: ignore[arg-type]
        assert client.post("/v1/predict?model=lights", content=PICTURE).status_code == 200
        assert client.post("/v1/predict?model=flowers", content=b"?").status_code == 429
        assert client.post("/v1/predict", content=PICTURE).status_code == 429


def test_the_query_goes_before_the_body_for_the_model_as_for_options(client: httpx.Client) -> None:
    named = {"files": {"image": PICTURE}, "data": {"model": "lights", "top_k": "1"}}
    answer = client.post("/v1/predict?model=flowers&top_k=2", **named).json()  # type: ignore[arg-type]
    assert answer["model"] == "flowers"
    assert len(answer["results"][0]["classes"]) == 2


def test_the_work_of_clients_that_have_gone_is_not_done(classifier: Path) -> None:
    slow = Slow(0.0)
    with serving({"flowers": classifier}, quick(batch_size=1), load=slow) as (service, client):
        (model,) = service.house.models.values()
        slow.seconds, slow.images = 0.5, 0
        socks = [connected(client) for _ in range(6)]
        for sock in socks:
            sock.sendall(head(len(PICTURE)) + PICTURE)
        wait_until(lambda: model.batcher.pending == 6)
        for sock in socks:
            sock.close()
        wait_until(lambda: model.batcher.pending == 0)
        slow.seconds = 0.0
        assert client.post("/v1/predict", content=PICTURE).status_code == 200
        assert slow.images <= 3  # what was at work already, and this one
        assert 'outcome="gone"' in client.get("/metrics").text


def test_healthz_answers_at_once_with_forty_pending_on_a_slow_model(classifier: Path) -> None:
    slow = Slow(0.0)
    with serving({"flowers": classifier}, quick(batch_size=1), load=slow) as (service, client):
        (model,) = service.house.models.values()
        client.get("/healthz")
        slow.seconds = 5.0
        socks = [connected(client) for _ in range(40)]
        for sock in socks:
            sock.sendall(head(len(PICTURE)) + PICTURE)
        wait_until(lambda: model.batcher.pending == 40)
        times = []
        for _ in range(10):
            start = time.perf_counter()
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 200
            times.append(time.perf_counter() - start)
        assert sorted(times)[5] < 0.2
        slow.free.set()
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/explain"])
def test_an_answer_that_would_come_too_late_is_503_as_soon_as_it_is_late(
    classifier: Path, path: str
) -> None:
    slow = Slow(0.0)
    settings = quick(batch_size=1, answer_time=0.2)
    with serving({"flowers": classifier}, settings, load=slow) as (_, client):
        slow.seconds = 5.0
        slow.at_work.clear()
        with connected(client) as sock:
            sock.sendall(head(len(PICTURE)) + PICTURE)
            assert slow.at_work.wait(5)
            start = time.monotonic()
            late = client.post(path, content=PICTURE)
            assert time.monotonic() - start < 2
            assert answer(sock).startswith(b"HTTP/1.1 503")  # whose work goes on
        slow.free.set()
        assert (late.status_code, code(late)) == (503, "not_ready")
        assert "retry-after" in late.headers


# --- what is told --------------------------------------------------------------------------------


def test_a_model_that_says_nothing_finite_is_an_error_for_that_picture_alone(
    classifier: Path,
) -> None:
    white = encoded(Image.fromarray(np.full((40, 40, 3), 255, np.uint8)))

    def opened(path: Path) -> Predictor:
        predictor = load(path, engine="torch", device="cpu")

        def spoil(module: nn.Module, inputs: Any, outputs: Any) -> Any:
            bright = inputs[0].amin((1, 2, 3)) > 1.5  # of normalised white
            outputs[bright] = float("nan")
            return outputs

        predictor.network.register_forward_hook(spoil)
        return predictor

    with serving({"flowers": classifier}, load=opened) as (_, client):
        files = [("image", (f"{k}.png", data)) for k, data in enumerate((PICTURE, white, PICTURE))]
        response = client.post("/v1/predict", files=files)
        assert response.status_code == 200
        assert "NaN" not in response.text
        first, second, third = response.json()["results"]
        assert first["classes"] == third["classes"]
        assert second["error"]["code"] == "not_finite"
        alone = client.post("/v1/predict", content=white)
        assert alone.status_code == 500
        assert code(alone) == "not_finite"
        text = client.get("/metrics").text
    assert 'retinue_not_finite_total{model="flowers"} 2.0' in text


def test_random_paths_and_methods_are_one_series(client: httpx.Client) -> None:
    for k in range(30):
        assert client.get(f"/x{k}/..%2f").status_code == 404
        client.request(f"M{k}", "/healthz")
    text = client.get("/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("retinue_requests_total")]
    others = [line for line in lines if 'route="other"' in line]
    assert len(others) == 1
    assert not any("/x" in line or 'method="M' in line for line in lines)


def test_every_answer_has_a_policy_and_an_id(client: httpx.Client) -> None:
    for path in ("/", "/nowhere", "/v1/models", "/page/app.js", "/docs"):
        response = client.get(path, headers={"x-request-id": "mine-1"})
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-request-id"] == "mine-1"
        assert "server" not in response.headers
    odd = client.get("/nowhere", headers={"x-request-id": "a b\tc"})
    assert odd.headers["x-request-id"] != "a b\tc"
    assert odd.json()["request"] == odd.headers["x-request-id"]


def test_wrong_methods_and_paths_are_json(client: httpx.Client) -> None:
    assert code(client.get("/v1/predict")) == "wrong_method"
    assert client.get("/v1/predict").headers["allow"] == "POST"
    for path in ("/page/../server.py", "/page/..%2fserver.py", "/page/%2e%2e/app.py", "/page/"):
        assert client.get(path).status_code == 404


def test_what_fails_is_json_with_the_request_that_the_log_tells_of(
    both: tuple[Service, httpx.Client], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    service, client = both

    def fails() -> Any:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(service.house.samples, "names", fails)
    answer = client.get("/samples", headers={"x-request-id": "mine-2"})
    assert answer.status_code == 500
    told = {"error": {"code": "failed", "message": "the server failed"}, "request": "mine-2"}
    assert answer.json() == told
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    wait_until(lambda: "disk on fire" in caplog.text)


def test_an_address_that_holds_nonsense_is_json(client: httpx.Client) -> None:
    answer = client.get("/samples/abc")
    assert (answer.status_code, code(answer)) == (400, "bad_request")
    assert answer.json()["request"] == answer.headers["x-request-id"]


def test_the_head_of_whatever_can_be_got(client: httpx.Client) -> None:
    """As `wget --spider` asks whether a server is well."""
    for path in ("/", "/healthz", "/readyz", "/page/app.js"):
        response = client.head(path)
        assert (response.status_code, response.content) == (200, b"")
        assert int(response.headers["content-length"]) > 0
    assert client.head("/v1/predict").status_code == 405


def test_a_foreign_name_is_not_answered_on_loopback(client: httpx.Client) -> None:
    """A page elsewhere whose name leads to 127.0.0.1 gets nothing (DNS rebinding)."""
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "[::2]", ""):
        assert client.get("/v1/models", headers={"host": host}).status_code in (400, 421)
    assert client.get("/healthz", headers={"host": "10.1.2.3:8000"}).status_code == 200
    for host in ("localhost", "LOCALHOST:99", "127.0.0.1:1", "[::1]:8000"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200


def test_the_openapi_schema_is_whole_and_docs_load_nothing_from_elsewhere(
    client: httpx.Client,
) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/explain", "/v1/models", "/healthz", "/readyz", "/metrics"} == set(
        schema["paths"]
    )
    kinds = schema["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert set(kinds) == {"image/*", "multipart/form-data", "application/json"}
    page = client.get("/docs").text
    assert "/v1/predict" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    json.dumps(schema)


def test_a_name_that_is_not_allowed_is_said_with_what_allows_it(client: httpx.Client) -> None:
    answer = client.get("/v1/models", headers={"host": f"rebound.example{'x' * 99}:80"})
    assert answer.status_code == 421
    told = answer.json()["error"]
    assert told["message"].startswith("the host name 'rebound.example")
    assert told["mend"] == "start the server with --allow-host NAME to allow one"
