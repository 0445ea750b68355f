"""What a server holds once it has seen all kinds of pictures."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from served import Service, picture, quick, serving, started

from retinue.serving.problems import bad


@pytest.mark.slow
def test_resident_memory_levels_off_over_sixty_sizes_of_pictures(classifier: Path) -> None:
    """Of the server, and of what decodes for it; with the engine that keeps most."""
    if not Path("/proc/self/status").exists():
        pytest.skip("reads memory as Linux shows it")
    process, address = started(classifier)

    def resident() -> float:
        """MiB."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        total = 0
        for pid in (str(process.pid), *children):
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(status.split("VmRSS:")[1].split()[0])
        return total / 1024

    rng = np.random.default_rng(0)
    sizes = [(int(w), int(h)) for w, h in rng.integers(40, 1500, (60, 2))]
    after: list[float] = []
    with httpx.Client(base_url=address, timeout=60) as client:
        for _ in range(4):
            for size in sizes:
                photo = picture(size, "JPEG")
                files = [("image", (f"{k}.jpg", photo)) for k in range(1 + size[0] % 5)]
                assert client.post("/v1/predict", files=files).status_code == 200
            after.append(resident())
    process.terminate()
    process.wait(30)
    assert after[3] < after[1] + 25, after


@pytest.mark.parametrize("form", ["itself", "multipart", "json"])
def test_while_it_is_answered_a_body_is_held_once(
    both: tuple[Service, httpx.Client], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """What counts as held is what is held."""
    service, client = both
    size = 8 << 20
    data = b"x" * size
    held: list[float] = []

    async def of(model: Any, pictures: Any, options: Any) -> Any:
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0] / size)
        raise bad("bad_image", "none of them")

    monkeypatch.setattr(service.house.answers, "of", of)
    request: dict[str, Any] = {
        "itself": {"content": data},
        "multipart": {"files": {"image": data}},
        "json": {"json": {"image": "A" * size}},
    }[form]
    sent = httpx.Request("POST", f"{service.address}/v1/predict", **request)
    sent.read()
    tracemalloc.start()
    try:
        assert client.send(sent).status_code == 400
    finally:
        tracemalloc.stop()
    assert held[0] < 1.3, held


def test_a_picture_that_fails_on_its_way_is_held_no_longer(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it fails with: there is room for one, and the next one has it."""
    with serving({"flowers": classifier}, quick(max_decoded=1)) as (service, client):
        (model,) = service.house.models.values()

        def fails(*_: Any, **__: Any) -> Any:
            raise RuntimeError("no thread can be started")

        with monkeypatch.context() as patch:
            patch.setattr(model.batcher, "submit", fails)
            assert client.post("/v1/predict", content=picture()).status_code == 500
        assert client.post("/v1/predict", content=picture()).status_code == 200
