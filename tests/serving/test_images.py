"""Kinds of pictures: the same as `predict` sees, or a reason; and what one does to its decoder."""

from __future__ import annotations

import base64
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from served import encoded, picture, quick, serving, wait_until

from retinue.data import formats
from retinue.errors import RetinueError
from retinue.inference.predictor import load
from retinue.sample import Preprocessing
from retinue.serving import decode_worker
from retinue.serving.decoding import Decoders
from retinue.serving.problems import Problem

SMALL = Preprocessing(size=(32, 32))
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def kinds() -> dict[str, bytes]:
    grey16 = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    alpha = Image.fromarray(np.dstack([PIXELS, PIXELS[..., 0]]))
    turned = Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "16 bits": encoded(grey16),
        "alpha": encoded(alpha),
        "palette": encoded(turned.quantize(16), "GIF"),
        "webp": encoded(alpha, "WEBP"),
        "cmyk": encoded(turned.convert("CMYK"), "JPEG"),
        "on its side": encoded(turned, "JPEG", exif=exif),
        "tiff": encoded(turned, "TIFF"),
        "bmp": encoded(turned, "BMP"),
    }


@pytest.mark.parametrize("kind", kinds())
def test_the_answer_is_that_of_predict(client: httpx.Client, classifier: Path, kind: str) -> None:
    expected = load(classifier, engine="torch", device="cpu")(kinds()[kind]).as_dict()
    (result,) = client.post("/v1/predict", content=kinds()[kind]).json()["results"]
    assert result["classes"] == expected["classes"]
    if kind == "on its side":
        assert result["size"] == {"width": 40, "height": 60}


def test_alpha_lies_on_the_ground_that_the_model_file_states() -> None:
    """All transparent: nothing but the background shows."""
    clear = encoded(Image.new("RGBA", (40, 40), (200, 0, 0, 0)))
    for ground in ((255, 255, 255), (10, 20, 30)):
        how = Preprocessing(size=(8, 8), background=ground)
        asked = {"name": "a", "most_pixels": 10_000, "preprocessing": how.as_dict(), "whole": False}
        _, pixels = decode_worker.look(asked, clear)
        assert np.frombuffer(pixels, np.uint8).reshape(-1, 3).tolist() == [list(ground)] * 64


def test_heic_is_415_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "installed", lambda extra: False)
    head = struct.pack(">I", 24) + b"ftypheic" + bytes(12) + bytes(100)
    asked = {"name": "a", "most_pixels": 1, "preprocessing": SMALL.as_dict()}
    told, _ = decode_worker.look(asked, head)
    assert told == {"code": "unsupported", "error": "HEIC needs pip install 'retinue[heic]'"}


@pytest.mark.skipif(formats.installed("heic"), reason="HEIC is read here")
def test_heic_is_415_over_http(client: httpx.Client) -> None:
    head = struct.pack(">I", 24) + b"ftypheic" + bytes(112)
    answer = client.post("/v1/predict", content=head)
    assert answer.status_code == 415
    assert "retinue[heic]" in answer.json()["error"]["message"]


GOOD = picture((60, 40), "JPEG")


@pytest.mark.parametrize(
    "junk",
    [
        b"x", b"\0" * 5000, b"GIF89a", b"\xff\xd8\xff", GOOD[: len(GOOD) // 2], picture()[:200],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"BM" + b"\xff" * 60,
        b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"II*\0" + b"\xff" * 40,
    ],
)  # fmt: skip
def test_junk_is_400_and_the_server_goes_on(client: httpx.Client, junk: bytes) -> None:
    for request in (
        {"content": junk},
        {"files": {"image": junk}},
        {"json": {"image": base64.b64encode(junk).decode()}},
    ):
        answer = client.post("/v1/predict", **request)  # type: ignore[arg-type]
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] in ("bad_image", "bad_base64")
    assert client.get("/healthz").status_code == 200


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes whose header says so many pixels, and whose data has them."""
    rows = zlib.compress(bytes(min((width // 8 + 1) * height, 40_000_000)), 9)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_bombs_are_413_by_their_header(client: httpx.Client) -> None:
    for size in ((12_000, 12_000), (65_000, 65_000), (2**31 - 1, 2**31 - 1)):
        start = time.monotonic()
        answer = client.post("/v1/predict", content=bomb(*size))
        assert answer.status_code == 413, answer.text
        assert answer.json()["error"]["code"] == "too_many_pixels"
        assert time.monotonic() - start < 2


# --- processes -----------------------------------------------------------------------------------


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders(1, most_pixels=1_000_000, time=0.3)
    yield made
    made.close()


def test_a_process_that_ends_is_replaced_and_the_next_picture_is_answered(
    decoders: Decoders,
) -> None:
    assert decoders.submit("a", GOOD, SMALL).result(20).size == (60, 40)
    (child,) = decoders._all
    child.process.kill()
    child.process.wait()
    assert decoders.submit("b", GOOD, SMALL).result(20).size == (60, 40)


def test_where_no_process_can_be_started_pictures_are_refused_until_one_can(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with too many processes (EAGAIN) or files (EMFILE): no picture waits for ever."""
    assert decoders.submit("a", GOOD, SMALL).result(20).size == (60, 40)
    (child,) = decoders._all
    child.process.kill()
    child.process.wait()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        for _ in range(3):
            with pytest.raises(Problem, match="no process") as told:
                decoders.submit("b", GOOD, SMALL).result(5)
            assert told.value.status == 503
        with pytest.raises(RetinueError, match="does not start: no process"):
            decoders.warm_up()
        with pytest.raises(RetinueError, match="cannot be started"):
            Decoders(1, most_pixels=1, time=1)
    assert decoders.submit("c", GOOD, SMALL).result(20).size == (60, 40)


def test_closing_ends_whoever_waits_for_a_process() -> None:
    decoders = Decoders(1, most_pixels=1_000_000, time=20)
    waiting = [decoders.submit(str(k), GOOD, SMALL) for k in range(3)]  # it is starting still
    decoders.close()
    for one in waiting:
        with pytest.raises((Problem, CancelledError)) as told:
            one.result(5)
        assert getattr(told.value, "status", 503) == 503
    for thread in decoders._threads._threads:
        thread.join(5)
        assert not thread.is_alive()
    assert all(child.process.poll() is not None for child in decoders._all)


def test_a_picture_that_takes_too_long_is_given_up_and_harms_nobody() -> None:
    """144 million pixels of nothing are decompressed for longer than that."""
    slow = bomb(12_000, 12_000)
    replaced: list[int] = []
    decoders = Decoders(
        1, most_pixels=10**9, time=0.03, replaced=lambda: replaced.append(1)
    )  # fmt: skip
    try:
        decoders.submit("a", picture((8, 8)), SMALL).result(20)
        with pytest.raises(Problem, match=r"longer than 0\.03 s") as told:
            decoders.submit("slow", slow, SMALL).result(20)
        assert told.value.status == 413
        assert replaced == [1]
        assert decoders.submit("b", picture((8, 8)), SMALL).result(20).size == (8, 8)
    finally:
        decoders.close()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="bounds are Linux'")
@pytest.mark.slow
def test_memory_of_a_process_is_bounded() -> None:
    """In a process for pictures of 1,000 pixels, with one of 169 million, of 4 bytes each."""
    limited = Decoders(1, most_pixels=1_000, time=20)
    try:
        limited._most_pixels = 10**10  # only the process' own bound is left
        with pytest.raises(Problem, match="memory") as told:
            limited.submit("large", bomb(13_000, 13_000), SMALL).result(30)
        assert told.value.code == "bad_image"
        assert limited.submit("b", GOOD, SMALL).result(20).size == (60, 40)
    finally:
        limited.close()


def test_nothing_is_forked_and_no_torch_is_imported_by_what_decodes(classifier: Path) -> None:
    import os

    forks: list[int] = []
    os.register_at_fork(before=lambda: forks.append(1))
    with serving({"flowers": classifier}, quick(decoders=2)) as (service, client):
        for _ in range(5):
            assert client.post("/v1/predict", content=GOOD).status_code == 200
        text = client.get("/metrics").text
        children = list(service._decoders._all)
        maps = [Path(f"/proc/{c.process.pid}/maps").read_text() for c in children if _linux()]
    assert not forks
    # And two of them count as one.
    assert 'retinue_images_total{model="flowers",outcome="answered"} 5.0' in text
    assert not any("libtorch" in text for text in maps)
    wait_until(lambda: all(c.process.poll() is not None for c in children))


def _linux() -> bool:
    return Path("/proc/self/maps").exists()
