"""What a server holds once it has seen all kinds of pictures."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
from served import picture, started


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
